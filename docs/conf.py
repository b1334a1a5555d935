"""Sphinx: MyST pages, the notebooks as they are, the API from the docstrings.

``sphinx-build -W docs docs/_build`` with the installed package. Notebooks are executed
by the tests (tests/library/test_notebooks.py), not here.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent

# Sphinx reads below its own folder only: the tutorial is copied there for the build.
_tutorial = HERE / "tutorial"
_tutorial.mkdir(exist_ok=True)
for _page in sorted((HERE.parent / "notebooks").glob("*.ipynb")):
    shutil.copy(_page, _tutorial)

project = "ataraxis"
author = "The ataraxis developers"
copyright = "The ataraxis developers"
release = version = version_of("ataraxis")

extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc"]
exclude_patterns = ["_build", "jupyter_execute", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = f"ataraxis {release}"

nb_execution_mode = "off"
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
