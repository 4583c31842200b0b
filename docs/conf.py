"""Settings of the documentation, which `make docs` builds with Sphinx; the pages are Markdown."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import generate

import calfin_cloud

generate.write_pages()

project = "calfin_cloud"
author = copyright = "The calfin_cloud developers"
version = release = calfin_cloud.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "images", "gallery/calfin-demo"]
exclude_patterns += [f"generated/{name}.md" for name in ("cli", "gallery", "columns_*", "*reasons")]  # parts of pages
smartquotes_action = "qe"  # quotes and ellipses, not dashes: `--real` would not be what one types
default_role = "py:obj"  # `name` in a docstring leads to its page where it has one

autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autosummary_generate = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
numpydoc_show_class_members = False  # autodoc does, with their docstrings
numpydoc_class_members_toctree = False
toc_object_entries = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `make notebooks` runs them, once
nb_ipywidgets_js = {}  # would be fetched from the network
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]  # of notebooks, which begin anew at each heading

html_theme = "pydata_sphinx_theme"
html_title = "calfin_cloud"
html_static_path = ["_static"]
html_css_files = ["calfin.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"index": []}
html_theme_options = {
    "logo": {"text": "calfin_cloud"},
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "navigation_depth": 2,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
}
