"""Every setting of the pipeline, read once and passed around as one frozen object.

The environment (``STITCH_…``) says where things are and sets the defaults for all projects; the
project file (``stitch.toml``) says what is particular to one project or one feed. A key that nobody
reads is an error, because a misspelt switch that silently does nothing is worse than no switch.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import astuple
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from croniter import croniter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stitch_pipeline.overrides import Override, OverridesError, read_overrides
from stitch_pipeline.sources import SOURCES
from stitch_pipeline.sources.paths import Key, parse_path
from stitch_pipeline.sources.source import CANONICAL_FIELDS, TimeFormat

REPOSITORY = Path(__file__).resolve().parent.parent


class SettingsError(Exception):
    """A setting is wrong. The message is one sentence for each: the key, the value and the remedy."""


def _unlimited(value: Any) -> Any:
    return None if value in ("", "null", "none", "unlimited") else value


Days = Annotated[int, Field(ge=0, le=36_500)]
DaysOrUnlimited = Annotated[Days | None, BeforeValidator(_unlimited)]


class Policy(StrEnum):
    """The rule that picks the stitched user; docs/policies.md says what each one means."""

    # Named as they are written in stitch.toml: the launchpad takes and offers the names.
    latest = "latest"
    first = "first"
    device_split = "device_split"
    next_identify = "next_identify"
    graph = "graph"


class StitchingRules(BaseModel):
    """How anonymous history is credited. Each project may override each field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stitching: bool = True
    """Off: nothing of the project is stitched; every row keeps its own device id (Jitsu's switch)."""
    session_stitching: bool = True
    """Off: sessions keep their device id (Snowplow's ``snowplow__session_stitching``)."""
    policy: Policy = Policy.latest
    """The rule that picks the stitched user from the links of a device."""
    lookback_days: DaysOrUnlimited = 30
    """Days back from a login within which anonymous rows are credited; ``null`` is unlimited."""
    carry_forward_days: DaysOrUnlimited = None
    """Days after a link within which rows of the device are credited; ``null`` is unlimited."""
    max_users_per_device: Annotated[int, Field(ge=1)] = 10
    """With more users than this in the window a device is shared and its anonymous rows are nobody's. Under ``graph``
    this goes for all time as well, and for identifiers of other kinds (macros/persons.sql)."""
    link_on: Literal["any", "identify"] = "any"
    """Which events link a device to a user: any that carries both ids, or ``identify`` calls only."""
    max_ids_per_person: Annotated[int, Field(ge=2)] = 1000
    """Under ``graph``, with more ids than this (devices included) a person of several users is not believed."""


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Paths = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]

OWN_KINDS = ("user", "device")
"""The kinds of ids that every project has; ``identifiers`` names further ones."""
MAX_UNIQUE_IDENTIFIERS = 3
"""One cut of the graph for each (macros/persons.sql), so there is an end to them."""


