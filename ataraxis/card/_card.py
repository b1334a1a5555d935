"""Card: a heading, a table and a picture as HTML, in the colours of its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import NamedTuple

LIMIT = 60_000
"""Most bytes of a card."""
_ROWS, _TEXT = 40, 120

# Colours are JupyterLab's or VS Code's, else the page's own; green and red are mixed
# with the colour of text, which gives the contrast on light and dark grounds.
STYLE = """
.ataraxis-card{--t:var(--jp-ui-font-color1,var(--vscode-editor-foreground,CanvasText));
--m:color-mix(in srgb,var(--t) 68%,transparent);
--b:color-mix(in srgb,var(--t) 22%,transparent);color:var(--t);
border:1px solid var(--b);border-radius:8px;padding:10px 14px;margin:4px 0;
font:13px/1.5 system-ui,sans-serif;max-width:760px;overflow-x:auto}
.ataraxis-card strong{font-size:14px}
.ataraxis-card .about,.ataraxis-card .note{color:var(--m);font-size:12px}
.ataraxis-card table{border-collapse:collapse;margin:6px 0 0;border:0}
.ataraxis-card th,.ataraxis-card td{text-align:left;padding:1px 16px 1px 0;border:0;
background:none;font-size:13px}
.ataraxis-card th{font-weight:400;color:var(--m)}
.ataraxis-card .n{text-align:right;font-variant-numeric:tabular-nums}
.ataraxis-card .good{color:color-mix(in oklab,var(--t) 25%,#0a8f4d)}
.ataraxis-card .bad{color:color-mix(in oklab,var(--t) 25%,#d92b2b);font-weight:600}
.ataraxis-card svg,.ataraxis-card img{display:block;margin:8px 0 2px;max-width:100%}
.ataraxis-card img{border-radius:4px}
""".replace("\n", "")


class Markup(NamedTuple):
    """HTML that this room has made, and what it shows in words."""

    html: str
    caption: str = ""


class Cell(NamedTuple):
    """A text of a table, and what it means: '', 'good' or 'bad'."""

    text: str
    tone: str = ""


def plain(text: object, limit: int = _TEXT) -> str:
    r"""Return a text of unknown origin as safe HTML, of limited length.

    Characters that cannot be printed, such as those that turn the direction of writing,
    are shown by their escapes.

    Examples
    --------
    >>> plain("<b>\u202e")
    '&lt;b&gt;\\u202e'
    """
    text = str(text)
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "replace").decode()
        for c in text.encode("utf-8", "replace").decode()
    )
    return escape(shown)


def number(value: float) -> str:
    """Return a number with commas, or with four digits if it is not whole."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def count(value: int, noun: str, nouns: str = "") -> str:
    """Return '1 frame' or '2 frames'."""
    return f"{value:,} {noun if value == 1 else nouns or noun + 's'}"


def span(seconds: float) -> str:
    """Return a duration in a suitable unit."""
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@dataclass
class Card:
    """What a notebook shows of an object.

    Examples
    --------
    >>> card = Card("probe", ["stream", "live"], ("reader", "lag"), [("<b>", 3)])
    >>> "<td>&lt;b&gt;</td>" in card.html(), "<script" in card.html()
    (True, False)
    """

    name: str
    """The heading."""
    about: Sequence[str] = ()
    """Facts behind the heading."""
    heads: Sequence[str] = ()
    """Heads of the table's columns."""
    rows: Sequence[Sequence[str | int | float | Cell | None]] = ()
    """Its rows; numbers are aligned to the right."""
    picture: Markup | None = None
    """A picture."""
    notes: list[str] = field(default_factory=list)
    """Lines below."""

    def html(self) -> str:
        """Return the HTML, of at most `LIMIT` bytes."""
        found = self._html(self.rows[:_ROWS], self.picture)
        if len(found.encode()) >= LIMIT:
            found = self._html(self.rows[:8], None)
        return found

    def _html(self, rows: Sequence[Sequence[object]], picture: Markup | None) -> str:
        about = ", ".join(plain(fact) for fact in self.about if fact)
        parts = [
            f"<style>{STYLE}</style>",
            '<div class="ataraxis-card">',
            f'<div><strong>{plain(self.name)}</strong> <span class="about">',
            f"{about}</span></div>",
        ]
        notes = list(self.notes[:8])
        if rows:
            parts += ["<table>", self._head(rows), "<tbody>"]
            parts += [f"<tr>{''.join(map(_cell, row[:16]))}</tr>" for row in rows]
            parts.append("</tbody></table>")
        if len(rows) < len(self.rows):
            notes.insert(0, f"and {len(self.rows) - len(rows):,} more rows")
        if picture is not None:
            parts.append(picture.html)
            notes.insert(0, picture.caption)
        parts += [f'<div class="note">{plain(n, 400)}</div>' for n in notes if n]
        return "".join([*parts, "</div>"])

    def _head(self, rows: Sequence[Sequence[object]]) -> str:
        numeric = {k for row in rows for k, cell in enumerate(row) if _is_number(cell)}
        cells = [
            f'<th scope="col"{_CLASS * (k in numeric)}>{plain(head)}</th>'
            for k, head in enumerate(self.heads[:16])
        ]
        return f"<thead><tr>{''.join(cells)}</tr></thead>"


_CLASS = ' class="n"'


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _cell(cell: object) -> str:
    if cell is None:
        return "<td></td>"
    if isinstance(cell, Cell):
        number_too = "n" * cell.text.replace(",", "").isdigit()
        kinds = " ".join(filter(None, (number_too, cell.tone)))
        kind = f' class="{kinds}"' if kinds else ""
        return f"<td{kind}>{plain(cell.text)}</td>"
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return f"<td{_CLASS}>{number(cell)}</td>"
    return f"<td>{plain(cell)}</td>"
