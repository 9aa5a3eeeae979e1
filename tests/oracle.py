"""DESIGN.md, sections 3 to 5, said a second time in plain Python.

It shares no code with the product: from the rows that lie in the landing zone it works out what every
table must hold, one event at a time and without any thought of speed. Where the two differ, one is wrong.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from itertools import groupby, pairwise
from typing import Any, cast

Row = dict[str, Any]

BY_A_USER = ("own", "link before", "link after")
EVENT_COLUMNS = (
    "source",
    "event_id",
    "project_id",
    "occurred_at",
    "received_at",
    "event_date",
    "event_type",
    "event_name",
    "platform",
    "anonymous_id",
    "user_id",
    "source_session_id",
    "page_url",
    "page_path",
    "page_title",
    "referrer",
    "utm_source",
    "utm_medium",
    "utm_campaign",
    "traits",
    "properties",
    "previous_id",
    "identifiers",
    "landing_file",
)
NO_IDENTITY = {
    *("", "null", "none", "nil", "undefined", "nan", "[object object]", "anonymous", "guest", "unknown", "n/a"),
    *("true", "false", "0", "-1", "id", "distinct_id", "not_authenticated"),
}


@dataclass(frozen=True)
class Rules:
    """The settings of one project. A window is a number of days, unlimited for ``None``, or a time as ``24h``."""

    policy: str = "latest"
    keep_own_user: bool = False
    """Unlike the default of the settings, as in ``warehouses``."""
    lookback_days: int | str | None = 30
    carry_forward_days: int | str | None = None
    max_users_per_device: int = 10
    link_on: str = "any"
    stitching: bool = True
    session_stitching: bool = True
    decisions: tuple[tuple[str, str, str], ...] = ()
    """Lines of the project in overrides.csv: decision, id, other id."""
    timeout: timedelta = timedelta(minutes=30)
    unique_identifiers: tuple[str, ...] = ()
    max_ids_per_person: int = 1000
    count_people_without_devices: bool = False
    identifiers: Mapping[str, Identifier] = field(default_factory=dict)
    limits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    contested_ids: str = "nobody"


@dataclass(frozen=True)
class Identifier:
    """Where a further kind of id stands on an event, and what is done to it before it is compared."""

    paths: tuple[str, ...]
    normalise: tuple[str, ...] = ("trim",)


Id = tuple[str, str]
"""A kind and a value: ``("user", "ann")``, ``("device", "laptop")``, ``("email", "ann@example.com")``."""


@dataclass(frozen=True)
class Links:
    """What is known of the identities of one project: the links of each device, in order of time.

    Under ``graph`` also who each id is (nobody, for None), and what further identifiers each device is linked to.
    """

    by_device: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    persons: Mapping[Id, str | None] = field(default_factory=dict)
    identifiers_by_device: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    connected_devices: frozenset[str] = frozenset()
    """Devices that are connected with other devices, and with nothing else."""

    decided: Mapping[str, str] = field(default_factory=dict)
    """By the ids of which somebody says so, the one that the person goes by."""

    def of(self, device: str) -> Sequence[Row]:
        return self.by_device.get(device, ())

    def name(self, user: str) -> str:
        """What a user is called in the end."""
        decided = self.decided.get(user, user)
        return self.persons.get(("user", decided)) or decided

    def of_person(self, device: str) -> Sequence[Row]:
        """The links of a device that lead to the device's own person, who stands for whatever they lead to."""
        person = self.persons.get(("device", device))
        found = [(("user", link["person"]), link) for link in self.of(device)]
        found += [((link["id_kind"], link["id"]), link) for link in self.identifiers_by_device.get(device, ())]
        counted = [{**link, "user_id": person} for key, link in found if person and self.persons.get(key) == person]

        def last_seen_at(link: Row) -> datetime:
            """When the person was last seen, by whichever id, of all links that had begun."""
            begun = [other for other in counted if other["first_seen_at"] <= link["first_seen_at"]]
            return cast("datetime", max(other["last_seen_at"] for other in begun))

        return sorted(
            ({**link, "last_seen_at": last_seen_at(link)} for link in counted),
            key=lambda link: (link["first_seen_at"], link["first_event_id"]),
        )


def person(user: str, rules: Rules) -> str:
    """The id by which the person goes who has this one."""
    for decision, name, other_name in rules.decisions:
        if decision == "same_person" and other_name == user:
            return person(name, rules)
    return user


def _counts(link: Row, rules: Rules) -> bool:
    return ("wrong_link", link["anonymous_id"], link["user_id"]) not in rules.decisions