class IdentifierSettings(BaseModel):
    """One ``[projects.<project_id>.identifiers.<kind>]`` table: where an e-mail address, say, stands on an event."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    paths: Paths
    """Fields of ``traits`` or ``properties``, as ``traits.email``; the first with a value wins."""
    normalise: Annotated[tuple[Literal["trim", "lower", "digits"], ...], BeforeValidator(_several)] = ("trim",)
    """What is done to a value before it is compared: white space off, lower case, nothing but digits."""

    @field_validator("paths")
    @classmethod
    def _are_known_places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            place, _, field = path.partition(".")
            if place not in ("traits", "properties") or not field:
                raise ValueError(f"'{path}' is no place to look: write traits.<field> or properties.<field>")
            segments = parse_path(field)
            is_plain = bool(segments) and all(isinstance(segment, Key) for segment in segments)
            # In a path of DuckDB's JSON functions these two would mean something.
            if not is_plain or "*" in field or "\\" in field:
                raise ValueError(f"'{path}' is no plain path: write names joined by dots, as traits.address.email")
        return value


class ProjectSettings(StitchingRules):
    """One ``[projects.<project_id>]`` table: the rules, with what only a project can say."""

    blocked_ids: tuple[str, ...] = ()
    """Values that are no identity in this project, beside the built-in list."""
    conversion_events: tuple[str, ...] = ("signup", "completed_checkout")
    """Event names that ``user_conversions`` reports, in funnel order."""
    identifiers: dict[str, IdentifierSettings] = {}
    """Further kinds of ids, by name (``email``), that tie devices and users together under ``graph``."""
    unique_identifiers: Annotated[tuple[str, ...], BeforeValidator(_several)] = ()
    """Kinds of which a person has one value only, under ``graph``: two user ids, say, stay two persons."""

    @property
    def resolves_persons(self) -> bool:
        """Whether the ids of the project are joined to persons."""
        return self.stitching and self.policy == Policy.graph

    @field_validator("identifiers")
    @classmethod
    def _have_names(cls, value: dict[str, IdentifierSettings]) -> dict[str, IdentifierSettings]:
        for kind in value:
            if kind in OWN_KINDS or not kind.isidentifier():
                raise ValueError(f"'{kind}' cannot name a kind of identifier: take another word, such as email")
        return value

    @model_validator(mode="after")
    def _unique_ones_are_known(self) -> ProjectSettings:
        known = ("user", *self.identifiers)
        if unknown := [kind for kind in self.unique_identifiers if kind not in known]:
            raise ValueError(f"unique_identifiers names '{unknown[0]}'; the kinds are: {', '.join(known)}")
        if len(set(self.unique_identifiers)) > MAX_UNIQUE_IDENTIFIERS:
            raise ValueError(f"unique_identifiers may name {MAX_UNIQUE_IDENTIFIERS} kinds, not more")
        return self


class FeedSettings(BaseModel):
    """One ``[feeds.<directory>]`` table: how a directory of the landing zone is read.

    ``fields`` and what follows override the source, or say all there is to say where the source is ``custom``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str | None = None
    """The format of the feed's files; by default the directory's name."""
    project_id: str | None = None
    """The project that every event of the feed belongs to; by default the event says."""
    encoding: Literal["utf-8", "utf-16", "latin-1"] | None = None
    """How the text files are encoded; by default UTF-8, or UTF-16 where a byte order mark says so."""
    file_type: Literal["ndjson", "csv", "tsv", "parquet"] | None = None
    """What the files are, where their names do not say it."""

    fields: dict[str, Paths] = {}
    """Which field of the event plays which role: one path, or several of which the first with a value wins."""
    event_id_from: Paths | tuple[()] = ()
    """The paths that together identify an event that has no id."""
    event_types: dict[str, str] = {}
    """Canonical event type by the event's own type, or by ``type/name``."""
    other_event_type: str | None = None
    """The type of events whose own type is not listed; by default their own."""
    platforms: dict[str, str] = {}
    """Canonical platform by the event's own."""
    times: TimeFormat | None = None
    """How times are written; by default ISO 8601, or an epoch number whose size tells its unit."""
    columns: tuple[str, ...] = ()
    """The columns of delimited files that have no header."""

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
                raise ValueError(f"'{column}' is no field of an event; these are: {', '.join(CANONICAL_FIELDS)}")
            for path in paths:
                parse_path(path)
        return value


