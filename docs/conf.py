"""The site of the documents: `make docs`.

Its source is the whole repository, so that a link means on the site what it means on a code host,
and README, CHANGELOG, CONTRIBUTING and the notebooks are pages like any other.
"""

import gc
import sys
from pathlib import Path

import lora_core

# A build makes nodes by the million that all stay to its end; to look through them again and again
# for any that could go takes a third of its time.
gc.disable()
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "loraworks"
author = "the loraworks authors"
project_copyright = f"2026, {author}. Apache License 2.0"
version = release = lora_core.__version__
language = "en"

root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "notebooks/*"]
exclude_patterns = [".*", "build", "data", "dist", "**/.ipynb_checkpoints", "**/__pycache__"]
templates_path = ["_templates"]
nitpicky = True

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "notebooks",
    "sources",
]

# Markdown
myst_enable_extensions = ["dollarmath"]
myst_dmath_allow_space = False
myst_dmath_allow_digits = False  # $5 and $6 are amounts
myst_heading_anchors = 4

# Docstrings. Only public names of the library have to lead somewhere: no inventory is fetched.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
nitpick_ignore_regex = [("py:.*", r"(?!lora_core\b).*|.*\._\w+")]

# Looks
html_theme = "furo"
html_title = f"loraworks {release}"
html_favicon = "../app/web/static/icon.svg"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "start.html"}  # at the top, on to docs/index.html
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#b4580a",
        "color-brand-content": "#1f6fb2",
        "color-brand-visited": "#6b4fa0",
    },
    "dark_css_variables": {
        "color-brand-primary": "#f0a35b",
        "color-brand-content": "#78b5ea",
        "color-brand-visited": "#c39bf0",
    },
}
