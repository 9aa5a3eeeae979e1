"""Renders the pages: figures become tables and charts, and these one HTML file that needs nothing else.

The charts are drawn by Vega in the reader's browser. Its code is packed into each page, compressed.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import vl_convert

from stitch_pipeline.report import charts
from stitch_pipeline.stitching.explain import ExplainedRow, Explanation, sentences
from stitch_pipeline.stitching.facts import STITCHED_RULES
from stitch_pipeline.stitching.figures import (
    DEVICES_SHOWN,
    TIMES_TO_LOGIN,
    Deployment,
    Figures,
    Project,
    headline,
    share,
)
from stitch_pipeline.stitching.person import PersonHistory

_VEGA_LITE = "6.4"
_ROWS_PER_DEVICE = 500
Page = dict[str, Any]


def write_page(path: Path, page: str) -> None:
    """Replace the file as a whole: a reader sees the old page or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(page, encoding="utf-8")
    os.replace(part, path)


def page_name(project_id: str) -> str:
    """The file name of a project's page: readable, safe on every file system, and another one for every project."""
    readable = re.sub(r"[^a-z0-9-]+", "-", project_id.lower()).strip("-")[:60]
    # A digest wherever two projects could have the same readable name.
    if readable != project_id:
        readable = f"{readable or 'project'}.{hashlib.sha256(project_id.encode()).hexdigest()[:10]}"
    return f"report-{readable}.html"


def pages_of_index(index: Path) -> set[str]:
    """The file names of the pages to which an index links; none if there is no index."""
    text = index.read_text(encoding="utf-8") if index.exists() else ""
    return set(re.findall(r'href="(report-[a-z0-9.-]+\.html)"', text))


def project_page(project: Project, figures: Figures, index: str | None = None) -> str:
    """The report of one project, with a link to the index if there is one."""
    deployment = figures.deployment
    days = [{**asdict(day), "rate_before": share(day.sessions_with_own_user, day.sessions),
             "rate": share(day.sessions_credited, day.sessions)} for day in project.days]  # fmt: skip
    devices = [
        {"devices": f"{count}{' or more' * (count == DEVICES_SHOWN)}", "persons": persons,
         "share": share(persons, project.persons)}
        for count, persons in sorted(project.devices_per_person.items())
    ]  # fmt: skip
    logins = [
        {"time": name, "persons": project.time_to_login.get(name, 0),
         "share": share(project.time_to_login.get(name, 0), project.persons_with_login)}
        for name, _ in TIMES_TO_LOGIN
    ] if project.time_to_login else []  # fmt: skip
    changed = [
        {"table": table, "day": day, "rows": rows}
        for table, per_day in project.restitched.items()
        for day, rows in per_day.items()
    ]
    changed_days = {row["day"] for row in changed}
    problems: dict[str, int] = {}
    for problem, _, rows in deployment.quarantine:
        problems[problem] = problems.get(problem, 0) + rows
    quarantine = [
        {"problem": problem.replace("_", " "), "rows": rows}
        for problem, rows in sorted(problems.items(), key=lambda item: (-item[1], item[0]))
    ]
    specs = {
        "visitors": charts.lines_per_day(
            "Visitors per day, before and after stitching", "days",
            {"visitors_unstitched": "before stitching", "visitors": "after stitching"},
            "visitors", charts.COUNT, len(days),
        ),
        "rates": charts.lines_per_day(
            "Share of sessions credited to a user per day, before and after stitching", "days",
            {"rate_before": "before stitching", "rate": "after stitching"},
            "share of sessions", charts.SHARE, len(days),
        ),
        "devices": charts.bars(
            "Persons by the number of their devices", "devices", "devices", "persons",
            category_title="devices", value_title="persons",
        ),
        "logins": charts.lying_bars(
            "Persons by the time from first touch to login", "logins", "time", "persons",
            value_title="persons", row_count=len(logins),
        ),
        "changed": charts.changed_per_day(
            "Rows that the last logins credit otherwise, per day", "changed", len(changed_days)
        ),
        "quarantine": charts.lying_bars(
            "Quarantined rows by problem", "quarantine", "problem", "rows",
            value_title="rows", row_count=len(quarantine), colour=charts.WARN,
        ),
    }  # fmt: skip
    tables = {"days": days, "devices": devices, "logins": logins, "changed": changed, "quarantine": quarantine}
    return _render(
        "report.html.jinja",
        figures,
        title=f"{project.project_id}: stitching report",
        project=project,
        deployment=deployment,
        index=index,
        headline=headline(project),
        changed_totals={table: sum(per_day.values()) for table, per_day in deployment.changed_rows.items()},
        left_to_do=_left_to_do(deployment),
        data={
            "figures": {"read_at": figures.read_at, "project": asdict(project), "headline": headline(project)},
            "tables": tables,
            "charts": {name: spec for name, spec in specs.items() if tables[spec["data"]["name"]]},
        },
    )


def index_page(figures: Figures, names: Mapping[str, str]) -> str:
    """The list of all projects with their headline numbers; ``names`` are the file names of their pages."""
    listed = [
        {"project": project, "headline": headline(project), "href": quote(names[project.project_id])}
        for project in figures.projects
    ]
    return _render(
        "index.html.jinja",
        figures,
        title="Stitching reports",
        listed=listed,
        deployment=figures.deployment,
        left_to_do=_left_to_do(figures.deployment),
        data=None,
    )


