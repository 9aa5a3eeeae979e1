"""Reads the scenarios: one file each, whose tables have their columns apart by two spaces or more."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from histories import POLICIES

DIRECTORY = Path(__file__).parent / "scenarios"
_BLANK = "(blank)"
_NOTHING = "-"

Answers = Mapping[str, Mapping[str, str]]
"""Who each event, session or device is credited to, by policy."""


@dataclass(frozen=True)
class Usual:
    """What the widely used approach makes of it: see ``naive_post_hook``."""

    should_give: str
    """The policy whose answer is the one wanted."""
    gives: Mapping[str, str | None]
    """Who each event is credited to; None if it is left out altogether."""
    gives_otherwise: Mapping[str, str | None]
    """The same when the rows are read in the other order."""


@dataclass(frozen=True)
class Scenario:
    name: str
    settings: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    """Canonical events but for the project, with ``batch``: the number of the file that they arrive in."""
    event_answers: Answers
    session_answers: Answers
    """By the first event of the session."""
    device_answers: Answers
    usual: Usual | None
    overrides: Sequence[Mapping[str, str]] = ()
    """Lines of overrides.csv but for the project."""
    users: Sequence[Mapping[str, str]] = ()
    """The rows of ``users``, where the scenario is about them: the same under every policy."""

    def project(self, policy: str) -> str:
        return f"{self.name}-{policy}"

    def stitch_toml(self, policy: str) -> str:
        # By default the columns `latest` and `first` show what links decide.
        settings = {"policy": policy, "keep_own_user": False, **self.settings}
        tables = {name: settings.pop(name, {}) for name in ("identifiers", "limits")}
        # TOML writes strings, numbers and lists of these as JSON does.
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        for name, by_kind in tables.items():
            for kind, found in by_kind.items():
                lines.append(f"[projects.{self.project(policy)}.{name}.{kind}]")
                lines += [f"{key} = {json.dumps(value)}" for key, value in found.items()]
        return f"[projects.{self.project(policy)}]\n" + "\n".join(lines) + "\n"

    def override_lines(self, policy: str) -> list[str]:
        return [
            f"{self.project(policy)},{line['decision']},{line['id']},{_meant(line['other id']) or ''},"
            for line in self.overrides
        ]

    def landed(self, policy: str, batch: int) -> list[dict[str, Any]]:
        own = [event for event in self.events if event["batch"] == batch]
        return [{**event, "project_id": self.project(policy)} for event in own]


def read(path: Path) -> Scenario:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    rows = _table(document["events"])
    usual = document.get("the usual approach")
    return Scenario(
        name=path.stem,
        settings=document.get("settings", {}),
        events=[_event(row) for row in rows],
        event_answers=_answers(rows, "event"),
        session_answers=_answers(_table(document["sessions"]), "begins with"),
        device_answers=_answers(_table(document["devices"]), "device"),
        usual=None if usual is None else _usual(usual),
        overrides=_table(document.get("overrides", "decision")),
        users=_table(document.get("users", "user")),
    )


def read_all() -> list[Scenario]:
    return [read(path) for path in sorted(DIRECTORY.glob("*.yaml"))]


def _usual(document: Mapping[str, Any]) -> Usual:
    rows = _table(document["gives"])
    other = "user, rows read in the other order"
    return Usual(
        should_give=document["should give what this policy gives"],
        gives={row["event"]: _meant(row["user"]) for row in rows},
        gives_otherwise={row["event"]: _meant(row.get(other, row["user"])) for row in rows},
    )


def _event(row: Mapping[str, str]) -> dict[str, Any]:
    occurred_at = datetime.fromisoformat(row["time"])
    return {
        "event_id": row["event"],
        "occurred_at": occurred_at,
        "received_at": datetime.fromisoformat(row["received"]) if "received" in row else occurred_at,
        "event_type": row["type"],
        "anonymous_id": _meant(row["device"]),
        "user_id": _meant(row["user"]),
        "previous_id": _meant(row.get("previous", _NOTHING)),
        "source_session_id": _meant(row.get("session", _NOTHING)),
        "properties": {name: row[name] for name in ("email", "phone") if _meant(row.get(name, _NOTHING))},
        "batch": int(row["batch"]),
    }


def _answers(rows: Sequence[Mapping[str, str]], key: str) -> Answers:
    return {policy: {row[key]: row[policy] for row in rows} for policy in POLICIES}


def _meant(text: str) -> str | None:
    return None if text == _NOTHING else " " if text == _BLANK else text


def _table(text: str) -> list[dict[str, str]]:
    header, *lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]
    return [dict(zip(header, line, strict=True)) for line in lines]
