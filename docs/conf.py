"""Configuration of Sphinx: MyST for the pages, autodoc for the public names, furo as the theme."""

import withlogits

project = "withlogits"
author = "The withlogits authors"
project_copyright = "The withlogits authors, Apache License 2.0"
version = release = withlogits.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "results"]  # results/ is included by other pages

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

default_role = "py:obj"  # `name` in a docstring is a link if it names something documented, else code
autodoc_typehints = "none"  # with types the signature of a loss would fill the page
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"withlogits {release}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
