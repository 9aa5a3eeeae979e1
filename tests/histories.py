"""Random histories of a small deployment: what lands, changes and vanishes, and what is run in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from random import Random
from typing import Any

from oracle import Identifier, Rules
from warehouses import START, Event, Warehouse, as_jitsu, as_snowplow

FILES = ("jitsu/a.ndjson", "jitsu/late/b.ndjson", "jitsu/c.ndjson", "snowplow/d.ndjson")
# Around midnight, on the edges of the 30 minutes, and in the middle of the day.
TIMES = (
    *("00:00:00", "00:00:00.000001", "00:10:00", "00:29:59.999999", "00:30:00", "09:00:00", "12:00:00", "12:20:00"),
    *(
        "12:30:00",
        "12:49:59",
        "12:50:00",
        "13:20:00",
        "23:10:00",
        "23:30:00",
        "23:30:00.000001",
        "23:40:00",
        "23:59:59.999999",
    ),
)
DEVICES = ("d1", "d2", "d3", "u1")  # a device may be called as a user is
NO_DEVICES = (None, "undefined", " NULL ")
USERS = ("u1", "u2", "u3")
NO_USERS = (None, None, None, None, "", "guest", '"null"', "00000000-0000-0000-0000-000000000000")
EMAILS = ("a@example.com", " A@example.com", "b@example.com", "c@example.com", "guest", "", 7, None)
EMAIL = {"email": Identifier(("properties.email", "properties.mail"), ("trim", "lower"))}
MACHINE = {"machine": Identifier(("identifiers.device_id", "identifiers.network_userid"))}
# The previous id of an alias: a device, a user, one that nothing else names, or none.
PREVIOUS = (*DEVICES, *USERS, "x1", "x2", "undefined", None)
MACHINES = ({"device_id": "m1"}, {"device_id": "m2"}, {"device_id": "m1", "network_userid": "m2"})
STEPS = tuple(
    timedelta(minutes=minutes, microseconds=microseconds)
    for minutes, microseconds in ((0, 0), (1, 0), (10, 0), (29, 59_999_999), (30, 0), (30, 1), (240, 0))
)
BAD_LINES = ('{"messageId": ', "{}", '{"messageId": "x", "type": "page", "timestamp": "yesterday"}', '["no event"]')


@dataclass(frozen=True)
class Land:
    """A file is put, or put in place of what it was."""

    landing_file: str
    events: tuple[Mapping[str, Any], ...]
    bad_lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class TakeAway:
    landing_file: str


@dataclass(frozen=True)
class Settle:
    view_stitching: bool


@dataclass(frozen=True)
class Build:
    """``build_job`` over some days, as a person would start it, whether or not anything landed there."""

    first: date
    last: date


@dataclass(frozen=True)
class Rule:
    """``stitch.toml`` and ``overrides.csv`` are written anew: from now on each project is under these rules."""

    rules: Mapping[str, Rules]


Step = Land | TakeAway | Settle | Build | Rule
POLICIES = ("latest", "first", "device_split", "next_identify", "graph")


@dataclass(frozen=True)
class History:
    steps: tuple[Step, ...]

    @property
    def rules(self) -> Mapping[str, Rules]:
        """The rules of each project at the end."""
        return [step.rules for step in self.steps if isinstance(step, Rule)][-1]

    @property
    def files(self) -> dict[str, Land]:
        """What lies in the landing zone at the end."""
        files: dict[str, Land] = {}
        for step in self.steps:
            if isinstance(step, Land):
                files[step.landing_file] = step
            elif isinstance(step, TakeAway):
                del files[step.landing_file]
        return files

    @property
    def landed(self) -> list[Event]:
        """The valid rows of the landing zone at the end, as canonical events."""
        naming = {project for project, own in self.rules.items() if "machine" in own.identifiers}
        return [
            as_read(event, name, identifiers_are_read=event["project_id"] in naming)
            for name, file in self.files.items()
            for event in file.events
        ]

    def play(self, warehouse: Warehouse) -> None:
        for step in self.steps:
            if isinstance(step, Land):
                land(warehouse, step)
            elif isinstance(step, TakeAway):
                warehouse.take_away(step.landing_file)
            elif isinstance(step, Settle):
                warehouse.settle(view_stitching=step.view_stitching)
            elif isinstance(step, Rule):
                write_rules(warehouse, step.rules)
            else:
                warehouse.build(step.first, step.last)


def land(warehouse: Warehouse, file: Land) -> None:
    as_sent = as_snowplow if file.landing_file.startswith("snowplow/") else as_jitsu
    warehouse.land(file.landing_file, [*map(as_sent, file.events), *file.bad_lines])


def write_rules(warehouse: Warehouse, rules: Mapping[str, Rules]) -> None:
    warehouse.write_stitch_toml(stitch_toml(rules))
    warehouse.write_overrides(
        f"{project},{','.join(line)}," for project, own in rules.items() for line in own.decisions
    )


def stitch_toml(rules: Mapping[str, Rules]) -> str:
    def value(setting: Any) -> str:
        return '"null"' if setting is None else json.dumps(setting)

    names = ["policy", "keep_own_user", "lookback_days", "carry_forward_days", "max_users_per_device", "link_on"]
    names += ["unique_identifiers", "max_ids_per_person", "contested_ids", "count_people_without_devices"]
    return "".join(
        f"[projects.{value(project)}]\n"
        + "".join(f"{name} = {value(getattr(own, name))}\n" for name in names)
        + "".join(
            f"[projects.{value(project)}.limits.{kind}]\n"
            + "".join(f"{name} = {count}\n" for name, count in own_limits.items())
            for kind, own_limits in own.limits.items()
        )
        + "".join(
            f"[projects.{value(project)}.identifiers.{kind}]\n"
            f"paths = {value(found.paths)}\nnormalise = {value(found.normalise)}\n"
            for kind, found in own.identifiers.items()
        )
        for project, own in rules.items()
    )


def as_read(event: Event, landing_file: str, *, identifiers_are_read: bool = False) -> Event:
    """The event as the source of the file's feed reads it: what a format cannot say is not there."""
    kind = "device_id" if landing_file.startswith("jitsu/") else "network_userid"
    sent = (event.get("identifiers") or {}).get(kind)
    event = {**event, "identifiers": {kind: sent} if sent and identifiers_are_read else None}
    if landing_file.startswith("jitsu/"):
        platform = event.get("platform") or ("mobile" if event["event_type"] == "screen" else "web")
        previous_id = event.get("previous_id") if event["event_type"] == "alias" else None
        jitsu = {"source": "jitsu", "platform": platform, "previous_id": previous_id, "landing_file": landing_file}
        return {**event, **jitsu}
    name = {"screen": "screen_view", "identify": "identify"}.get(event["event_type"], event.get("event_name"))
    return {
        **event,
        "source": "snowplow",
        "event_name": name,
        "traits": None,
        "properties": None,
        "previous_id": None,
        "landing_file": landing_file,
    }


