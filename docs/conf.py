"""How the site is built: ``python -m sphinx -W --keep-going -b html docs OUT``; the network is not needed."""

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

# For the cells of the tutorials, which run in processes of their own.
os.environ |= {
    "MATPLOTLIBRC": str(DOCS / "matplotlibrc"),
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # Pyro's progress bar looks for Jupyter's widgets
}

from bayes_share.version import __version__  # noqa: E402 (found by the path above)

project = "bayes_share"
author = "the authors of bayes_share"
release = version = __version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "command_help",
]
exclude_patterns = ["pictures"]
default_role = "py:obj"  # in docstrings, a name in single backticks
suppress_warnings = ["config.cache"]

html_theme = "furo"
html_title = "bayes_share"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
pygments_dark_style = "github-dark"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = "remove-warn"
nb_merge_streams = True
nb_code_prompt_show = "Show the code of the picture"
nb_code_prompt_hide = "Hide the code of the picture"

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False


def _link_to_pages(app, docname, source):
    """Pages link to files of the repository, so that they also work there; these links lead to the site's pages."""
    source[0] = source[0].replace("](../benchmarks/README.md", "](benchmarks.md")


def setup(app):
    """Hook it in."""
    app.connect("source-read", _link_to_pages)
