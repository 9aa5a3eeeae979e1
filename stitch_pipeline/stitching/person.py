"""A person's history: the devices, sessions, logins and decisions behind a user or a device, and what policies say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.stitching.explain import Explanation, explanation_of, parse_time, trial_of_devices
from stitch_pipeline.stitching.facts import IS_STITCHED
from stitch_pipeline.stitching.views import refuse_other_views
from stitch_pipeline.warehouse.engine import engine_of
from stitch_pipeline.warehouse.port import Warehouse

DEVICES_SHOWN = 30
"""A user on more devices than these is shown with the first of them."""
_VIEWS = ("stitching_reasons", "policy_preview_sessions")


@dataclass(frozen=True)
class Answer:
    """What a policy would credit a session to."""

    stitched_user_id: str
    stitched_by: str


@dataclass(frozen=True)
class WithoutDevice:
    """What a user did in events without a device. No link is needed for these: each names the user. Times are UTC."""

    event_count: int
    page_view_count: int
    first_seen_at: datetime
    last_seen_at: datetime
    stitched_user_id: str


@dataclass(frozen=True)
class PersonHistory:
    """The history of a user over all devices, or of one device."""

    project_id: str
    user_id: str | None
    """None if a device was asked for."""
    devices: Sequence[Explanation]
    """In the order in which the user was first seen on them."""
    devices_left_out: int
    answers: Mapping[str, Mapping[str, Answer]]
    """By session and policy."""
    decisions: Sequence[str]
    """The lines of overrides.csv that name one of these devices or their users."""
    without_device: WithoutDevice | None = None
    """None if a device was asked for, or the user has no such event."""

    @property
    def policies(self) -> Sequence[str]:
        """The policies that have an answer, in one order for all sessions."""
        return list(dict.fromkeys(policy for answers in self.answers.values() for policy in answers))


def seen_of_user(settings: Settings, project_id: str, user_id: str) -> tuple[list[str], WithoutDevice | None]:
    """The user's devices in the order of first sight, and what the user did without one.

    A device is one with a login of the user, or with a session that is credited to the person whom the user id names.
    Raises SettingsError if there is neither, and WarehouseError as ``trial`` does.
    """
    engine = engine_of(settings)
    with engine.open(read_only=True) as warehouse:
        refuse_other_views(warehouse, engine.place)
        stored = settings.hashing.stored(project_id, user_id)
        devices = warehouse.rows(_DEVICES, project=project_id, user=stored)
        without_device = _without_device(warehouse, project_id, stored)
    if not devices and without_device is None:
        raise SettingsError(
            f"Project '{project_id}' has no user '{user_id}', on a device or without one: give the user id as the "
            "tracker sends it, letter case included."
        )
    return [device for device, _ in devices], without_device


def _without_device(warehouse: Warehouse, project_id: str, user_id: str) -> WithoutDevice | None:
    days = warehouse.rows(
        "select event_count, page_view_count, first_seen_at, last_seen_at, event_date, first_event_id "
        "from activity_without_device where project_id = $project and user_id = $user order by event_date",
        project=project_id,
        user=user_id,
    )
    if not days:
        return None
    events, views, first_seen, last_seen, dates, first_events = zip(*days, strict=True)
    ((person,),) = warehouse.rows(
        "select stitched_user_id from stitched_events "
        "where project_id = $project and event_date = $day and event_id = $event",
        project=project_id,
        day=dates[0],
        event=first_events[0],
    )
    return WithoutDevice(sum(events), sum(views), min(first_seen), max(last_seen), person)


def person_history(
    settings: Settings,
    project_id: str,
    *,
    user_id: str | None = None,
    anonymous_id: str | None = None,
    at: str | None = None,
) -> PersonHistory:
    """The history of a user or of a device, with the reason for each row as ``explain`` finds it; ``at`` as there.

    Raises as ``explain`` does.
    """
    wanted = None if at is None else parse_time(at)
    without_device = None
    if anonymous_id is not None:
        devices = [settings.hashing.stored(project_id, anonymous_id)]
    else:
        devices, without_device = seen_of_user(settings, project_id, user_id or "")
    user_id = None if user_id is None else settings.hashing.stored(project_id, user_id)
    shown = devices[:DEVICES_SHOWN]
    with trial_of_devices(settings, project_id, shown, _VIEWS) as warehouse:
        explained = [explanation_of(warehouse, project_id, device, wanted) for device in shown]
        answers: dict[str, dict[str, Answer]] = {}
        for session, policy, user, rule in warehouse.rows(
            "select session_id, policy, stitched_user_id, stitched_by from policy_preview_sessions "
            "order by session_id, policy"
        ):
            answers.setdefault(session, {})[policy] = Answer(user, rule)
        decisions = _decisions(warehouse, project_id, _ids(explained, user_id))
    left_out = len(devices) - len(shown)
    return PersonHistory(project_id, user_id, explained, left_out, answers, decisions, without_device)


def _ids(explained: Sequence[Explanation], user_id: str | None) -> set[str]:
    users = {candidate.user_id for device in explained for candidate in device.candidates}
    credited = {row.stitched_user_id for device in explained for row in device.rows}
    return {device.anonymous_id for device in explained} | users | credited | ({user_id} if user_id else set())


def _decisions(warehouse: Warehouse, project_id: str, ids: set[str]) -> list[str]:
    lines = warehouse.rows(
        "select decision, id, other_id, reason from decision_lines where project_id = $project "
        "order by decision, id, other_id",
        project=project_id,
    )
    return [
        f"{decision}: {' and '.join(filter(None, (one, other)))}" + (f" ({reason})" if reason else "")
        for decision, one, other, reason in lines
        if {one, other} & ids
    ]


# A session with an own user is credited to the canonical id of this user when the rule is `own`.
_DEVICES = f"""
    with names as (
      select cast($user as varchar) as person_id
      union
      select stitched_user_id from stitched_sessions
      where project_id = $project and user_id = $user and stitched_by = 'own'
    ),
    seen as (
      select anonymous_id, started_at as seen_at from stitched_sessions
      where project_id = $project and {IS_STITCHED}
        and stitched_user_id in (select person_id from names)
      union all
      select anonymous_id, first_seen_at from identity_map
      where project_id = $project and user_id = $user
    )
    select anonymous_id, min(seen_at) as first_seen_at from seen
    group by anonymous_id
    order by first_seen_at, anonymous_id
"""
