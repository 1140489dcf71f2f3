"""The documentation site: ``make docs`` builds it into ``build/site`` with Sphinx. It opens from a disk, offline."""

project = "TMAS"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
html_theme = "furo"
html_title = "TMAS"
html_show_copyright = False
html_copy_source = False
myst_heading_anchors = 4  # pages link to headings as on GitHub: page.md#heading
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
