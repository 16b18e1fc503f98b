"""What all pages share: their frame, style sheet, hover script and its policy.

Templates are read as resources of their packages, since on a cluster Sixfold may lie in a zip file.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from sixfold.core.html.json_lines import clean
from sixfold.core.version import __version__

_logger = logging.getLogger("sixfold")


def render_page(package: str, template: str, /, **contents: Any) -> str:
    """A page as text: a template that extends ``frame.html``, with its contents.

    Args:
        package: in which the template lies, such as ``sixfold.perf.plan``.
        template: its file name; it may import from ``charts.html``, and everything is escaped in
            it.
        contents: what it names.
    """
    script = _read(__package__, "hover.js") or ""
    text: str = _template(package, template).render(
        **contents,
        style=Markup(_read(__package__, "style.css") or ""),
        script=Markup(script),
        script_hash=_script_hash(script),
        version=__version__,
    )
    return text


@contextmanager
def optional_page(path: Path) -> Iterator[None]:
    """While open, a page that cannot be written costs a warning, never the results it shows.

    Args:
        path: of the page.
    """
    try:
        yield
    except Exception as error:
        lines = str(error).splitlines() or [""]
        _logger.warning(
            "sixfold: warning: the page %s was not written (%s: %s); the results are not affected",
            path,
            type(error).__name__,
            lines[0],
        )


def _read(package: str, name: str) -> str | None:
    """A package's file as text; None if it has no such file."""
    file = resources.files(package) / name
    return file.read_text(encoding="utf-8") if file.is_file() else None


@functools.cache
def _template(package: str, name: str) -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
        loader=FunctionLoader(lambda wanted: _read(package, wanted) or _read(__package__, wanted)),
    )
    return environment.get_template(name)


def _clean(value: Any) -> Any:
    """What the template shows, made showable; what is already markup is left alone."""
    return clean(value) if type(value) is str else value


def _script_hash(script: str) -> str:
    """What the page's policy names its own script by, so that no other may run."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
