"""What all pages share: their frame, style sheet, hover script and its policy."""

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


def render_page(file: Path, **contents: Any) -> str:
    """A page as text: a template that extends ``frame.html``, with its contents.

    Args:
        file: the template; it may import from ``charts.html``, and everything is escaped in it.
        contents: what it names.
    """
    script = (_HERE / "hover.js").read_text(encoding="utf-8")
    text: str = _template(file).render(
        **contents,
        style=Markup(_style()),
        script=Markup(script),
        script_hash=_script_hash(script),
        version=__version__,
    )
    return text


def _style() -> str:
    return (_HERE / "style.css").read_text(encoding="utf-8")


@functools.cache
def _template(file: Path) -> Template:
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
