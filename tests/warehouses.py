"""A landing zone, a warehouse and a Dagster instance of their own, for tests that run the real thing."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from dagster import DagsterInstance, Definitions
from engines import engine_settings

from stitch_pipeline.definitions import build_defs
from stitch_pipeline.orchestration.jobs import BUILD_JOB
from stitch_pipeline.orchestration.run_records import numbers_of, run_request
from stitch_pipeline.orchestration.settle import Settled, settle
from stitch_pipeline.planning.days import DayRange
from stitch_pipeline.planning.dbt_variables import dbt_variables
from stitch_pipeline.planning.requests import Request
from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching import publish
from stitch_pipeline.stitching.published import opened, query
from stitch_pipeline.stitching.rules import configure, project_ids
from stitch_pipeline.stitching.views import rules_trial
from stitch_pipeline.warehouse import dbt_project, port
from stitch_pipeline.warehouse.engine import engine_of

REPOSITORY = Path(__file__).resolve().parent.parent
START = date(2026, 3, 1)
TABLES = (
    "raw_events",
    "duplicate_events",
    "quarantined_events",
    "identity_map",
    "identifier_links",
    "persons",
    "sessions",
    "stitched_sessions",
    "page_views",
    "users",
    "visitor_stats",
)
VIEWS = (
    "user_mapping",
    "stitched_events",
    "page_views_live",
    "user_devices",
    "identity_link",
    "user_first_touch",
    "user_conversions",
    "guard_report",
    "identifier_guard_report",
    "device_pairs",
    "policy_preview_sessions",
    "policy_preview_events",
    "stitching_reasons",
)

Row = dict[str, Any]
Event = Mapping[str, Any]
"""A canonical event, named as in ``raw_events``; ids are as the client sent them, ``traits`` is a dict."""


class Warehouse:
    """What a deployment consists of, with what a person can do to it. All times are naive UTC."""

    def __init__(self, directory: Path, instance: DagsterInstance, *, stitch_toml: str = "", **settings: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "landing").mkdir(exist_ok=True)
        (directory / "stitch.toml").write_text(stitch_toml)
        self.instance = instance
        self.directory = directory
        self.own_settings = {**engine_settings(), **settings}
        self.reader: port.Warehouse | None = None
        self.load_settings()

    def load_settings(self, **settings: Any) -> None:
        """Read the settings anew, as a code location does that is loaded again; ``settings`` are other ones."""
        self.own_settings = {**self.own_settings, **settings}
        self.settings = Settings.load(
            landing_dir=self.directory / "landing",
            duckdb_path=self.directory / "warehouse.duckdb",
            project_file=self.directory / "stitch.toml",
            # Most tests read the warehouse itself.
            **{
                "start_date": START,
                "published_dir": "off",
                "report_dir": self.directory / "reports",
                # Most tests of `latest` and `first` are about what links decide.
                "keep_own_user": False,
                **self.own_settings,
            },
        )
        self.defs: Definitions = build_defs(self.settings)

    def write_stitch_toml(self, text: str) -> None:
        (self.directory / "stitch.toml").write_text(text)
        self.load_settings()

    def write_overrides(self, lines: Iterable[str]) -> None:
        """Write overrides.csv with its header and load the settings anew; without lines there is no file."""
        path = self.directory / "overrides.csv"
        written = "".join(f"{line}\n" for line in ("project_id,decision,id,other_id,reason", *lines))
        if written.count("\n") > 1:
            path.write_text(written)
        else:
            path.unlink(missing_ok=True)
        self.load_settings()

    def land(self, landing_file: str, rows: Iterable[Mapping[str, Any] | str]) -> None:
        """Write an NDJSON file of documents in the feed's own format; a ``str`` is written as it is."""
        path = self.settings.landing_dir / landing_file
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def land_events(self, landing_file: str, events: Iterable[Event]) -> None:
        """Write canonical events in the format that the file's feed is read as."""
        as_sent = {"jitsu": as_jitsu, "snowplow": as_snowplow}[landing_file.split("/")[0]]
        self.land(landing_file, [as_sent(event) for event in events])

    def take_away(self, landing_file: str) -> None:
        (self.settings.landing_dir / landing_file).unlink()

    def settle(self, *, view_stitching: bool = True, reconcile: bool = False) -> Settled:
        settled = settle(
            self.settings, lambda: self.defs, self.instance, view_stitching=view_stitching, reconcile=reconcile
        )
        failed = [f"{run.job_name} {run.days}: {run.error}" for run in settled.runs if not run.succeeded]
        assert not failed, failed
        assert settled.is_settled, settled.gave_up
        return settled

    def follow_rules_and_die(self) -> None:
        """What is left of a run that was killed after it had noted changed rules and decisions."""
        engine = engine_of(self.settings)
        day = DayRange(START, START)
        variables = dbt_variables(day, known_at=utc_now(), session_timeout_minutes=30, view_stitching=True)
        with engine.open() as warehouse:
            configure(warehouse, self.settings)
            results = dbt_project.run_models(
                engine, models=["project_settings", "decisions"], variables=variables, on_event=lambda event: None
            )
        assert all(result.succeeded for result in results)

    def build(self, first: date, last: date | None = None, run_config: Any = None) -> dict[str, int]:
        """Run ``build_job`` over the days by hand; returns the rows that each model changed."""
        request = run_request(Request(DayRange(first, last or first), base_key="by hand"))
        return self.run(BUILD_JOB, request.tags, run_config)

    def run(self, job_name: str, tags: Mapping[str, str], run_config: Any = None) -> dict[str, int]:
        result = self.defs.resolve_job_def(job_name).execute_in_process(
            instance=self.instance, tags=dict(tags), run_config=run_config, raise_on_error=True
        )
        assert result.success
        changed: dict[str, int] = {}
        for event in result.get_asset_observation_events():
            changed |= numbers_of(event.asset_observation_data.asset_observation.metadata).rows_changed
        return changed

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One connection for all queries of the body, which must not write: to open one takes longer than a query."""
        if self.reader is not None:
            yield
            return
        with engine_of(self.settings).open(read_only=True) as self.reader:
            try:
                yield
            finally:
                self.reader = None

    def query(self, sql: str) -> list[Row]:
        with self.reading():
            assert self.reader is not None
            return self.reader.records(sql)

    def write(self, *statements: str) -> None:
        """Run statements by hand, each in a transaction of its own."""
        with engine_of(self.settings).open() as warehouse:
            for statement in statements:
                warehouse.execute(statement)

    def put_in_place(self, table: str, query: str) -> None:
        """Write the rows of a query as a table of this name; the old one stays aside, as views may depend on it."""
        self.write(
            f"create table stitch.other_{table} as {query}",
            f"alter table stitch.{table} rename to old_{table}",
            f"alter table stitch.other_{table} rename to {table}",
        )

    @property
    def row_id(self) -> str:
        """The column that is another one after a row was written again."""
        return engine_of(self.settings).dialect.row_id

    def columns(self, table: str) -> list[str]:
        """The names of the columns of a table or view, in their order."""
        found = self.query(
            "select column_name from information_schema.columns "
            f"where table_schema = 'stitch' and table_name = '{table}' order by ordinal_position"
        )
        return [row["column_name"] for row in found]

    def select_list(self, table: str, but: Collection[str] = (), **replaced: str) -> str:
        """The columns of a table without those of ``but``, and with SQL in place of some."""
        assert {*but, *replaced} <= {*self.columns(table)}
        return ", ".join(
            f"{replaced[name]} as {name}" if name in replaced else name
            for name in self.columns(table)
            if name not in but
        )

    def rows(self, table: str, columns: Iterable[str] | None = None) -> list[Row]:
        """All rows of a table or view, comparable and in an order that only the rows decide."""
        wanted = ", ".join(columns) if columns else "*"
        return ordered(map(comparable, self.query(f"select {wanted} from stitch.{table}")))

    def persons_from_nothing(self) -> list[Row]:
        """What ``persons`` would hold if it were resolved at once, and not run by run."""
        with rules_trial(self.settings) as trial:
            rules = {project: self.settings.rules(project) for project in project_ids(trial.warehouse)}
            trial.follow(rules, self.settings.followed_decisions)
            return ordered(map(comparable, trial.warehouse.records("select * from stitch.persons")))

    def published_rows(self, table: str) -> list[Row]:
        """As ``rows``, of the published copy."""
        assert self.settings.publishes_to is not None
        with opened(self.settings.publishes_to) as reader:
            columns, rows = query(reader, f"select * from {table}")
            return ordered(comparable(dict(zip(columns, row, strict=True))) for row in rows)

    def assert_is_published(self, tables: Iterable[str] = (*publish.TABLES, *publish.VIEWS)) -> None:
        """The published tables and views hold what those of the warehouse hold."""
        with self.reading():
            for table in tables:
                assert not differences(self.published_rows(table), self.rows(table)), f"{table} is not as published"

    def contents(self, tables: Iterable[str] = TABLES) -> dict[str, list[Row]]:
        with self.reading():
            return {table: self.rows(table) for table in tables}


@contextmanager
def ephemeral_warehouse(directory: Path, **settings: Any) -> Iterator[Warehouse]:
    """A warehouse whose Dagster instance lives in memory: all of Dagster's storage, none of its files."""
    with DagsterInstance.ephemeral() as instance:
        yield Warehouse(directory, instance, **settings)


