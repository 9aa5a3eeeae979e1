"""The warehouse seen through an overlay: its own views over its own tables, some of them replaced for the asking.

So what a view says of one device, or under rules that nobody has set yet, is asked of the very SQL that
stitches. The warehouse is attached read-only and the overlay lives in memory: nothing of it is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from stitch_pipeline.planning.sql_text import identifier
from stitch_pipeline.warehouse import dbt_project as dbt_models
from stitch_pipeline.warehouse import tables as schema
from stitch_pipeline.warehouse.duckdb_old import WarehouseError, connect_beside

STORED = "stored"
"""The catalog of the warehouse itself; a replacement reads ``stored.stitch.<table>``."""


@contextmanager
def overlay(
    path: Path, *, wait_seconds: float, views: Sequence[str], replaced: Mapping[str, str]
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection in which ``stitch.<table>`` is the warehouse's table, or the query that replaces it.

    ``views`` are the views to see through the overlay; each reads tables only. Raises WarehouseError if there
    is no warehouse, if it stays locked for ``wait_seconds``, or if its views are not those of this version.
    """
    con = connect_beside(path, wait_seconds=wait_seconds, name=STORED)
    try:
        con.execute("create schema stitch")
        for table in _tables(con):
            query = replaced.get(table, f"select * from {STORED}.stitch.{identifier(table)}")
            # A table where it is replaced: a view would run the replacement again for each mention.
            kind = "table" if table in replaced else "view"
            con.execute(f"create {kind} stitch.{identifier(table)} as {query}")
        _refuse_other_views(con, path)
        for view in views:
            # DuckDB keeps a view's query without the catalog, so here it finds the tables of the overlay.
            ((query,),) = con.execute(
                "select sql from duckdb_views() where database_name = ? and schema_name = 'stitch' and view_name = ?",
                [STORED, view],
            ).fetchall()
            con.execute(query)
        yield con
    finally:
        con.close()


def _refuse_other_views(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Views that another version of the project left would give its answers, which may be quite other ones."""
    dbt_models.prepare_manifest()
    is_there = "views_version" in _tables(con)
    if not is_there or schema.views_version(con) != dbt_models.prepared_digest():
        raise WarehouseError(
            f"The views of the warehouse '{path}' are not those of this version: run `python -m stitch_pipeline settle "
            "--reconcile`, which makes them so, and ask again."
        )


def _tables(con: duckdb.DuckDBPyConnection) -> list[str]:
    rows = con.execute(
        "select table_name from duckdb_tables() where database_name = ? and schema_name = 'stitch' order by 1",
        [STORED],
    ).fetchall()
    return [row[0] for row in rows]