def person_page(history: PersonHistory, read_at: datetime) -> str:
    """The page of a user or a device. It shows ids, because somebody asked for this person."""
    rows = [(device, row) for device in history.devices for row in device.rows]
    sessions = sorted(
        ((device, row) for device, row in rows if row.grain == "session"), key=lambda session: session[1].began_at
    )
    kinds = {_kind(row) for _, row in sessions}
    colours = {kind: colour for kind, colour in _KINDS.items() if kind in kinds}
    who = f"user {history.user_id}" if history.user_id is not None else f"device {history.devices[0].anonymous_id}"
    data = {
        "tables": {
            "sessions": [_session(device, row) for device, row in sessions],
            "links": [link for device in history.devices for link in _links(device)],
        },
        "charts": {
            "timeline": charts.timeline(
                f"Sessions and logins of {who}, a lane per device",
                [device.anonymous_id for device in history.devices],
                colours,
            )
        }
        if sessions
        else {},
    }
    return _render_page(
        "person.html.jinja",
        title=f"{who} in {history.project_id}",
        read_at=read_at,
        history=history,
        who=who,
        rules=history.devices[0].rules if history.devices else "",
        sessions=sessions[:_ROWS_PER_DEVICE],
        sessions_left_out=max(0, len(sessions) - _ROWS_PER_DEVICE),
        devices=[(device, _explained(device)) for device in history.devices],
        user_count=len({candidate.user_id for device in history.devices for candidate in device.candidates}),
        credited_count=sum(1 for _, row in sessions if row.stitched_by in STITCHED_RULES),
        session_count=len(sessions),
        is_stale=any(row.stored_user_id not in (None, row.stitched_user_id) for _, row in rows),
        data=data,
    )


_KINDS = {
    "own user": charts.AFTER,
    "credited by a link": charts.BEFORE,
    "credited to no user": charts.QUIET,
    "shared device": charts.WARN,
}


def _kind(row: ExplainedRow) -> str:
    if row.user_id is not None:
        return "own user"
    if row.stitched_by == "shared device":
        return "shared device"
    return "credited by a link" if row.stitched_by in STITCHED_RULES else "credited to no user"


def _session(device: Explanation, row: ExplainedRow) -> dict[str, Any]:
    return {
        "device": device.anonymous_id,
        "start": row.began_at,
        "end": row.ended_at,
        "link_start": row.deciding.began_at if row.deciding else None,
        "began": _text(row.began_at),
        "lasted": _length(row.ended_at - row.began_at),
        "own_user": row.user_id or "none",
        "credited": row.stitched_user_id,
        "rule": row.stitched_by,
        "kind": _kind(row),
        "why": sentences(row)[0] if sentences(row) else "",
    }


def _links(device: Explanation) -> list[dict[str, Any]]:
    decides: dict[int, int] = {}
    for row in device.rows:
        if row.deciding:
            decides[row.deciding.number] = decides.get(row.deciding.number, 0) + 1
    return [
        {
            "device": device.anonymous_id,
            "start": candidate.began_at,
            "number": candidate.number,
            "user": candidate.user_id,
            "began": _text(candidate.began_at),
            "events": candidate.event_count,
            "decides": decides.get(candidate.number, 0),
        }
        for candidate in device.candidates
    ]


def _explained(device: Explanation) -> list[dict[str, Any]]:
    """The rows of a device, joined where neighbours share their answer and its reasons."""
    groups: list[dict[str, Any]] = []
    for row in device.rows[:_ROWS_PER_DEVICE]:
        answer = (row.stitched_user_id, row.stitched_by, sentences(row))
        if not groups or groups[-1]["answer"] != answer:
            groups.append({"answer": answer, "rows": []})
        groups[-1]["rows"].append(row)
    return groups


def _left_to_do(deployment: Deployment) -> list[tuple[str, int]]:
    """What waits, as names and numbers; only what is more than nothing."""
    counts = [
        ("files that no run has loaded", deployment.files_waiting),
        ("files held back because too many vanished", deployment.files_held_back),
        ("files that cannot be read", deployment.unreadable_files),
        ("days with changed events to build", deployment.days_to_build),
        *(
            (f"days with stale {grain.replace('_', ' ')}", days)
            for grain, days in sorted(deployment.stale_days.items())
        ),
    ]
    return [(name, count) for name, count in counts if count]


def _length(span: timedelta) -> str:
    minutes = round(span.total_seconds() / 60)
    return "under a minute" if minutes == 0 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _text(value: datetime | date | None) -> str:
    if value is None:
        return "–"
    return value.isoformat(sep=" ", timespec="minutes") if isinstance(value, datetime) else value.isoformat()


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}".replace("%", " %")


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:+.1f} points".replace("-", "−")


def _change(before: int, after: int) -> str:
    return "–" if not before else f"{(after - before) / before:+.1%}".replace("-", "−").replace("%", " %")


def _hours(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 60:.0f} min" if value < 1 else f"{value:.1f} h" if value < 48 else f"{value / 24:.1f} days"


def _render(template: str, figures: Figures, **values: Any) -> str:
    return _render_page(template, read_at=figures.read_at, **values)


def _render_page(template: str, *, data: Page | None, **values: Any) -> str:
    vega = _vega() if data and data["charts"] else None
    return _templates().get_template(template).render(data=_plain(data), vega=vega, **values)


def _plain(value: Any) -> Any:
    """The value with times and dates as ISO 8601 texts (UTC), as JSON has no times."""
    if isinstance(value, Mapping):
        return {str(_plain(name)): _plain(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds") + "Z"
    return value.isoformat() if isinstance(value, date) else value


@cache
def _vega() -> str:
    """Vega and what draws with it, as one compressed script in base64; it takes seconds to put together."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE)
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "percent": _percent,
        "points": _points,
        "hours": _hours,
        "time": _text,
    }
    environment.globals |= {"change": _change, "ROWS_PER_DEVICE": _ROWS_PER_DEVICE}
    return environment