class ProjectFile(BaseModel):
    """The whole of ``stitch.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    projects: dict[str, ProjectSettings] = {}
    feeds: dict[str, FeedSettings] = {}

    @field_validator("feeds")
    @classmethod
    def _have_sources(cls, value: dict[str, FeedSettings]) -> dict[str, FeedSettings]:
        for feed, own in value.items():
            if own.source is None and feed not in SOURCES:
                raise ValueError(f"feeds.{feed} needs a source, one of {', '.join(SOURCES)}")
        return value


class Settings(BaseSettings):
    """What the code location runs with. ``Settings.load()`` is the only way it is made."""

    model_config = SettingsConfigDict(env_prefix="STITCH_", extra="forbid", frozen=True)

    landing_dir: Path = Path("data/landing")
    """Where trackers' files arrive; each directory directly below it is a feed."""
    duckdb_path: Path = Path("data/warehouse.duckdb")
    """The warehouse. The index of the landing zone lies beside it."""
    project_file: Path = Path("stitch.toml")
    """Settings per project and per feed; may be absent."""
    overrides_file: Path | None = None
    """Human decisions about identity; by default ``overrides.csv`` beside the project file, which may be absent."""
    start_date: date = date(2025, 1, 1)
    """The first daily partition (UTC). Earlier events are quarantined."""

    days_late: Days = 3
    """The daily schedule brings this many days before the closed day up to date as well."""
    session_timeout_minutes: Annotated[int, Field(ge=1, le=720)] = 30
    """A silence of this length ends a session."""
    view_stitching: str = "0 4 * * 0"
    """When page views are re-stitched: a cron expression (UTC), or ``off``."""
    daily_cron: str = "15 1 * * *"
    """When ``daily_schedule`` builds the day that has closed (UTC)."""
    reconcile_cron: str = "30 3 * * *"
    """When ``reconcile_schedule`` looks for wrong answers everywhere (UTC)."""
    sensor_interval_seconds: Annotated[int, Field(ge=1)] = 4
    """How often the sensors look. Dagster's daemon asks them every 5 seconds, or a little sooner, and those whose
    interval is not over wait for the next time: with 5 they would often look every 10."""
    index_seconds_per_tick: Annotated[float, Field(gt=0)] = 20.0
    """How long one tick of ``landing_sensor`` may read new files before it leaves the rest to the next."""
    lock_wait_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How long to wait for another process that has the warehouse open."""
    memory_limit: str | None = None
    """How much memory DuckDB may use in a run, for instance ``4GB``; by default 80% of the machine's.

    Beyond it DuckDB writes to a directory beside the warehouse. The process itself needs some 500 MB more.
    """

    stitching: bool = True
    session_stitching: bool = True
    policy: Policy = Policy.latest
    lookback_days: DaysOrUnlimited = 30
    carry_forward_days: DaysOrUnlimited = None
    max_users_per_device: Annotated[int, Field(ge=1)] = 10
    link_on: Literal["any", "identify"] = "any"
    max_ids_per_person: Annotated[int, Field(ge=2)] = 1000

    projects: dict[str, ProjectSettings] = {}
    feeds: dict[str, FeedSettings] = {}
    overrides: tuple[Override, ...] = ()

    @field_validator("landing_dir", "duckdb_path", "project_file", "overrides_file", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        return (value if value.is_absolute() else REPOSITORY / value).resolve()

    @field_validator("duckdb_path", mode="after")
    @classmethod
    def _not_named_like_the_schema(cls, value: Path) -> Path:
        # DuckDB names the catalog after the file; `stitch.users` would be ambiguous in every query.
        if value.stem.lower() == "stitch":
            raise ValueError("must not be named after the schema 'stitch'; call the file warehouse.duckdb, say")
        return value

    @field_validator("memory_limit", mode="after")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[1-9]\d*(\.\d+)? ?(MB|MiB|GB|GiB|TB|TiB)", value):
            raise ValueError("is not a size such as 4GB or 800MB")
        return value

    @field_validator("view_stitching", "daily_cron", "reconcile_cron", mode="after")
    @classmethod
    def _cron(cls, value: str, info: Any) -> str:
        if value == "off" and info.field_name == "view_stitching":
            return value
        if not croniter.is_valid(value) or len(value.split()) != 5:
            hint = " or 'off'" if info.field_name == "view_stitching" else ""
            raise ValueError(f"is not a cron expression of five fields such as '0 4 * * 0'{hint}")
        return value

    @property
    def view_stitching_is_on(self) -> bool:
        return self.view_stitching != "off"

    @property
    def index_path(self) -> Path:
        """The index of the landing zone, a small SQLite file that is readable while the warehouse is locked."""
        return self.duckdb_path.with_name(self.duckdb_path.stem + ".landing.sqlite")

    @property
    def settle_lock_path(self) -> Path:
        """Locked by ``settle`` for as long as it runs."""
        return self.duckdb_path.with_name(self.duckdb_path.stem + ".settle.lock")

    def rules(self, project_id: str) -> ProjectSettings:
        """The stitching rules of one project: the defaults, overridden by its table in ``stitch.toml``."""
        defaults = {name: getattr(self, name) for name in StitchingRules.model_fields}
        own = self.projects.get(project_id)
        return ProjectSettings(**{**defaults, **(own.model_dump(exclude_unset=True) if own else {})})

    def feed(self, name: str) -> FeedSettings:
        """What the project file says about a directory of the landing zone."""
        return self.feeds.get(name, FeedSettings())

    @property
    def building_rules(self) -> str:
        """The settings on which links and sessions depend; when they change, every day is built again."""
        # Only what differs: that a project gets a table in stitch.toml changes neither links nor sessions.
        rules = {project: self.rules(project).link_on for project in sorted(self.projects)}
        links = {project: link_on for project, link_on in rules.items() if link_on != self.link_on}
        identifiers = {
            project: {kind: found.model_dump(mode="json") for kind, found in own.items()}
            for project in sorted(self.projects)
            if (own := self.projects[project].identifiers)
        }
        named = f", identifiers {identifiers}" if identifiers else ""
        return f"timeout {self.session_timeout_minutes}, link on {self.link_on} {links}{named}"

    def crediting_rules(self, project_id: str) -> str:
        """The settings of one project on which answers depend; when they change, its rows are re-stitched."""
        fields = {*StitchingRules.model_fields, "unique_identifiers"} - {"link_on"}
        if self.rules(project_id).policy != Policy.graph:
            fields -= {"max_ids_per_person", "unique_identifiers"}
        rules = self.rules(project_id).model_dump(mode="json", include=fields)
        return json.dumps({**rules, "view_stitching": self.view_stitching_is_on}, sort_keys=True)

    @property
    def all_crediting_rules(self) -> str:
        """The same for all projects, those that stitch.toml does not name included; and the overrides."""
        projects = {project: self.crediting_rules(project) for project in sorted(self.projects)}
        rules: dict[str, Any] = {"others": self.crediting_rules(""), "projects": projects}
        if self.overrides:
            rules["overrides"] = [astuple(override) for override in sorted(self.overrides)]
        return json.dumps(rules)

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """Settings from the environment and the project file; keyword arguments win over both.

        Raises SettingsError with one sentence for each thing that is wrong.
        """
        _refuse_unknown_variables(cls)
        try:
            settings = cls(**overrides)
        except ValidationError as error:
            raise SettingsError(_sentences(error, "STITCH_")) from None
        project_file = _project_file(settings)
        return settings.model_copy(
            update={
                "projects": {**project_file.projects, **settings.projects},
                "feeds": {**project_file.feeds, **settings.feeds},
                "overrides": (*_overrides(settings), *settings.overrides),
            }
        )


def _project_file(settings: Settings) -> ProjectFile:
    try:
        text = settings.project_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if "project_file" in settings.model_fields_set:
            raise SettingsError(
                f"STITCH_PROJECT_FILE names '{settings.project_file}', which does not exist: "
                "create it, or unset the variable."
            ) from None
        return ProjectFile()
    try:
        return ProjectFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{settings.project_file} is not valid TOML: {error}.") from None
    except ValidationError as error:
        raise SettingsError(_sentences(error, f"{settings.project_file}: ")) from None


def _overrides(settings: Settings) -> tuple[Override, ...]:
    path = settings.overrides_file or settings.project_file.with_name("overrides.csv")
    try:
        return read_overrides(path)
    except FileNotFoundError:
        if settings.overrides_file is not None:
            raise SettingsError(
                f"STITCH_OVERRIDES_FILE names '{path}', which does not exist: create it, or unset the variable."
            ) from None
        return ()
    except OverridesError as error:
        raise SettingsError(str(error)) from None


def _refuse_unknown_variables(cls: type[Settings]) -> None:
    # pydantic-settings ignores unknown variables of its prefix; a typo must not pass for a setting.
    known = {f"STITCH_{name.upper()}" for name in cls.model_fields}
    for name in sorted(os.environ):
        if name.startswith("STITCH_") and name not in known:
            raise SettingsError(
                f"The environment variable {name} is not a setting; the settings are: "
                f"{', '.join(sorted(known - {'STITCH_PROJECTS', 'STITCH_FEEDS', 'STITCH_OVERRIDES'}))}."
            )


def _sentences(error: ValidationError, prefix: str) -> str:
    def sentence(item: Any) -> str:
        path = ".".join(str(part) for part in item["loc"])
        name = prefix + (path.upper() if prefix == "STITCH_" else path)
        if item["type"] == "extra_forbidden":
            return f"{name} is not a setting: check the spelling against the settings table in the README."
        message = item["msg"].removeprefix("Value error, ")
        return f"{name} = {str(item['input'])!r}: {message[0].lower()}{message[1:]}."

    return " ".join(dict.fromkeys(sentence(item) for item in error.errors()))
