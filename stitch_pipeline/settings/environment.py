"""Every setting of a deployment, read once and passed around as one frozen object.

A setting comes from the environment (``STITCH_…``), else from a file ``.env`` with the same names, else from
``stitch.toml``, else it has its default. ``stitch.toml`` also sets what differs for one project or one feed,
``overrides.csv`` holds decisions, and ``forgotten.csv`` the hashes of forgotten ids. An unknown name is an error,
because a misspelt switch that silently does nothing is worse than no switch.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import astuple, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from croniter import croniter
from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from stitch_pipeline.settings.decisions import Decision, DecisionsError, read_decisions
from stitch_pipeline.settings.errors import SettingsError
from stitch_pipeline.settings.forgotten import Forgotten, followed_decisions, read_forgotten
from stitch_pipeline.settings.hashing import Hashing, hashed_decisions, read_hashing
from stitch_pipeline.settings.project_file import (
    FeedSettings,
    ProjectFile,
    kinds_of_identifiers,
    read_project_file,
)
from stitch_pipeline.settings.rules import Days, Policy, ProjectSettings, StitchingRules, did_you_mean, sentences

FROM_FILES = ("projects", "feeds", "decisions")
"""Fields that are read from `stitch.toml` and `overrides.csv`, not from the environment."""
WHERE_FILES_ARE = ("env_file", "project_file")
"""Fields that say where settings are read from, so `stitch.toml` cannot set them."""


_base_dir: ContextVar[Path] = ContextVar("_base_dir", default=Path())
_in_force: ContextVar[Settings | None] = ContextVar("_in_force", default=None)


@contextmanager
def paths_relative_to(directory: Path) -> Iterator[None]:
    """Settings that are loaded in the body take relative paths from this directory, not from the working directory."""
    token = _base_dir.set(directory)
    try:
        yield
    finally:
        _base_dir.reset(token)


def base_dir() -> Path:
    """The directory from which relative paths are taken: see ``paths_relative_to``."""
    return _base_dir.get()


def names_a_warehouse() -> bool:
    """Whether the environment, ``.env`` or ``stitch.toml`` sets the warehouse. Raises SettingsError like ``load``."""
    found = _Sources.read(Settings, {})
    return bool({"duckdb_path", "warehouse"} & {*found.set_there, *found.in_env_file, *found.in_project_file})


@contextmanager
def in_force(settings: Settings) -> Iterator[None]:
    """``Settings.load()`` returns these settings in the body, for commands about what a component's YAML sets up."""
    token = _in_force.set(settings)
    try:
        yield
    finally:
        _in_force.reset(token)


def problem_of_address(address: str) -> str | None:
    """What is wrong with a URL of PostgreSQL if a sign of its password would count for the host or the database.

    Part of the password would then be in messages as the name of a host.
    """
    if not re.match(r"postgres(ql)?://", address):
        return None
    location, _, parameters = address.partition("://")[2].partition("?")
    if re.fullmatch(r"([^@/]*@)?[^@]*", location) and "@" not in parameters:
        return None
    return "has a sign where an address has none: in its user and password write @ as %40, / as %2F and ? as %3F"


