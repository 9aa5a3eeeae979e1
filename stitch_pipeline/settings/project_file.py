"""``stitch.toml``: settings of the deployment, and those of single projects and feeds."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stitch_pipeline.planning.sql_text import split_name
from stitch_pipeline.settings.errors import SettingsError
from stitch_pipeline.settings.rules import Paths, ProjectSettings, Several, sentences
from stitch_pipeline.sources import SOURCES
from stitch_pipeline.sources.paths import parse_path
from stitch_pipeline.sources.source import CANONICAL_FIELDS, TimeFormat


class FeedSettings(BaseModel):
    """One ``[feeds.<directory>]`` table: how a directory of the landing zone is read.

    ``fields`` and the settings up to ``columns`` replace those of the source; for the source ``custom`` they are all
    there is. A feed with ``table`` is a table of a database: its rows are copied into files of the directory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    source: str | None = None
    """The format of the feed's files; by default the directory's name."""
    project_id: str | None = None
    """The project of every event in the feed; by default each event names its project."""
    encoding: Literal["utf-8", "utf-16", "latin-1"] | None = None
    """How the text files are encoded; by default UTF-8, or UTF-16 where a byte order mark says so."""
    file_type: Literal["ndjson", "csv", "tsv", "parquet"] | None = None
    """The type of the files, where their names do not say it."""

    fields: dict[str, Paths] = {}
    """The paths of each canonical field: one, or several; the first with a value wins."""
    identifiers: dict[str, Paths] = {}
    """The paths of further ids by kind, beside those of the source. A project names them as `identifiers.<kind>`."""
    event_id_from: Paths | tuple[()] = ()
    """The paths that together identify an event that has no id."""
    event_types: dict[str, str] = {}
    """Canonical event type by the event's own type, or by ``type/name``."""
    other_event_type: str | None = None
    """The canonical type of events with a type that is not listed; by default their own type."""
    platforms: dict[str, str] = {}
    """Canonical platform by the event's own platform."""
    times: TimeFormat | None = None
    """The format of times; by default ISO 8601, or an epoch number, its unit given by its number of digits."""
    columns: tuple[str, ...] = ()
    """The columns of delimited files that have no header."""

    table: Annotated[tuple[str, ...], Several] = ()
    """The table that holds the feed's events, as `schema.table`; or several of them."""
    connection: str | None = None
    """Where the table is: the name of an environment variable that holds `postgresql://…`, or the path of a DuckDB
    file; by default what `STITCH_FEEDS_URL` says."""
    load_time: str | None = None
    """The column with the time at which a row was loaded; by default the one of the source's own loader."""
    sequence: str | None = None
    """In place of a load time, a column with a number that grows with every row."""
    whole: bool = False
    """On: the table is small and is copied as a whole whenever it differs; it needs no load time."""
    every_seconds: Annotated[int, Field(ge=1)] = 300
    """Seconds between two looks for new rows in the table."""
    overlap_hours: Annotated[float, Field(ge=0)] = 24.0
    """For how many hours rows are looked for that arrive late, change in number or vanish; older ones are compared
    once a day."""
    rows_per_file: Annotated[int, Field(ge=1)] = 250_000
    """With more rows than this, the rows of a day are copied into several files, one after the other."""

    @property
    def reading(self) -> dict[str, Any]:
        """The settings on which it depends how a file of the feed is read."""
        # The identifiers that are read are the source's by then.
        return self.model_dump(exclude={*_OF_TABLES, "identifiers"})

    @field_validator("table")
    @classmethod
    def _are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            split_name(name)
        own = [split_name(name)[-1].lower() for name in value]
        if repeated := [name for name in own if own.count(name) > 1]:
            raise ValueError(f"names two tables '{repeated[0]}': make a feed of its own for each")
        return value

    @field_validator("connection")
    @classmethod
    def _is_no_address(cls, value: str | None) -> str | None:
        if value is not None and ("://" in value or "password=" in value):
            raise ValueError(
                "is an address, which may hold a password: put it into an environment variable, and its name here"
            )
        return value

    @model_validator(mode="after")
    def _are_about_a_table(self) -> Self:
        given = sorted(self.model_fields_set & _OF_TABLES - {"table"})
        if given and not self.table:
            raise ValueError(f"has {given[0]}, which is about a table, and names no table")
        if self.whole + (self.load_time is not None) + (self.sequence is not None) > 1:
            raise ValueError("has more than one of load_time, sequence and whole: which rows are new follows from one")
        return self

    @field_validator("source")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None and value not in SOURCES:
            raise ValueError(f"is no source; the sources are: {', '.join(SOURCES)}")
        return value

    @field_validator("fields")
    @classmethod
    def _are_canonical(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for column, paths in value.items():
            if column not in CANONICAL_FIELDS:
                nearest = get_close_matches(column, CANONICAL_FIELDS, n=1)
                hint = f"did you mean {nearest[0]}? " if nearest else ""
                raise ValueError(f"'{column}' is no field of an event; {hint}these are: {', '.join(CANONICAL_FIELDS)}")
            for path in paths:
                parse_path(path)
        return value

    @field_validator("identifiers")
    @classmethod
    def _can_be_named(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for kind, paths in value.items():
            if not kind.isidentifier():
                raise ValueError(f"'{kind}' cannot name a kind of identifier: take another word, such as idfa")
            for path in paths:
                parse_path(path)
        return value


_OF_TABLES = {
    *("table", "connection", "load_time", "sequence", "whole"),
    *("every_seconds", "overlap_hours", "rows_per_file"),
}


def kinds_of_identifiers(feeds: Mapping[str, FeedSettings]) -> set[str]:
    """The kinds that the sources and these feeds say where to find."""
    of_sources = {kind for source in SOURCES.values() for layout in source.layouts for kind in layout.identifiers}
    return of_sources | {kind for feed in feeds.values() for kind in feed.identifiers}


class ProjectFile(BaseModel):
    """The whole of ``stitch.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    settings: dict[str, Any] = {}
    """The keys that are no table: settings as the environment has them, in lower case and without the prefix."""
    projects: dict[str, ProjectSettings] = {}
    feeds: dict[str, FeedSettings] = {}

    @field_validator("feeds")
    @classmethod
    def _have_sources(cls, value: dict[str, FeedSettings]) -> dict[str, FeedSettings]:
        for feed, own in value.items():
            if own.source is None and feed not in SOURCES:
                raise ValueError(f"feeds.{feed} needs a source, one of {', '.join(SOURCES)}")
        return value


def read_project_file(path: Path) -> ProjectFile:
    """The tables and settings of the file. The settings are not checked yet.

    Raises FileNotFoundError, or SettingsError if the file cannot be read or a table is wrong.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(f"{path} cannot be read ({error.strerror}): make it a readable file.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}.") from None
    settings = {name: value for name, value in tables.items() if name not in ("projects", "feeds")}
    try:
        return ProjectFile.model_validate(
            {"settings": settings, **{name: tables[name] for name in ("projects", "feeds") if name in tables}}
        )
    except ValidationError as error:
        raise SettingsError(sentences(error, ProjectFile, named=lambda key: f"{path}: {key}")) from None
