"""The widely used way to stitch, written down once more in a few lines, to show where it goes wrong.

Each batch of events updates a mapping from cookie to the latest user of the batch; sessions are made from the
batch's events; then a hook sets the user of every session of the past from the mapping. To keep batches small,
what arrives more than three days late is left out, and so is what a session gets after its third day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import duckdb

_TABLES = """
create table batch (
  event_id varchar, occurred_at timestamp, received_at timestamp, cookie varchar, user_id varchar, session varchar
);
create table session_events (event_id varchar, session varchar, occurred_at timestamp);
create table sessions (session varchar primary key, cookie varchar, started_at timestamp, stitched_user_id varchar);
create table user_mapping (cookie varchar primary key, user_id varchar);
"""

_PROCESS_BATCH = """
delete from batch where received_at - occurred_at > interval 3 days;

delete from batch using (
  select session, min(occurred_at) as started_at
  from (select session, occurred_at from batch union all select session, started_at from sessions)
  group by session
) as started
where batch.session = started.session and batch.occurred_at - started.started_at > interval 3 days;

insert or ignore into sessions
select session, arg_min(cookie, occurred_at), min(occurred_at), null from batch group by session;

insert into session_events select event_id, session, occurred_at from batch;

insert or replace into user_mapping
select cookie, arg_max(user_id, received_at) from batch where user_id is not null group by cookie;

update sessions set stitched_user_id = user_mapping.user_id
from user_mapping where sessions.cookie = user_mapping.cookie;

delete from batch;
"""


def credited_users(batches: Iterable[Iterable[Mapping[str, Any]]]) -> dict[str, str]:
    """Who each event is credited to through its session; events that were left out are not there."""
    with duckdb.connect() as con:
        con.execute("set threads = 1")  # the rows are read in the order in which they came
        con.execute(_TABLES)
        for batch in batches:
            for event in batch:
                session = event["source_session_id"] or f"{event['anonymous_id']} {event['occurred_at'].date()}"
                con.execute(
                    "insert into batch values (?, ?, ?, ?, ?, ?)",
                    [
                        event["event_id"],
                        event["occurred_at"],
                        event["received_at"],
                        event["anonymous_id"],
                        event["user_id"],
                        session,
                    ],
                )
            con.execute(_PROCESS_BATCH)
        return dict(
            con.execute(
                "select event_id, coalesce(stitched_user_id, cookie) from session_events join sessions using (session)"
            ).fetchall()
        )