class Settings(StitchingRules, BaseSettings):
    """The settings of the code location. Create them with ``Settings.load()`` only."""

    model_config = SettingsConfigDict(env_prefix="STITCH_", extra="forbid", frozen=True, use_attribute_docstrings=True)

    key_prefix: str = ""
    """What precedes every asset key (`identity` or `marketing/identity`) and the names of jobs and triggers."""
    landing_dir: Path = Path("data/landing")
    """Where event files arrive; each directory directly below it is a feed."""
    duckdb_path: Path = Path("data/warehouse.duckdb")
    """The warehouse; any file name but `stitch.duckdb`."""
    warehouse: SecretStr | None = None
    """A PostgreSQL database in place of the DuckDB file, as `postgresql://user@host/database` (docs/postgres.md)."""
    warehouse_schema: str = "stitch"
    """The schema of that database that holds every table."""
    project_file: Path = Path("stitch.toml")
    """The file with settings, also per project and per feed; it may be absent."""
    env_file: str = ".env"
    """The file with further variables of this kind; it may be absent, and `off` reads none."""
    overrides_file: Path | None = None
    """The file with decisions about identity; by default `overrides.csv` beside the project file, if there is one."""
    forgotten_file: Path | None = None
    """The list of forgotten ids, as keyed hashes; by default `forgotten.csv` beside the project file."""
    forget_key: SecretStr | None = None
    """The key of the hashes in that list; by default in a file beside it, which `stitch forget` creates."""
    published_dir: Path | Literal["off"] | None = None
    """Where readers find the tables as Parquet, or `off`; by default `<warehouse>.published` beside the warehouse."""
    feeds_url: SecretStr | None = None
    """Where tables are that are feeds: `postgresql://…` or the path of a DuckDB file; by default `STITCH_WAREHOUSE`."""
    start_date: date = date(2025, 1, 1)
    """The first daily partition (UTC); earlier events are quarantined."""

    days_late: Days = 3
    """How many days before the closed day `daily_schedule` builds as well."""
    session_timeout_minutes: Annotated[int, Field(ge=1, le=720)] = 30
    """A gap of this length between two events ends a session."""
    view_stitching: str = "0 4 * * 0"
    """When page views are re-stitched: a cron expression (UTC), or `off`."""
    daily_cron: str = "15 1 * * *"
    """When `daily_schedule` builds the day that has closed: a cron expression (UTC)."""
    reconcile_cron: str = "30 3 * * *"
    """When `reconcile_schedule` looks for wrong answers in all tables: a cron expression (UTC)."""
    # Dagster's daemon runs sensors every 5 seconds or a little sooner, and skips a sensor until its interval is over:
    # with 5 here a sensor would often run only every 10 seconds.
    sensor_interval_seconds: Annotated[int, Field(ge=1)] = 4
    """How often the sensors look, in seconds."""
    index_seconds_per_tick: Annotated[float, Field(gt=0)] = 20.0
    """How long one tick of `landing_sensor` may read new files before it leaves the rest to the next tick."""
    restitch_in_build_days: Days = 31
    """A build that makes at most so many other days stale re-stitches them; more are left to `identify_sensor`."""
    max_vanished_share: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The share of the known files that may vanish at once; rows of more stay until `stitch accept-vanished`."""
    lock_wait_seconds: Annotated[float, Field(ge=0)] = 60.0
    """How long to wait while another process has the warehouse open."""
    # The process itself needs some 500 MB more.
    memory_limit: str | None = None
    """Memory DuckDB may use in a run, such as `4GB`; by default 80% of the machine's; what is beyond goes to disk."""

    code_location: str = "stitch_pipeline"
    """The code location's name in Dagster's workspace: its pages list the runs of `stitch settle`.
    Under a component it is by default the dg project's."""

    report_dir: Path | None = None
    """Where `stitching_report` and `stitch report` write their pages; by default `<warehouse>.reports` beside it."""
    report_url: str | None = None
    """The address at which that directory is served, if it is; `stitching_report` then links to the pages."""
    report_cron: str = "30 5 * * *"
    """When `report_schedule` writes the reports: a cron expression (UTC), or `off`."""

    show_ids: bool = False
    """On: run metadata, log lines and errors of runs may hold ids and values of events, such as a preview's sample."""

    alert_url: SecretStr | None = None
    """Where a message about each failed run is posted as JSON, such as a chat tool's incoming webhook."""
    alert_command: SecretStr | None = None
    """A command that is run for each failed run, with that message on its standard input."""

    projects: dict[str, ProjectSettings] = {}
    """What single projects do differently, by `project_id`."""
    feeds: dict[str, FeedSettings] = {}
    """How directories of the landing zone are read, by name; others are in the format that they are named after."""
    decisions: tuple[Decision, ...] = ()
    """As written; ``followed_decisions`` are without what is forgotten."""

    @field_validator(
        *("landing_dir", "duckdb_path", "project_file", "overrides_file", "forgotten_file", "report_dir"), mode="after"
    )
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        return (_base_dir.get() / value).resolve()

    @field_validator("key_prefix", mode="after")
    @classmethod
    def _words(cls, value: str) -> str:
        if value and not re.fullmatch(r"\w+(/\w+)*", value, re.ASCII):
            raise ValueError("is not a prefix such as identity or marketing/identity (letters, digits and _)")
        return value

    @field_validator("published_dir", mode="after")
    @classmethod
    def _absolute_unless_off(cls, value: Path | Literal["off"] | None) -> Path | Literal["off"] | None:
        return (_base_dir.get() / value).resolve() if isinstance(value, Path) else value

    @field_validator("duckdb_path", mode="after")
    @classmethod
    def _not_named_like_the_schema(cls, value: Path) -> Path:
        # DuckDB names the catalog after the file, so `stitch.users` would be ambiguous in every query.
        if value.stem.lower() == "stitch":
            raise ValueError("must not be named after the schema 'stitch'; call the file warehouse.duckdb, say")
        return value

    @field_validator("warehouse", mode="after")
    @classmethod
    def _database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value().strip():
            return None
        if not re.match(r"postgres(ql)?://", value.get_secret_value()):
            raise ValueError("is not an address such as postgresql://user:password@host/database")
        return value

    @field_validator("warehouse", "feeds_url", mode="after")
    @classmethod
    def _password_is_written_for_an_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (problem := problem_of_address(value.get_secret_value())):
            raise ValueError(problem)
        return value

    @field_validator("warehouse_schema", mode="after")
    @classmethod
    def _schema(cls, value: str) -> str:
        # Short, because a warehouse that is kept aside is a schema with a longer name.
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,29}", value):
            raise ValueError("is not a name of up to 30 small letters, digits and _")
        return value

    @field_validator("alert_url", "alert_command", "feeds_url", mode="after")
    @classmethod
    def _empty_is_unset(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is not None and value.get_secret_value().strip() else None

    @field_validator("memory_limit", mode="after")
    @classmethod
    def _size(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[1-9]\d*(\.\d+)? ?(MB|MiB|GB|GiB|TB|TiB)", value):
            raise ValueError("is not a size such as 4GB or 800MB")
        return value

    @field_validator("report_url", mode="after")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/\s]", value):
            raise ValueError("is not an address such as https://reports.example.com/stitching")
        return value

    @field_validator("view_stitching", "daily_cron", "reconcile_cron", "report_cron", mode="after")
    @classmethod
    def _cron(cls, value: str, info: Any) -> str:
        may_be_off = info.field_name in ("view_stitching", "report_cron")
        if value == "off" and may_be_off:
            return value
        if not croniter.is_valid(value) or len(value.split()) != 5:
            hint = " or 'off'" if may_be_off else ""
            raise ValueError(f"is not a cron expression of five fields such as '0 4 * * 0'{hint}")
        return value

    @property
    def key_prefix_parts(self) -> tuple[str, ...]:
        """The words of the key prefix."""
        return tuple(self.key_prefix.split("/")) if self.key_prefix else ()

    @property
    def view_stitching_is_on(self) -> bool:
        """Whether page views are re-stitched at all."""
        return self.view_stitching != "off"

    @property
    def has_alerts(self) -> bool:
        """Whether anybody is told about a failed run."""
        return self.alert_url is not None or self.alert_command is not None

    @property
    def index_path(self) -> Path:
        """The index of the landing zone, a small SQLite file that is readable while the warehouse is locked."""
        return self.duckdb_path.with_name(self.duckdb_path.stem + ".landing.sqlite")

    @property
    def publishes_to(self) -> Path | None:
        """The directory of the published copy; None while publishing is off."""
        if self.published_dir == "off" or self.warehouse is not None:
            return None
        return self.published_dir or self.default_published_dir

    @property
    def default_published_dir(self) -> Path:
        return self.duckdb_path.with_name(self.duckdb_path.stem + ".published")

    @property
    def reports_to(self) -> Path:
        """The directory of the report's pages."""
        return self.report_dir or self.duckdb_path.with_name(self.duckdb_path.stem + ".reports")

    @property
    def forgotten_path(self) -> Path:
        """The list of forgotten ids; it exists once something was forgotten."""
        return self.forgotten_file or self.project_file.with_name("forgotten.csv")

    @property
    def forgotten(self) -> Forgotten:
        """The list as it is on disk now: to forget an id takes effect without loading the code location again.

        Raises SettingsError if the list or its key is wrong.
        """
        return read_forgotten(self.forgotten_path, self.forget_key_in_environment)

    @property
    def followed_decisions(self) -> tuple[Decision, ...]:
        """The decisions as tables hold them: without forgotten ids, and with hashed ids where a project hashes them."""
        without = followed_decisions(self.decisions, self.forgotten)
        return hashed_decisions(without, self.hashing, self.projects)

    @property
    def hashing(self) -> Hashing:
        """The projects with hashed ids, and their keys as the environment has them now.

        Raises SettingsError if a variable holds something else than a key.
        """
        if not any(own.hash_key for own in self.projects.values()):
            return Hashing()
        return read_hashing(self.projects, _variables_of_others(self.env_file))

    @property
    def forget_key_in_environment(self) -> str | None:
        return None if self.forget_key is None else self.forget_key.get_secret_value()

    @property
    def settle_lock_path(self) -> Path:
        """Locked by ``settle`` for as long as it runs."""
        return self.duckdb_path.with_name(self.duckdb_path.stem + ".settle.lock")

    def rules(self, project_id: str) -> ProjectSettings:
        """The stitching rules of one project: the defaults, with the changes from its table in ``stitch.toml``."""
        defaults = {name: getattr(self, name) for name in StitchingRules.model_fields}
        own = self.projects.get(project_id)
        return ProjectSettings(**{**defaults, **(own.model_dump(exclude_unset=True) if own else {})})

    def feed(self, name: str) -> FeedSettings:
        """The settings of a directory of the landing zone, by its name; the defaults if the file does not name it."""
        return self.feeds.get(name, FeedSettings())

    def connection_of(self, feed: str) -> str | None:
        """The address of the database with the feed's tables, which may hold a password; None if nothing says it.

        It is a URL, or the path of a DuckDB file. Raises SettingsError if the feed names a variable that is not set.
        """
        named = self.feed(feed).connection
        if named is None:
            address = self.feeds_url or self.warehouse
            return None if address is None else address.get_secret_value()
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", named):
            return str((self.project_file.parent / named).resolve())
        found = os.environ.get(named) or _variables_of_others(self.env_file).get(named)
        if not found:
            raise SettingsError(
                f"feeds.{feed}.connection names the environment variable {named}, which is not set: set it to the "
                "database's address, such as postgresql://reader:…@db.example.com/events."
            )
        if problem := problem_of_address(found):
            raise SettingsError(f"{named}, which feeds.{feed}.connection names, {problem}.")
        return found

    @property
    def read_identifiers(self) -> Mapping[str, list[str]]:
        """By project the kinds of an event's ``identifiers`` that it names; no others are read."""
        return {
            project: sorted({kind for _, kind in named})
            for project, own in sorted(self.projects.items())
            if (named := list(_named_identifiers(project, own)))
        }

    @property
    def building_rules(self) -> str:
        """The settings on which links and sessions depend; when they change, every day is built again."""
        # Only what differs: a new table for a project in stitch.toml alone changes neither links nor sessions.
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
        """The settings of one project on which answers depend, as JSON; when they change, its rows are re-stitched."""
        own = self.rules(project_id)
        of_graph = {"unique_identifiers", "limits", "contested_ids"}
        # Links depend on the first of these, counts and a report on the others.
        others = {"link_on", "count_people_without_devices", "same_browser_seconds"}
        fields = {*StitchingRules.model_fields, *of_graph} - others
        if own.policy != Policy.graph:
            fields -= {"max_ids_per_person", *of_graph}
        rules = own.model_dump(mode="json", include=fields)
        return json.dumps({**rules, "view_stitching": self.view_stitching_is_on}, sort_keys=True)

    @property
    def all_crediting_rules(self) -> str:
        """What the last run has to follow, as JSON.

        ``crediting_rules`` of all projects, unnamed ones included, with who is counted, the decisions and what is
        forgotten.
        """
        projects = {project: self.crediting_rules(project) for project in sorted(self.projects)}
        rules: dict[str, Any] = {"others": self.crediting_rules(""), "projects": projects}
        counting = [project for project in ("", *projects) if self.rules(project).count_people_without_devices]
        if counting:
            rules["count_people_without_devices"] = counting
        if decisions := self.followed_decisions:
            rules["decisions"] = [astuple(decision) for decision in sorted(decisions)]
        if self.forgotten:
            rules["forgotten"] = self.forgotten.digest
        return json.dumps(rules)

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """Settings from the environment, the files and the defaults; keyword arguments win over all.

        Without arguments these may be the settings ``in_force``. Raises SettingsError with one sentence for each wrong
        setting.
        """
        found = _in_force.get()
        if found is not None and not overrides:
            return found
        sources = _Sources.read(cls, overrides)
        in_files = {**sources.in_project_file, **sources.in_env_file}
        # What the environment sets is left to it.
        from_files = {name: value for name, value in in_files.items() if name not in sources.set_there}

        def named(key: str) -> str:
            name = key.split(".")[0]
            if name in overrides:
                return key
            if name not in from_files:
                return _variable(key)
            if name in sources.in_env_file:
                return f"{sources.env_file}: {_variable(key)}"
            return f"{sources.path}: {key}"

        try:
            settings = cls(**{**from_files, **overrides})
        except ValidationError as error:
            raise SettingsError(sentences(error, cls, named=named, secrets=_secrets(cls))) from None
        loaded = settings.model_copy(
            update={
                # It is read again for variables that settings name, when paths are no longer relative to the directory.
                **({"env_file": str(sources.env_file)} if _base_dir.get() != Path() else {}),
                "projects": {**sources.project_file.projects, **settings.projects},
                "feeds": {**sources.project_file.feeds, **settings.feeds},
                "decisions": (*_decisions(settings), *settings.decisions),
            }
        )
        _refuse_unknown_identifiers(loaded)
        # A list without its key is refused now, and not in the middle of a run.
        read_forgotten(loaded.forgotten_path, loaded.forget_key_in_environment)
        _ = loaded.hashing
        return loaded


def _named_identifiers(project: str, own: ProjectSettings) -> Iterator[tuple[str, str]]:
    """The kinds of an event's ``identifiers`` that the project names, each with the setting that names it."""
    for name, found in own.identifiers.items():
        for path in found.paths:
            if path.startswith("identifiers."):
                yield f"projects.{project}.identifiers.{name}", path.removeprefix("identifiers.")


def _refuse_unknown_identifiers(settings: Settings) -> None:
    """Raise SettingsError if a project names a kind of which nothing says where it is."""
    known = kinds_of_identifiers(settings.feeds)
    named = (one for project, own in settings.projects.items() for one in _named_identifiers(project, own))
    for setting, kind in named:
        if kind not in known:
            raise SettingsError(
                f"{setting} names 'identifiers.{kind}', and neither a source nor a feed says where that is: add it to "
                f"[feeds.<directory>.identifiers], or name one of {', '.join(sorted(known))}."
            )


@dataclass(frozen=True)
class _Sources:
    """What the environment and the files set, not checked yet."""

    set_there: set[str]
    """The fields that the environment sets."""
    env_file: Path
    in_env_file: dict[str, str]
    path: Path
    """Of ``stitch.toml``."""
    project_file: ProjectFile
    in_project_file: dict[str, Any]

    @classmethod
    def read(cls, settings: type[Settings], overrides: Mapping[str, Any]) -> Self:
        set_there = {name.removeprefix(_PREFIX).lower() for name in os.environ if name.startswith(_PREFIX)}
        _refuse_unknown(settings, "The environment variable ", set_there)
        env_file = _base_dir.get() / (overrides.get("env_file") or os.environ.get(_variable("env_file")) or ".env")
        in_env_file = _variables(settings, env_file)
        named_path = (
            overrides.get("project_file")
            or os.environ.get(_variable("project_file"))
            or in_env_file.get("project_file")
        )
        path = _base_dir.get() / (named_path or "stitch.toml")
        project_file = _project_file(path, is_named=named_path is not None)
        in_project_file = _settings_in(settings, path, project_file)
        return cls(set_there, env_file, in_env_file, path, project_file, in_project_file)


def _secrets(cls: type[Settings]) -> list[str]:
    return [
        name for name, field in cls.model_fields.items() if SecretStr in (field.annotation, *get_args(field.annotation))
    ]


_PREFIX = "STITCH_"


def _variable(field: str) -> str:
    return f"{_PREFIX}{field.upper()}"


def _variables(cls: type[Settings], env_file: Path) -> dict[str, str]:
    """The settings in the file of variables, by field; names without the prefix are for other programs."""
    if env_file.name == "off":
        return {}
    try:
        with env_file.open(encoding="utf-8") as lines:
            found = dotenv_values(stream=lines)
    except FileNotFoundError:
        if _variable("env_file") in os.environ:
            raise SettingsError(
                f"{_variable('env_file')} names '{env_file}', which does not exist: create it, or unset the variable."
            ) from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"'{env_file}' cannot be read ({error}): make it a readable text file.") from None
    own = {name.removeprefix(_PREFIX).lower(): value or "" for name, value in found.items() if name.startswith(_PREFIX)}
    _refuse_unknown(cls, f"{env_file}: ", own)
    if "env_file" in own:
        raise SettingsError(f"{env_file}: {_variable('env_file')} names this file, so set it in the environment.")
    return own