def rules(random: Random) -> Rules:
    identifiers = random.choice(({}, EMAIL, EMAIL, {**EMAIL, **MACHINE}))
    unique = random.choice(((), (), ("user",), ("email",), ("email", "user"), ("user", "email")))
    return Rules(
        policy=random.choice(POLICIES),
        keep_own_user=random.random() < 0.5,
        lookback_days=random.choice((2, 2, 2, 1, 0, None, "24h", "24h", "36h", "1h", "30m", "0h")),
        carry_forward_days=random.choice((None, None, None, 2, 1, 0, "24h", "36h", "1h", "30m", "0h")),
        max_users_per_device=random.choice((10, 2, 1)),
        link_on=random.choice(("any", "any", "any", "identify")),
        identifiers=identifiers,
        unique_identifiers=tuple(kind for kind in unique if kind == "user" or kind in identifiers),
        max_ids_per_person=random.choice((1000, 1000, 5, 2)),
        limits=limits(random, "email" in identifiers, "user" in unique),
        contested_ids=random.choice(("nobody", "first")),
        decisions=decisions(random),
        count_people_without_devices=random.random() < 0.5,
    )


def limits(random: Random, has_email: bool, users_are_unique: bool) -> dict[str, dict[str, int]]:
    chosen: dict[str, dict[str, int]] = {}
    if random.random() < 0.2:
        chosen["user"] = {"device": random.choice((1, 2))}
    if random.random() < 0.2 and not users_are_unique:
        chosen["user"] = {**chosen.get("user", {}), "per_person": 2}
    if has_email and random.random() < 0.3:
        chosen["email"] = {random.choice(("user", "device")): random.choice((1, 2, 20))}
    if has_email and random.random() < 0.2:
        chosen["device"] = {"email": random.choice((1, 20))}
    return chosen


