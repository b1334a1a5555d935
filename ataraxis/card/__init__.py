"""HTML of objects, as a notebook shows them: a heading, a table, at most one picture.

Strings of unknown origin are escaped. There is no script and no request, and a card is
readable with the style removed, as in a notebook that is not trusted.
"""

from ataraxis.card._card import LIMIT, Card, Cell, Markup, count, number, plain, span
from ataraxis.card._objects import html_of
from ataraxis.card._pictures import columns_of, image, sparkline

__all__ = [
    "LIMIT",
    "Card",
    "Cell",
    "Markup",
    "columns_of",
    "count",
    "html_of",
    "image",
    "number",
    "plain",
    "span",
    "sparkline",
]