def _variables_of_others(env_file: str) -> Mapping[str, str | None]:
    path = _base_dir.get() / env_file
    return dotenv_values(path) if path.name != "off" and path.is_file() else {}


def _project_file(path: Path, is_named: bool) -> ProjectFile:
    try:
        return read_project_file(path)
    except FileNotFoundError:
        if is_named:
            raise SettingsError(
                f"STITCH_PROJECT_FILE names '{path}', which does not exist: create it, or unset the variable."
            ) from None
        return ProjectFile()


def _settings_in(cls: type[Settings], path: Path, project_file: ProjectFile) -> dict[str, Any]:
    """The settings that the file has for all projects. Its relative paths are relative to the file."""
    elsewhere = {*FROM_FILES, *WHERE_FILES_ARE, *_secrets(cls)}
    for name in project_file.settings:
        if name in elsewhere and name not in FROM_FILES:
            raise SettingsError(f"{path}: {name} cannot be set here: set {_variable(name)} in the environment.")
        if name in elsewhere or name not in cls.model_fields:
            known = [*cls.model_fields.keys() - elsewhere, "projects", "feeds"]
            raise SettingsError(f"{path}: {name} is not a setting{did_you_mean(name, known)}")
    folder = path.resolve().parent
    return {
        name: str(folder / value) if isinstance(value, str) and _is_path(cls, name, value) else value
        for name, value in project_file.settings.items()
    }


def _is_path(cls: type[Settings], name: str, value: str) -> bool:
    """Whether the field takes the value as a path, and not as a word that it has besides, such as `off`."""
    annotation = cls.model_fields[name].annotation
    choices = (annotation, *get_args(annotation))
    return Path in choices and not any(value in get_args(choice) for choice in choices)


def _decisions(settings: Settings) -> tuple[Decision, ...]:
    path = settings.overrides_file or settings.project_file.with_name("overrides.csv")
    try:
        return read_decisions(path)
    except FileNotFoundError:
        if settings.overrides_file is not None:
            raise SettingsError(
                f"STITCH_OVERRIDES_FILE names '{path}', which does not exist: create it, or unset the variable."
            ) from None
        return ()
    except DecisionsError as error:
        raise SettingsError(str(error)) from None


def _refuse_unknown(cls: type[Settings], where: str, names: Iterable[str]) -> None:
    # pydantic-settings ignores unknown variables with its prefix, but a typo must be an error.
    known = cls.model_fields.keys() - FROM_FILES
    for name in sorted(names):
        if name not in known:
            # Compared without the prefix, which would make all of them alike.
            hint = did_you_mean(name, known, written=_variable)
            raise SettingsError(f"{where}{_variable(name)} is not a setting{hint}")
