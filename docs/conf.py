"""Settings of Sphinx, which builds the pages in this folder into a site: `make docs`."""

from registry_service import __version__

project = "Model Registry"
release = __version__
project_copyright = "The Model Registry authors"

extensions = ["myst_parser"]
exclude_patterns = ["generators"]
html_theme = "furo"
html_title = project
html_copy_source = False

# Links such as limits.md#requests, which GitHub understands, too.
myst_heading_anchors = 4
# Code of other languages in the pages may be a fragment, which their lexers do not accept.
suppress_warnings = ["misc.highlighting_failure"]
highlight_language = "text"
