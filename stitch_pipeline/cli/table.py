"""A table on a terminal, or one field per line and row if the table is wider than the terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_NARROWEST_SENTENCE = 13


def print_table(
    console: Console,
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    numbers: Collection[str] = (),
    wrapped: str | None = None,
    longest: int | None = None,
) -> None:
    """Print the rows. Cells are plain text, without markup.

    ``numbers`` are the columns that are aligned to the right. ``wrapped`` is a column of sentences, which may take
    several lines. ``longest`` cuts cells, in the table only.
    """
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    table = Table(box=None, padding=(0, 1), header_style="dim")
    width = 0
    for place, column in enumerate(columns):
        table.add_column(
            Text(column),
            justify="right" if column in numbers else "left",
            no_wrap=column != wrapped,
            overflow="fold" if column == wrapped else "ellipsis",
            max_width=longest,
        )
        lines = [line for row in cells for line in row[place].plain.splitlines()]
        widest = max(map(cell_len, [column, *lines]))
        limit = _NARROWEST_SENTENCE if column == wrapped else longest
        width += min(widest, limit or widest) + 2
    if width <= console.width:
        for row in cells:
            table.add_row(*row)
        console.print(table)
        return
    indent = max(map(cell_len, columns))
    for number, row in enumerate(cells, 1):
        if len(cells) > 1:
            console.print(Text(f" -- {number:,} --", style="dim"))
        for column, cell in zip(columns, row, strict=True):
            name = Text(f" {column}{' ' * (indent - cell_len(column))}  ", style="dim")
            console.print(name + cell if cell.plain else Text(f" {column}", style="dim"))
