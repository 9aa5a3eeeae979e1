"""The warehouse seen through an overlay: its own views over its own tables, some of them replaced for the asking.

So what a view says of one device, or under rules that nobody has set yet, is asked of the very SQL that
stitches. The warehouse is attached read-only and the overlay lives in memory: nothing of it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from stitch_pipeline.warehouse.duckdb_file import WarehouseError, connect_beside
from stitch_pipeline.warehouse.quoting import identifier, literal

STORED = "stored"
"""The catalog of the warehouse itself; a replacement reads ``stored.stitch.<table>``."""


@contextmanager
def overlay(
    path: Path, *, wait_seconds: float, views: Sequence[str], replaced: Mapping[str, str]
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in which ``stitch.<table>`` is the warehouse's table, or the query that replaces it.

    ``views`` are the views to see through the overlay; each reads tables only. Raises WarehouseError if there
    is no warehouse, if it stays locked for ``wait_seconds``, or if it has not got one of the views yet.
    """
    con = connect_beside(path, wait_seconds=wait_seconds, name=STORED)
    try:
        con.execute("create schema stitch")
        for table in _tables(con):
            query = replaced.get(table, f"select * from {STORED}.stitch.{identifier(table)}")
            # A table where it is replaced: a view would run the replacement again for each mention.
            kind = "table" if table in replaced else "view"
            con.execute(f"create {kind} stitch.{identifier(table)} as {query}")
        for view in views:
            # DuckDB keeps a view's query without the catalog, so here it finds the tables of the overlay.
            found = con.execute(
                f"select sql from duckdb_views() where database_name = {literal(STORED)} "
                "and schema_name = 'stitch' and view_name = ?",
                [view],
            ).fetchall()
            if not found:
                raise WarehouseError(
                    f"The warehouse '{path}' has no view '{view}' yet: run `python -m stitch_pipeline settle "
                    "--reconcile`, which creates it."
                )
            con.execute(found[0][0])
        yield con
    finally:
        con.close()


def _tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    rows = con.execute(
        "select table_name from duckdb_tables() where database_name = ? and schema_name = 'stitch' order by 1",
        [STORED],
    ).fetchall()
    return [row[0] for row in rows]
