"""How results are shown: pages and cards from templates, and one style of figures and tables."""

from maquette.reports.pages import render, write_page
from maquette.reports.tables import quantity, terminal_table

__all__ = ["quantity", "render", "terminal_table", "write_page"]
