"""What all pages share: how templates are read, style sheet, hover script and its policy."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from sixfold import __version__
from sixfold.report.lines import clean

_HERE = Path(__file__).parent


def style() -> str:
    """The style sheet."""
    return (_HERE / "style.css").read_text(encoding="utf-8")


def furniture() -> dict[str, Any]:
    """What a page's template needs besides its contents: style, script, version."""
    script = (_HERE / "hover.js").read_text(encoding="utf-8")
    return {
        "style": Markup(style()),
        "script": Markup(script),
        "script_hash": _script_hash(script),
        "version": __version__,
    }


@functools.cache
def template(file: Path) -> Template:
    """A page's template, which may import ``charts.html``; everything is escaped in it.

    Args:
        file: the template.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
        loader=FileSystemLoader([file.parent, _HERE]),
    )
    return environment.get_template(file.name)


def _clean(value: Any) -> Any:
    """What the template shows, made showable; what is already markup is left alone."""
    return clean(value) if type(value) is str else value


def _script_hash(script: str) -> str:
    """What the page's policy names its own script by, so that no other may run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