def decisions(random: Random) -> tuple[tuple[str, str, str], ...]:
    """Lines that can stand together: nobody has two names, and nobody is never the same as herself."""
    lines: set[tuple[str, str, str]] = set()
    one, other, third = random.sample(USERS, 3)
    # Two ids of one person and a third id of somebody else; or three ids of one, in a row or beside each other.
    for line in ((one, other), (random.choice((one, other)), third)):
        if random.random() < 0.3:
            lines.add(("same_person", *line))
    if random.random() < 0.3 and not any(third in line for line in lines):
        first, second = random.sample((random.choice((one, other)), third), 2)
        lines.add(("never_same", first, second))
    for _ in range(random.choice((0, 0, 1, 2))):
        lines.add(("wrong_link", random.choice(DEVICES), random.choice((*USERS, "email:a@example.com", "device:d1"))))
    if random.random() < 0.3:
        lines.add(("shared_device", random.choice(DEVICES), ""))
    if random.random() < 0.3:
        first, second, last = random.sample(DEVICES, 3)
        lines |= {("same_device", first, second), ("same_device", second, last)}
    return tuple(sorted(lines))


def burst(random: Random, projects: int, days: int, clear_day: int) -> list[dict[str, Any]]:
    """Some events of one device, one soon after the other; mostly none on ``clear_day``, for days that become empty."""
    day = random.randrange(days)
    if day == clear_day and random.random() < 0.7:
        day = (day + 1) % days
    occurred_at = datetime.fromisoformat(f"{START + timedelta(days=day)} {random.choice(TIMES)}")
    project, device = f"p{random.randint(1, projects)}", random.choice(DEVICES * 3 + NO_DEVICES)
    number = random.choice((None, None, None, "s1", "s2"))
    user = random.choice((None, None, *USERS))
    events = []
    for _ in range(random.choice((1, 1, 2, 3, 4, 6))):
        kind = random.choice(("page", "page", "page", "track", "identify", "screen", "alias"))
        lag = random.choice((None, timedelta(0), timedelta(0), timedelta(minutes=1), timedelta(days=2)))
        if random.random() < 0.1:
            user = random.choice((None, *USERS))  # logs out, or somebody else logs in
        events.append(
            {
                "project_id": project,
                "event_id": f"e{random.randrange(500):03}",
                "occurred_at": occurred_at,
                "received_at": None if lag is None else occurred_at + lag,
                "event_type": kind,
                "event_name": "signup" if kind == "track" else None,
                "platform": random.choice((None, None, "mobile")),
                "anonymous_id": device,
                "user_id": random.choice((user, user, random.choice(NO_USERS))),
                "source_session_id": number,
                "page_path": random.choice((None, "/a", "/b")),
                "utm_source": random.choice((None, "facebook")),
                "referrer": random.choice((None, "https://example.com/")),
                "traits": random.choice((None, {"n": 1}, {"n": 2})) if kind == "identify" else None,
                "previous_id": random.choice(PREVIOUS) if kind == "alias" or random.random() < 0.1 else None,
                "identifiers": random.choice(MACHINES) if random.random() < 0.2 else None,
                "properties": {random.choice(("email", "mail")): random.choice(EMAILS)}
                if random.random() < 0.15
                else None,
            }
        )
        occurred_at += random.choice(STEPS)
    return events


def bot(random: Random, days: int) -> list[dict[str, Any]]:
    """A device that is never silent for as long as 30 minutes, for one day to three."""
    first_day = START + timedelta(days=random.randrange(days - 3))
    begin = datetime.fromisoformat(f"{first_day} {random.choice(('00:00:00', '00:29:00', '23:40:00'))}")
    count = random.randint(45, 120)
    number, user = random.choice((None, "s1")), random.choice((None, "u1"))
    return [
        {
            "project_id": "p1",
            "event_id": f"bot{n:03}",
            "occurred_at": begin + n * timedelta(minutes=29),
            "event_type": "page",
            "anonymous_id": "d1",
            "user_id": user if n == count // 2 else None,
            "source_session_id": number,
        }
        for n in range(count)
    ]