def _identifies(row: Row, rules: Rules) -> bool:
    wrong = (
        [("wrong_link", row["linked_id"], f"{row['id_kind']}:{row['id']}")] if row["linked_kind"] == "device" else []
    )
    if row["id_kind"] == "device":
        wrong.append(("wrong_link", row["id"], f"device:{row['linked_id']}"))
    if row["id_kind"] == "user":
        wrong.append(("wrong_link", row["id"], row["linked_id"]))
    return not {*wrong} & {*rules.decisions}


def _is_shared(device: str, users: set[str], rules: Rules) -> bool:
    """Whether a device is nobody's that these people use."""
    return (
        len(users) > rules.max_users_per_device
        or ("shared_device", device, "") in rules.decisions
        or any(
            decision == "never_same" and {person(one, rules), person(other, rules)} <= users
            for decision, one, other in rules.decisions
        )
    )


def tables(landed: Iterable[Mapping[str, Any]], rules: Mapping[str, Rules] | Rules = Rules()) -> dict[str, list[Row]]:
    """What every table and view holds once everything has come to rest, page views stitched.

    ``landed`` are the valid rows of the landing zone as canonical events, ids as they were sent.
    """
    events, duplicates = deduplicated(map(_read, landed))
    by_table: dict[str, list[Row]] = defaultdict(list)
    by_table["duplicate_events"] = duplicates
    for project in sorted({event["project_id"] for event in events}):
        own_events = [event for event in events if event["project_id"] == project]
        own_rules = rules if isinstance(rules, Rules) else rules.get(project, Rules())
        for table, rows in _tables_of_project(own_events, own_rules).items():
            by_table[table] += [{"project_id": project, **row} for row in rows]
    return by_table


def _tables_of_project(events: list[Row], rules: Rules) -> dict[str, list[Row]]:
    observed = identity_map(events, rules)
    link_rows = [{**link, "person": person(link["user_id"], rules)} for link in observed if _counts(link, rules)]
    identifier_rows = identifier_links(events, rules)
    evidence = [row for row in identifier_rows if _identifies(row, rules)]
    person_rows = persons(link_rows, evidence, rules)
    devices = _devices([*events, *observed]) | {row["linked_id"] for row in evidence if row["linked_kind"] == "device"}
    links = Links(
        {device: [link for link in link_rows if link["anonymous_id"] == device] for device in devices},
        {(row["id_kind"], row["id"]): row["person_id"] for row in person_rows},
        {
            device: [row for row in evidence if (row["linked_kind"], row["linked_id"]) == ("device", device)]
            for device in devices
        },
        frozenset(row["id"] for row in person_rows if (row["component_id"] or "").startswith("device:")),
        {other: person(other, rules) for decision, _, other in rules.decisions if decision == "same_person"},
    )
    cut = sessions(events, rules)
    session_of = {event["event_id"]: session["session_id"] for session in cut for event in session["events"]}
    stitched = [
        {
            **row,
            **credit(row["started_at"], row, links, rules, row["anonymous_id"], is_session=True),
        }
        for row in ({name: value for name, value in session.items() if name != "events"} for session in cut)
    ]
    credited = [
        {
            **event,
            **credit(
                event["occurred_at"],
                event,
                links,
                rules,
                event["anonymous_id"] or event["event_id"],
            ),
        }
        for event in events
    ]
    views = [
        {
            "session_id": session_of.get(event["event_id"]),
            **{
                name: event[name]
                for name in (
                    *("event_id", "event_date", "occurred_at", "anonymous_id", "user_id", "page_url", "page_path"),
                    *("page_title", "stitched_user_id", "stitched_by"),
                )
            },
        }
        for event in credited
        if _is_view(event)
    ]
    without_device = [{**event, "person": links.name(event["user_id"])} for event in events if _has_only_a_user(event)]
    traits = _latest_traits(link_rows, without_device, links)
    return {
        "raw_events": events,
        "identity_map": observed,
        "identifier_links": identifier_rows,
        "persons": person_rows,
        "sessions": [{name: value for name, value in session.items() if name != "events"} for session in cut],
        "stitched_sessions": stitched,
        "page_views": views,
        "page_views_live": views,
        "users": users(stitched, link_rows, without_device, links, rules),
        "visitor_stats": visitor_stats(stitched, views, without_device if rules.count_people_without_devices else []),
        "user_mapping": user_mapping(stitched, links, rules),
        "user_mapping_history": current_mapping(links, rules),
        "user_devices": user_devices(link_rows, links),
        "identity_link": identity_link(link_rows, links),
        "stitched_events": [
            {
                **{name: value for name, value in event.items() if name not in ("previous_id", "identifiers")},
                "traits": traits.get(event["stitched_user_id"]) if event["stitched_by"] in BY_A_USER else None,
            }
            for event in credited
        ],
        "user_first_touch": user_first_touch(credited),
    }


