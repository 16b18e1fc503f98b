"""How Sphinx builds the docs: `make docs`."""

from __future__ import annotations

import importlib
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from sixfold import __version__
from sixfold.cli import COMMANDS
from sixfold.core.console.options import Parser

project = "Sixfold"
author = "the Sixfold authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False

html_theme = "alabaster"
html_theme_options = {
    "description": "Convolutional networks in parallel, with the bits of serial training",
    "fixed_sidebar": True,
    "page_width": "1180px",
    "font_family": "system-ui, sans-serif",
    "head_font_family": "system-ui, sans-serif",
}
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_title = f"Sixfold {release}"
html_show_sourcelink = False
html_copy_source = False


class CommandHelp(Directive):
    """What ``sixfold COMMAND --help`` prints, for every command and mode."""

    def run(self) -> list[nodes.Node]:
        """One section for each command."""
        found: list[nodes.Node] = []
        for name, (package, what) in COMMANDS.items():
            command = importlib.import_module(f"{package}.command")
            parser = Parser(prog=f"sixfold {name}", description=what, allow_abbrev=False)
            command.options(parser)
            modes = [a.choices for a in parser._actions if isinstance(a.choices, dict)]
            section = nodes.section(ids=[name], names=[name])
            section += nodes.title(text=name)
            for one in (parser, *(mode for choices in modes for mode in choices.values())):
                one.usage = f"{one.prog} [options]"
                text = one.format_help()
                section += nodes.literal_block(text, text, language="none")
            found.append(section)
        return found


def without_defaults(
    _app: Any, what: str, name: str, _object: Any, _options: Any, _signature: str, _returns: str
) -> tuple[str, None] | None:
    """Settings are dozens of fields with defaults: they are listed with the commands."""
    return ("", None) if what == "class" and name.endswith("Config") else None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.add_directive("command-help", CommandHelp)
    app.connect("autodoc-process-signature", without_defaults)