def history(seed: int, rounds: int) -> History:
    """``rounds`` times something happens in the landing zone and something is run; then a last change.

    A seed names a history, because strategies that hypothesis could shrink give mostly trivial ones; use
    ``shrunk`` to make a failing one small.
    """
    random = Random(seed)
    days, projects = random.randint(6, 14), random.choice((2, 4, 4))
    clear_day = random.randrange(days)
    files: dict[str, list[dict[str, Any]]] = {}
    # Every policy in one deployment: whatever a statement does, it does to rows of several at once.
    policies = random.sample(POLICIES, projects)
    in_force = {f"p{n}": replace(rules(random), policy=policy) for n, policy in enumerate(policies, start=1)}
    steps: list[Step] = [Rule(dict(in_force))]

    def change_a_rule() -> None:
        project = random.choice(sorted(in_force))
        others = [policy for policy in POLICIES if policy != in_force[project].policy]
        own = in_force[project]
        in_force[project] = random.choice(
            (
                replace(own, policy=random.choice(others)),
                replace(own, decisions=decisions(random)),
                replace(own, decisions=own.decisions[1:]),
                replace(own, count_people_without_devices=not own.count_people_without_devices),
                rules(random),
            )
        )
        steps.append(Rule(dict(in_force)))

    for turn in range(rounds):
        # The first round brings most; later ones bring corrections and late events.
        for name in random.sample(FILES, random.randint(1, 3) if turn else 3):
            known = files.get(name, [])
            what = random.choice(("put", "add", "change", "thin", "take away")) if known else "put"
            if what == "take away":
                del files[name]
                steps.append(TakeAway(name))
                continue
            fresh = [event for _ in range(random.randint(1, 3)) for event in burst(random, projects, days, clear_day)]
            if what == "put" and not turn:
                fresh += [event for _ in range(8 * projects) for event in burst(random, projects, days, clear_day)]
                if name == FILES[0] and random.random() < 0.3:
                    fresh += bot(random, days)
            elif what == "add":
                fresh = [*known, *fresh]
            elif what == "change":
                fresh = [*known[len(known) // 2 :], *fresh[:2]]
            elif what == "thin":
                fresh = [event for event in known if random.random() < 0.7]
            if random.random() < 0.1:
                fresh = [event for event in fresh if event["occurred_at"].date() != START + timedelta(days=clear_day)]
            files[name] = fresh
            bad = tuple(random.sample(BAD_LINES, random.choice((0, 0, 1))))
            steps.append(Land(name, tuple(fresh), bad))
        if turn and random.random() < 0.5:
            change_a_rule()
        what = random.choice(("settle", "settle", "settle with views", "build", "build and settle"))
        if "build" in what:
            first = random.randrange(days)
            last = random.randrange(first, days)
            steps.append(Build(START + timedelta(days=first), START + timedelta(days=last)))
        if "settle" in what:
            steps.append(Settle(view_stitching="views" in what))
    # At last, with everything at rest, somebody logs in late or a rule changes: past days are re-stitched, not built.
    steps.append(Settle(view_stitching=random.random() < 0.5))
    if random.random() < 0.7:
        steps.append(Land("jitsu/login.ndjson", tuple(burst(random, projects, days, clear_day))))
    if random.random() < 0.7:
        change_a_rule()
    return History(tuple(steps))


def shrunk(found: History, fails: Callable[[History], bool]) -> History:
    """A smaller history that still fails: steps, then events are left out for as long as ``fails`` says so."""
    for position in reversed(range(len(found.steps))):
        fewer = (*found.steps[:position], *found.steps[position + 1 :])
        if _is_possible(fewer) and fails(candidate := History(fewer)):
            found = candidate
    ids = sorted({(e["project_id"], e["event_id"]) for s in found.steps if isinstance(s, Land) for e in s.events})
    size = max(1, len(ids) // 2)
    while True:
        for start in reversed(range(0, len(ids), size)):
            dropped = set(ids[start : start + size])
            if fails(candidate := _without(found, dropped)):
                found, ids = candidate, [key for key in ids if key not in dropped]
        if size == 1:
            return found
        size //= 2


def _is_possible(steps: tuple[Step, ...]) -> bool:
    if not isinstance(steps[0], Rule):
        return False
    there: set[str] = set()
    for step in steps:
        if isinstance(step, Land):
            there.add(step.landing_file)
        elif isinstance(step, TakeAway):
            if step.landing_file not in there:
                return False
            there.remove(step.landing_file)
    return True


def _without(found: History, ids: set[tuple[str, str]]) -> History:
    def kept(step: Step) -> Step:
        if not isinstance(step, Land):
            return step
        return replace(step, events=tuple(e for e in step.events if (e["project_id"], e["event_id"]) not in ids))

    return History(tuple(map(kept, found.steps)))
