"""What all pages share: their frame, style sheet, hover script and its policy.

The template is read as a resource of its package, since on a cluster Sixfold may lie in a zip file.
"""

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


def render_page(**contents: Any) -> str:
    """A page as text from what its template names; everything is escaped in it."""
    script = _read("hover.js")
    text: str = _template("page.html").render(
        **contents,
        style=Markup(_read("style.css")),
        script=Markup(script),
        # What the page's policy names its own script by, so that no other may run.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        version=__version__,
    )
    return text


@contextmanager
def optional_page(path: Path) -> Iterator[None]:
    """While open, a page that cannot be written costs a warning, never the results it shows."""
    try:
        yield
    except Exception as error:
        _logger.warning(
            "sixfold: warning: the page %s was not written (%s: %s); the results are not affected",
            path,
            type(error).__name__,
            (str(error).splitlines() or [""])[0],
        )


def _read(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


@functools.cache
def _template(name: str) -> Template:
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # What is already markup is left alone.
        finalize=lambda value: clean(value) if type(value) is str else value,
        loader=FunctionLoader(_read),
    )
    return environment.get_template(name)