def is_no_identity(value: str | None) -> bool:
    if value is None:
        return True
    bare = value.strip(" \t\r\n\"'`").lower()
    return bare in NO_IDENTITY or (
        len(bare) in (32, 36) and set(bare) <= {"0", "-"} and bare.replace("-", "") == "0" * 32
    )


def _read(sent: Mapping[str, Any]) -> Row:
    event = {name: sent.get(name) for name in EVENT_COLUMNS}
    event["event_date"] = sent["occurred_at"].date()
    for name in ("anonymous_id", "user_id", "previous_id"):
        if is_no_identity(event[name]):
            event[name] = None
    for name in ("traits", "properties", "identifiers"):
        event[name] = json.dumps(event[name], sort_keys=True) if event[name] else None
    return event


def deduplicated(events: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Of events with one id in a project the first received, and the others."""

    def received_first(event: Row) -> tuple[Any, ...]:
        at = event["received_at"]
        return (at is None, at or datetime.min, event["landing_file"], event["occurred_at"])

    by_id: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for event in events:
        by_id[event["project_id"], event["event_id"]].append(event)
    kept, others = [], []
    for same in by_id.values():
        first, *rest = sorted(same, key=received_first)
        kept.append(first)
        others += rest
    return kept, others


def _in_time(events: Iterable[Row]) -> list[Row]:
    return sorted(events, key=lambda event: (event["occurred_at"], event["event_id"]))


def _devices(events: Iterable[Row]) -> set[str]:
    return {event["anonymous_id"] for event in events if event["anonymous_id"] is not None}


def _is_view(event: Row) -> bool:
    return event["event_type"] in ("page", "screen")


def _has_only_a_user(event: Row) -> bool:
    return event["anonymous_id"] is None and event["user_id"] is not None


def _last_known(values: Iterable[Any]) -> Any:
    return next((value for value in reversed(list(values)) if value is not None), None)


def _first_known(values: Iterable[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _may_link(event: Row, rules: Rules) -> bool:
    says_so = event["event_type"] in ("alias", "merge") and (event["previous_id"] or event["identifiers"])
    return rules.link_on == "any" or event["event_type"] == "identify" or bool(says_so)


def _previous(event: Row) -> str | None:
    """The id that is the same as the event's user, or without a user as its device; none if it is that very id."""
    own = event["user_id"] or event["anonymous_id"]
    return event["previous_id"] if event["previous_id"] != own else None


def _as_the_previous(event: Row) -> Iterable[Row]:
    """The event, and once more as one of the device that its previous id may be."""
    yield event
    if _previous(event) not in (None, event["anonymous_id"]) and event["user_id"] is not None:
        yield {**event, "anonymous_id": _previous(event)}


def identity_map(events: Iterable[Row], rules: Rules) -> list[Row]:
    """Runs of identified events of one user on one device in one day."""
    identified = [
        event
        for sent in _in_time(events)
        for event in _as_the_previous(sent)
        if event["anonymous_id"] is not None and event["user_id"] is not None and _may_link(event, rules)
    ]
    links = []
    for device in sorted(_devices(identified)):
        counted = []
        for _, same in groupby((e for e in identified if e["anonymous_id"] == device), key=lambda e: e["occurred_at"]):
            at_one_instant = list(same)
            counted += [event for event in at_one_instant if event["user_id"] == at_one_instant[-1]["user_id"]]
        for (day, user), run in groupby(counted, key=lambda e: (e["event_date"], e["user_id"])):
            link = list(run)
            links.append(
                {
                    "event_date": day,
                    "anonymous_id": device,
                    "user_id": user,
                    "first_seen_at": link[0]["occurred_at"],
                    "last_seen_at": link[-1]["occurred_at"],
                    "event_count": len(link),
                    "first_event_id": link[0]["event_id"],
                    "traits": _last_known(event["traits"] for event in link),
                }
            )
    return links


def identifier_links(events: Iterable[Row], rules: Rules) -> list[Row]:
    """Which further identifiers were seen with which device or user, per day."""
    seen: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for event in _in_time(events):
        if not _may_link(event, rules):
            continue
        day, device, user, previous = (event["event_date"], event["anonymous_id"], event["user_id"], _previous(event))
        if previous is not None and user is not None:
            seen[day, "user", previous, "user", user].append(event)
        elif previous is not None and device is not None:
            seen[day, "device", previous, "device", device].append(event)
            seen[day, "device", device, "device", previous].append(event)
        for kind, identifier in rules.identifiers.items():
            value = _identifier(event, identifier)
            for linked_kind, linked in (("device", event["anonymous_id"]), ("user", event["user_id"])):
                if value is not None and linked is not None:
                    seen[event["event_date"], kind, value, linked_kind, linked].append(event)
    return [
        {
            **dict(zip(("event_date", "id_kind", "id", "linked_kind", "linked_id"), key, strict=True)),
            "first_seen_at": together[0]["occurred_at"],
            "last_seen_at": together[-1]["occurred_at"],
            "event_count": len(together),
            "first_event_id": together[0]["event_id"],
        }
        for key, together in seen.items()
    ]


def _identifier(event: Row, identifier: Identifier) -> str | None:
    for path in identifier.paths:
        place, name = path.split(".")
        value = json.loads(event[place] or "{}").get(name)
        if isinstance(value, int):
            value = str(value)
        if not isinstance(value, str):
            continue
        for step in identifier.normalise:
            if step == "digits":
                value = "".join(character for character in value if character in "0123456789")
            else:
                value = value.strip() if step == "trim" else value.lower()
        if not is_no_identity(value):
            return value
    return None


def persons(links: Sequence[Row], identifiers: Sequence[Row], rules: Rules) -> list[Row]:
    """Who each known id is, under ``graph``: its person, or nobody."""
    if rules.policy != "graph" or not rules.stitching:
        return []
    first_seen: dict[Id, tuple[datetime, str]] = {}
    neighbours: dict[Id, set[Id]] = defaultdict(set)
    pairs: list[tuple[Id, Id, tuple[datetime, str]]] = [
        *((("device", link["anonymous_id"]), ("user", link["person"]), _first_seen(link)) for link in links),
        *(
            (
                (
                    row["linked_kind"],
                    person(row["linked_id"], rules) if row["linked_kind"] == "user" else row["linked_id"],
                ),
                (row["id_kind"], person(row["id"], rules) if row["id_kind"] == "user" else row["id"]),
                _first_seen(row),
            )
            for row in identifiers
        ),
    ]
    pairs = [pair for pair in pairs if pair[0] != pair[1]]
    seen = {one for one, _, _ in pairs} | {other for _, other, _ in pairs if other[0] != "user"}
    seen |= {("user", link["person"]) for link in links}
    successors: dict[Id, set[Id]] = defaultdict(set)
    for one, other, _ in pairs:
        if one[0] == other[0] == "user":
            successors[other].add(one)
    for one, other, at in pairs:
        neighbours[one].add(other)
        neighbours[other].add(one)
        # Of two users of one event, the previous one comes later.
        is_previous = one[0] == other[0] == "user"
        for key, seen_at in ((one, at), (other, (at[0], at[1] + "~") if is_previous else at)):
            first_seen[key] = min(seen_at, first_seen.get(key, seen_at))

    def is_hub(key: Id) -> bool:
        limits = rules.limits.get(key[0], {})
        if any(name != "per_person" and len(_of_kind(neighbours[key], name)) > count for name, count in limits.items()):
            return True
        if key[0] == "user":
            return len(successors[key]) > rules.max_users_per_device
        if key[0] == "device" and ("shared_device", key[1], "") in rules.decisions:
            return True
        kinds = [kind for kind, _ in neighbours[key] if key[0] == "device" or kind == "user"]
        return any(kinds.count(kind) > limits.get(kind, rules.max_users_per_device) for kind in kinds)

    hubs = {key for key in neighbours if is_hub(key)}
    graph = {key: others - hubs for key, others in neighbours.items() if key not in hubs}
    components = _components(set(graph), graph)

    def in_order(ids: Iterable[Id]) -> list[Id]:
        def place(key: Id) -> tuple[Any, ...]:
            rank = 3 if key[0] == "device" else 2 if key[0] != "user" else int(key not in seen)
            at, event_id = first_seen[key]
            return rank, at, key[0], event_id, key[1]

        return sorted(ids, key=place)

    first_to_keep = in_order(graph) if rules.contested_ids == "first" else None
    two = [
        {("user", person(one, rules)), ("user", person(other, rules))}
        for decision, one, other in rules.decisions
        if decision == "never_same"
    ]
    cells = [
        part
        for cell in components
        for part in _parted(cell, {key for pair in two if pair <= cell for key in pair}, graph, first_to_keep)
    ]
    values = dict.fromkeys(rules.unique_identifiers, 1)
    values |= {kind: own["per_person"] for kind, own in rules.limits.items() if "per_person" in own}
    for kind, count in values.items():
        cells = [
            part
            for cell in cells
            for part in (
                _parted(cell, _of_kind(cell, kind), graph, first_to_keep)
                if len(_of_kind(cell, kind)) > count
                else [cell]
            )
        ]
    cells = [
        part
        for cell in cells
        for part in (
            _parted(cell, _of_kind(cell, "user"), graph, first_to_keep)
            if len(cell) > rules.max_ids_per_person
            else [cell]
        )
    ]

    def named(ids: Iterable[Id]) -> list[str]:
        return [_name(key) for key in in_order(ids) if key[0] != "device"]

    persons: dict[Id, str | None] = {key: key[1] if key[0] == "user" else None for key in neighbours}
    for cell in cells:
        has_user = any(kind == "user" for kind, _ in cell)
        if named(cell) and (has_user or 2 <= len(cell) <= rules.max_ids_per_person):
            persons.update(dict.fromkeys(cell, named(cell)[0]))
    label = {
        key: ":".join(in_order(component)[0]) if len(component) > 1 or key[0] != "device" else None
        for component in components
        for key in component
    }
    return [
        {
            "id_kind": key[0],
            "id": key[1],
            "person_id": persons[key],
            "component_id": label.get(key),
            "first_seen_at": first_seen[key][0],
        }
        for key in neighbours
    ]


def _first_seen(link: Row) -> tuple[datetime, str]:
    return link["first_seen_at"], link["first_event_id"]


def _name(key: Id) -> str:
    return key[1] if key[0] == "user" else f"{key[0]}:{key[1]}"


def _distances(start: Id, within: set[Id], graph: Mapping[Id, set[Id]]) -> dict[Id, int]:
    distances = {start: 0}
    last = [start]
    while last:
        last = sorted({other for key in last for other in graph[key] & within if other not in distances})
        distances.update(dict.fromkeys(last, max(distances.values()) + 1))
    return distances


def _components(ids: set[Id], graph: Mapping[Id, set[Id]]) -> list[set[Id]]:
    components: list[set[Id]] = []
    for key in sorted(ids):
        if not any(key in component for component in components):
            components.append(set(_distances(key, ids, graph)))
    return components


def _of_kind(cell: Iterable[Id], kind: str) -> set[Id]:
    return {key for key in cell if key[0] == kind}


def _parted(
    cell: set[Id], around: set[Id], graph: Mapping[Id, set[Id]], first_to_keep: Sequence[Id] | None
) -> list[set[Id]]:
    """The parts of a cell, one for each of these ids: every other goes to the nearest.

    At a tie it goes to none, or to the first of them in ``first_to_keep``.
    """
    seeds = {key: _distances(key, cell, graph) for key in around}
    if len(seeds) < 2:
        return [cell]
    parts: dict[Id, set[Id]] = {seed: set() for seed in seeds}
    for key in cell:
        least = min(distances[key] for distances in seeds.values())
        nearest = [seed for seed, distances in seeds.items() if distances[key] == least]
        if first_to_keep is not None:
            parts[min(nearest, key=first_to_keep.index)].add(key)
        elif len(nearest) == 1:
            parts[nearest[0]].add(key)
    return list(parts.values())


def sessions(events: Iterable[Row], rules: Rules) -> list[Row]:
    """Sessions with the events they consist of."""
    streams: dict[tuple[str, str | None], list[Row]] = defaultdict(list)
    for event in _in_time(events):
        if event["anonymous_id"] is not None:
            streams[event["anonymous_id"], event["source_session_id"]].append(event)
    return [
        _session(members, device, number)
        for (device, number), stream in streams.items()
        for members in _cut(stream, rules.timeout, is_numbered=number is not None)
    ]


def _cut(stream: list[Row], timeout: timedelta, *, is_numbered: bool) -> list[list[Row]]:
    full_days = {
        day
        for day, own in groupby(stream, key=lambda e: e["event_date"])
        if _is_full(day, list(own), timeout, is_numbered)
    }
    parts = [[stream[0]]]
    for previous, event in pairwise(stream):
        is_silence = event["occurred_at"] - previous["occurred_at"] >= timeout
        if previous["event_date"] == event["event_date"]:
            ends = is_silence and not is_numbered
        else:
            goes_on = is_numbered and _leans_to(previous["event_date"], event["event_date"], stream)
            ends = (is_silence and not goes_on) or bool({previous["event_date"], event["event_date"]} & full_days)
        if ends:
            parts.append([])
        parts[-1].append(event)
    return parts


def _leans_to(day: date, next_day: date, stream: list[Row]) -> bool:
    """Whether the events of both days are nearer to the midnight between them than to the other one."""
    if next_day - day != timedelta(days=1):
        return False
    midnight = datetime.combine(next_day, time())
    times = [event["occurred_at"] for event in stream if event["event_date"] == day]
    next_times = [event["occurred_at"] for event in stream if event["event_date"] == next_day]
    is_late: bool = midnight - times[-1] < times[0] - (midnight - timedelta(days=1))
    is_early: bool = next_times[0] - midnight < midnight + timedelta(days=1) - next_times[-1]
    return is_late and is_early


def _is_full(day: date, events: list[Row], timeout: timedelta, is_numbered: bool) -> bool:
    midnight = datetime.combine(day, time())
    times = [event["occurred_at"] for event in events]
    return (
        times[0] - midnight < timeout
        and midnight + timedelta(days=1) - times[-1] < timeout
        and (is_numbered or all(later - earlier < timeout for earlier, later in pairwise(times)))
    )


def _session(events: list[Row], device: str, number: str | None) -> Row:
    first, last = events[0], events[-1]
    paths = [event["page_path"] for event in events if _is_view(event)]
    return {
        "session_id": hashlib.md5(first["event_id"].encode()).hexdigest(),
        "session_date": first["event_date"],
        "anonymous_id": device,
        "source_session_id": number,
        "user_id": _last_known(event["user_id"] for event in events),
        "started_at": first["occurred_at"],
        "ended_at": last["occurred_at"],
        "event_count": len(events),
        "page_view_count": sum(map(_is_view, events)),
        "first_page_path": _first_known(paths),
        "last_page_path": _last_known(paths),
        **{name: first[name] for name in ("referrer", "utm_source", "utm_medium", "utm_campaign", "platform")},
        "events": events,
    }


def credit(at: datetime, row: Row, links: Links, rules: Rules, own_id: str, *, is_session: bool = False) -> Row:
    """Who a row of the given time is credited to, and why."""
    device, own_user = row["anonymous_id"], row["user_id"]

    def answer(user: str, rule: str, link: Row | None = None) -> Row:
        return {
            "stitched_user_id": links.name(user) if rule in BY_A_USER else user,
            "stitched_by": rule,
            "linked_at": link and link["first_seen_at"],
            "link_event_id": link and link["first_event_id"],
        }

    if device is None:
        return answer(own_id, "none") if own_user is None else answer(own_user, "own")
    if not rules.stitching or (is_session and not rules.session_stitching):
        return answer(own_id, "off")
    window = [link for link in links.of(device) if _is_within(link, at, rules)]
    if _is_shared(device, {link["person"] for link in window}, rules):
        return answer(own_id, "shared device") if own_user is None else answer(own_user, "own")
    if rules.policy == "graph":
        if own_user is not None:
            return answer(own_user, "own")
        if links.persons.get(("device", device), device) is None and device not in links.connected_devices:
            return answer(own_id, "shared device")
        window = [link for link in links.of_person(device) if _is_within(link, at, rules)]
        if not window:
            return answer(own_id, "none")
        link = window[-1]
        return answer(link["user_id"], "link before" if link["first_seen_at"] <= at else "link after", link)
    if own_user is not None and (rules.keep_own_user or rules.policy in ("device_split", "next_identify")):
        return answer(own_user, "own")
    picked = _picked(links.of(device), at, rules)
    if picked is None or picked not in window:
        return answer(own_id, "none") if own_user is None else answer(own_user, "own")
    if picked["user_id"] == own_user:
        return answer(own_user, "own", picked)
    return answer(picked["user_id"], "link before" if picked["first_seen_at"] <= at else "link after", picked)


def clock_time(window: int | str | None) -> timedelta | None:
    """The length of a window that is no number of days."""
    if not isinstance(window, str):
        return None
    return timedelta(hours=int(window[:-1])) if window.endswith("h") else timedelta(minutes=int(window[:-1]))


def _is_at_most(window: int | str | None, earlier: datetime, later: datetime) -> bool:
    """Whether two times are no further apart than the window is long."""
    if window is None:
        return True
    if isinstance(window, int):
        return (later.date() - earlier.date()).days <= window
    return later - earlier <= (clock_time(window) or timedelta())


def _is_within(link: Row, at: datetime, rules: Rules) -> bool:
    return _is_in_reach(link, at, rules) and _is_at_most(rules.carry_forward_days, link["last_seen_at"], at)


def _is_in_reach(link: Row, at: datetime, rules: Rules) -> bool:
    return _is_at_most(rules.lookback_days, at, link["first_seen_at"])


def _picked(links: Sequence[Row], at: datetime, rules: Rules) -> Row | None:
    """The link that the policy looks at, in the window or not."""
    before = [link for link in links if link["first_seen_at"] <= at]
    after = [link for link in links if link["first_seen_at"] > at]
    if rules.policy == "first":
        return links[0] if links else None
    if rules.policy == "next_identify":
        return after[0] if after else None
    if rules.policy == "device_split":
        if before and _is_within(before[-1], at, rules):
            return before[-1]
        return after[0] if after else None
    in_reach = [link for link in links if _is_in_reach(link, at, rules)]
    return in_reach[-1] if in_reach else None


def _latest_traits(links: Iterable[Row], without_device: list[Row], names: Links) -> dict[str, str | None]:
    """What is known last of each person; a day of a user's events without a device counts as a link does."""
    named = [{**link, "person": names.name(link["user_id"])} for link in links]
    by_day: dict[tuple[str, date], list[Row]] = defaultdict(list)
    for event in _in_time(without_device):
        by_day[event["user_id"], event["event_date"]].append(event)
    named += [
        {
            "person": own[0]["person"],
            "last_seen_at": own[-1]["occurred_at"],
            "first_event_id": own[0]["event_id"],
            "traits": _last_known(event["traits"] for event in own),
        }
        for own in by_day.values()
    ]
    in_order = sorted(named, key=lambda one: (one["last_seen_at"], one["first_event_id"]))
    return {one["person"]: one["traits"] for one in in_order if one["traits"] is not None}


def _counted_as(device: str, rules: Rules) -> str:
    """The device as which this one is counted, by decision."""
    for decision, one, other in rules.decisions:
        if decision == "same_device" and other == device:
            return _counted_as(one, rules)
    return device


def users(stitched: list[Row], links: list[Row], without_device: list[Row], names: Links, rules: Rules) -> list[Row]:
    by_user: dict[str, list[Row]] = defaultdict(list)
    for session in sorted(stitched, key=lambda session: (session["started_at"], session["session_id"])):
        by_user[session["stitched_user_id"]].append(session)
    events_of: dict[str, list[Row]] = defaultdict(list)
    for event in _in_time(without_device):
        events_of[event["person"]].append(event)
    traits = _latest_traits(links, without_device, names)
    rows = []
    for user in sorted({*by_user, *events_of}):
        own, events = by_user[user], events_of[user]
        is_identified = bool(events) or any(session["stitched_by"] in BY_A_USER for session in own)
        linked = [link["first_seen_at"] for link in links if names.name(link["user_id"]) == user]
        linked += [event["occurred_at"] for event in events]
        # The events of a server know of no campaign, so any session goes before them.
        first = (own or events)[0]
        rows.append(
            {
                "stitched_user_id": user,
                "is_identified": is_identified,
                "first_seen_at": min([row["started_at"] for row in own] + [row["occurred_at"] for row in events]),
                "last_seen_at": max([row["ended_at"] for row in own] + [row["occurred_at"] for row in events]),
                "identified_at": min(linked) if is_identified and linked else None,
                "session_count": len(own),
                "page_view_count": sum(row["page_view_count"] for row in own) + sum(map(_is_view, events)),
                "event_count": sum(session["event_count"] for session in own) + len(events),
                "device_count": len({_counted_as(session["anonymous_id"], rules) for session in own}),
                "first_touch_source": first["utm_source"],
                "first_touch_medium": first["utm_medium"],
                "first_touch_campaign": first["utm_campaign"],
                "first_touch_referrer": first["referrer"],
                "traits": traits.get(user) if is_identified else None,
            }
        )
    return rows


def visitor_stats(stitched: list[Row], views: list[Row], without_device: list[Row]) -> list[Row]:
    """Days with traffic; ``without_device`` are the events of people who are to be counted all the same."""
    rows = []
    for day in sorted(
        {session["session_date"] for session in stitched}
        | {event["event_date"] for events in (views, without_device) for event in events}
    ):
        visits = [session for session in stitched if session["session_date"] == day]
        lengths = [session["ended_at"] - session["started_at"] for session in visits]
        rows.append(
            {
                "stat_date": day,
                "page_views": sum(view["event_date"] == day for view in views),
                "visits": len(visits),
                "visitors": len(
                    {session["stitched_user_id"] for session in visits}
                    | {event["person"] for event in without_device if event["event_date"] == day}
                ),
                "visitors_unstitched": len({session["anonymous_id"] for session in visits}),
                "bounces": sum(session["page_view_count"] == 1 for session in visits),
                "total_time_seconds": sum(lengths, timedelta()) / timedelta(seconds=1),
            }
        )
    return rows


def user_mapping(stitched: list[Row], links: Links, rules: Rules) -> list[Row]:
    last: dict[str, Row] = {}
    for session in sorted(stitched, key=lambda row: (row["ended_at"], row["started_at"], row["session_id"])):
        last[session["anonymous_id"]] = session
    rows = []
    for device, session in last.items():
        seen_at = session["ended_at"]
        answer = credit(seen_at, session, links, rules, device)
        user = answer["stitched_user_id"] if answer["stitched_by"] in BY_A_USER else None
        rows.append({"anonymous_id": device, "last_seen_at": seen_at, **answer, "user_id": user})
    return rows


def current_mapping(links: Links, rules: Rules) -> list[Row]:
    """What is known now of whose the anonymous rows of devices are: asked at each midnight, each link, and around the
    edges of its windows."""
    shared = {device for decision, device, _ in rules.decisions if decision == "shared_device"}
    rows: list[Row] = []
    known = {name for name, own in links.by_device.items() if own}
    if rules.policy == "graph":
        known |= {name for name, own in links.identifiers_by_device.items() if own}
    for device in sorted(known | shared):
        own = [*links.of(device), *(links.identifiers_by_device.get(device, ()) if rules.policy == "graph" else ())]
        first = min((link["event_date"] for link in own), default=date(2026, 1, 1))
        last = max((link["event_date"] for link in own), default=date(2026, 1, 1))
        day = first - timedelta(days=_days(rules.lookback_days) + 2)
        times = {link["first_seen_at"] for link in own}
        for nearly in (timedelta(microseconds=-1), timedelta(0), timedelta(microseconds=1)):
            if (back := clock_time(rules.lookback_days)) is not None:
                times |= {link["first_seen_at"] - back + nearly for link in own}
            if (forward := clock_time(rules.carry_forward_days)) is not None:
                times |= {link["last_seen_at"] + forward + nearly for link in own}
        while day <= last + timedelta(days=_days(rules.carry_forward_days) + 2):
            times.add(datetime.combine(day, time()))
            day += timedelta(days=1)
        spans: list[Row] = []
        for at in sorted(times):
            answer = credit(at, {"anonymous_id": device, "user_id": None}, links, rules, device)
            who = {name: answer[name] for name in ("stitched_user_id", "stitched_by")}
            if spans and spans[-1].items() >= who.items():
                continue
            if spans:
                spans[-1]["valid_until"] = at
            user = who["stitched_user_id"] if who["stitched_by"] in BY_A_USER else None
            valid_from = at if spans else datetime(1, 1, 1)
            spans.append(
                {"anonymous_id": device, **who, "user_id": user, "valid_from": valid_from, "valid_until": None}
            )
        rows += spans
    return rows


def _days(window: int | str | None) -> int:
    return (clock_time(window) or timedelta()).days + 1 if isinstance(window, str) else window or 0


def user_devices(links: list[Row], names: Links) -> list[Row]:
    pairs: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for link in links:
        pairs[names.name(link["user_id"]), link["anonymous_id"]].append(link)
    return [
        {
            "user_id": user,
            "anonymous_id": device,
            "first_seen_at": min(link["first_seen_at"] for link in own),
            "last_seen_at": max(link["last_seen_at"] for link in own),
            "event_count": sum(link["event_count"] for link in own),
        }
        for (user, device), own in pairs.items()
    ]


def identity_link(links: list[Row], names: Links) -> list[Row]:
    pairs: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for link in links:
        pairs[link["anonymous_id"], link["user_id"]].append(link)
    return [
        {
            "anonymous_id": device,
            "user_id": user,
            "stitched_user_id": names.name(user),
            "first_seen_at": min(link["first_seen_at"] for link in own),
            "last_seen_at": max(link["last_seen_at"] for link in own),
            "event_count": sum(link["event_count"] for link in own),
        }
        for (device, user), own in pairs.items()
    ]


def user_first_touch(credited: list[Row]) -> list[Row]:
    first: dict[str, Row] = {}
    for event in _in_time(event for event in credited if event["stitched_by"] in BY_A_USER):
        first.setdefault(event["stitched_user_id"], event)
    return [
        {
            "stitched_user_id": user,
            "first_seen_at": event["occurred_at"],
            "first_touch_source": event["utm_source"],
            "first_touch_medium": event["utm_medium"],
            "first_touch_campaign": event["utm_campaign"],
            "first_touch_referrer": event["referrer"],
            "first_touch_page_path": event["page_path"],
            "first_touch_platform": event["platform"],
            "first_touch_anonymous_id": event["anonymous_id"],
            "first_touch_event_id": event["event_id"],
        }
        for user, event in first.items()
    ]
