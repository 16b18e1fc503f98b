"""How Sphinx builds the docs: `make docs`."""

from sixfold import __version__

project = "Sixfold"
author = "the Sixfold authors"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]  # shell commands with placeholders

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
nitpicky = False

html_theme = "alabaster"
html_theme_options = {
    "description": "Convolutional networks in parallel, with the bits of serial training",
    "fixed_sidebar": True,
    "page_width": "1180px",
}
html_title = f"Sixfold {release}"
html_show_sourcelink = False
html_copy_source = False