def comparable(row: Mapping[str, Any]) -> Row:
    """The row with JSON text as canonical text, so that the spelling of JSON does not matter."""
    return {
        name: json.dumps(json.loads(value), sort_keys=True)
        if name in ("traits", "properties", "identifiers") and value is not None
        else value
        for name, value in row.items()
    }


def ordered(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: [(value is not None, str(value)) for _, value in sorted(row.items())])


def differences(actual: Iterable[Row], expected: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows that only one of the two has, repeated rows counted; empty if they agree."""
    left, right = list(actual), list(expected)
    for row in list(left):
        if row in right:
            left.remove(row)
            right.remove(row)
    return {name: rows for name, rows in (("unexpected", left), ("missing", right)) if rows}


def utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def at(text: str) -> datetime:
    """``at('2026-03-01 12:00')``: a naive UTC time."""
    return datetime.fromisoformat(text)


def page_view(event_id: str, time: str, received: str | None = None, **fields: Any) -> Row:
    """A page view of device ``a`` in project ``shop``, but for what ``fields`` say otherwise."""
    return {
        "event_id": event_id,
        "project_id": "shop",
        "occurred_at": at(time),
        "received_at": None if received is None else at(received),
        "event_type": "page",
        "anonymous_id": "a",
        **fields,
    }


def _sent_time(value: datetime | None) -> str | None:
    return (
        None if value is None else value.replace(tzinfo=UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )


def as_jitsu(event: Event) -> Row:
    page = {
        "url": event.get("page_url"),
        "path": event.get("page_path"),
        "title": event.get("page_title"),
        "referrer": event.get("referrer"),
    }
    campaign = {
        name: event.get(f"utm_{key}")
        for name, key in (("source", "source"), ("medium", "medium"), ("name", "campaign"))
    }
    document = {
        "messageId": event["event_id"],
        "projectId": event["project_id"],
        "timestamp": _sent_time(event["occurred_at"]),
        "receivedAt": _sent_time(event.get("received_at")),
        "type": event["event_type"],
        "event": event.get("event_name"),
        "anonymousId": event.get("anonymous_id"),
        "userId": event.get("user_id"),
        "previousId": event.get("previous_id"),
        "traits": event.get("traits"),
        "properties": event.get("properties"),
        "context": {
            "device": _known({"id": (event.get("identifiers") or {}).get("device_id")}),
            "platform": event.get("platform"),
            "sessionId": event.get("source_session_id"),
            "page": _known(page),
            "campaign": _known(campaign),
        },
    }
    return _known(document)


def as_snowplow(event: Event) -> Row:
    kind, name = {
        "page": ("page_view", event.get("event_name")),
        "screen": ("unstruct", "screen_view"),
        "identify": ("unstruct", "identify"),
        "track": ("unstruct", event.get("event_name")),
        "alias": ("alias", event.get("event_name")),
    }[event["event_type"]]
    is_mobile = event.get("platform") == "mobile"
    document = {
        "event_id": event["event_id"],
        "app_id": event["project_id"],
        "derived_tstamp": _sent_time(event["occurred_at"]),
        "collector_tstamp": _sent_time(event.get("received_at")),
        "event": kind,
        "event_name": name,
        "platform": "mob" if is_mobile else event.get("platform"),
        "user_id": event.get("user_id"),
        "network_userid": (event.get("identifiers") or {}).get("network_userid"),
        "page_url": event.get("page_url"),
        "page_urlpath": event.get("page_path"),
        "page_title": event.get("page_title"),
        "page_referrer": event.get("referrer"),
        "mkt_source": event.get("utm_source"),
        "mkt_medium": event.get("utm_medium"),
        "mkt_campaign": event.get("utm_campaign"),
    }
    if is_mobile:
        session = {"userId": event.get("anonymous_id"), "sessionId": event.get("source_session_id")}
        document["contexts_com_snowplowanalytics_snowplow_client_session_1"] = [_known(session)]
    else:
        document["domain_userid"] = event.get("anonymous_id")
        document["domain_sessionid"] = event.get("source_session_id")
    return _known(document)


def _known(values: Mapping[str, Any]) -> Row:
    return {name: value for name, value in values.items() if value not in (None, {})}
