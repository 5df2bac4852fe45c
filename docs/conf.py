"""Sphinx builds these pages: `sphinx-build -W --keep-going docs build/docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import snnsweep

project = "snnsweep"
author = "the snnsweep authors"
project_copyright = "2026, the snnsweep authors"
release = version = snnsweep.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml", "docstrings", "generated"]
exclude_patterns = ["_ext"]

html_theme = "furo"
html_title = "snnsweep"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme_options = {"top_of_page_buttons": []}
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "attrs_inline"]
myst_heading_anchors = 4  # as GitHub makes them, so that one link serves both

# What a notebook shows was stored when it was run; tests/docs runs it again.
nb_execution_mode = "off"
nb_output_stderr = "remove"

default_role = "code"  # single backticks in docstrings
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"exclude-members": "model_config, model_post_init"}
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
