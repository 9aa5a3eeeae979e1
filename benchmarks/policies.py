"""Which policy credits rightly: simulated people of whom everything is known, under every policy.

``python benchmarks/policies.py [PEOPLE]``, where PEOPLE is the number of people per population (by default 300). Each
population is one project:

- `owners`: each has a laptop and a phone to themselves;
- `households`: two to four people share a tablet, and each has a phone;
- `turns`: two people share a laptop and use it on alternate days;
- `library`: eight readers share a computer, fewer than make it a shared device by default;
- `two accounts`: each has devices to themselves, and two user ids that are used in turn.

A person visits every third day on average, over 60 days, and views six pages per visit. Two thirds of the people have
an account. In a third of their visits they log in after some pages, and the pages after that carry the user id. Logging
out is not sent: the next visit begins without a user id.

Of a policy it counts `rightly`, the share of the events credited to a user that are credited to who caused them; and
`found`, the share of the events of people with an account that are.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Any

from fresh_process import Deployment, large_scratch
from results import keep

from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching.views import rules_trial

FIRST_DAY = date(2026, 1, 1)
DAYS = 60
PAGES = 6
ACCOUNTS, LOGINS, VISITS = 2 / 3, 1 / 3, 1 / 3
"""The share of people with an account, of their visits with a login, and of days with a visit."""
POPULATIONS = ("owners", "households", "turns", "library", "two accounts")
LINK_POLICIES = ("latest", "first", "device_split", "next_identify")
VARIANTS: tuple[tuple[str, dict[str, Any], tuple[str, ...]], ...] = (
    ("", {"keep_own_user": False}, LINK_POLICIES),
    (", own users kept", {"keep_own_user": True}, ("latest", "first")),
    ("", {"policy": "graph"}, ("graph",)),
    (", unique users", {"policy": "graph", "unique_identifiers": ("user",)}, ("graph",)),
)
"""What follows a policy's name, other rules, and the policies that are tried with them."""


Truth = dict[tuple[str, str], list[str]]
"""By project and event the user ids of the person; none for a person without an account."""


def simulate(population: str, people: int, random: Random) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Each event as Jitsu sends it, with the user ids of who caused it."""
    for group, members in enumerate(_groups(population, people, random)):
        for member, users in enumerate(members):
            for day in range(DAYS):
                if random.random() >= VISITS or (population == "turns" and day % 2 != member):
                    continue
                device = _device(population, group, member, random)
                start = datetime.combine(FIRST_DAY + timedelta(days=day), time(random.randrange(8, 22), tzinfo=UTC))
                user = users[day % len(users)] if users and random.random() < LOGINS else None
                login = random.randrange(1, PAGES)
                minute = random.randrange(40)
                for page in range(PAGES):
                    at = start + timedelta(minutes=minute + page, seconds=random.randrange(60))
                    event_id = f"{group}-{member}-{day}-{page}"
                    is_known = user is not None and page >= login
                    yield (
                        {
                            "messageId": event_id,
                            "projectId": population,
                            "type": "identify" if is_known and page == login else "page",
                            "timestamp": at.isoformat(),
                            "anonymousId": device,
                            "userId": user if is_known else None,
                        },
                        users,
                    )


def _groups(population: str, people: int, random: Random) -> Iterator[list[list[str]]]:
    """Who shares devices: of each person the user ids."""
    sizes = {"owners": (1,), "households": (2, 3, 4), "turns": (2,), "library": (8,), "two accounts": (1,)}[population]
    count = 0
    while count < people:
        group = []
        for _ in range(random.choice(sizes)):
            accounts = (2 if population == "two accounts" else 1) if random.random() < ACCOUNTS else 0
            group.append([f"u{count}-{number}" for number in range(accounts)])
            count += 1
        yield group


def _device(population: str, group: int, member: int, random: Random) -> str:
    own = f"phone-{group}-{member}"
    shared = f"shared-{group}"
    if population in ("turns", "library"):
        return shared
    return random.choice((own, shared))


def measure(people: int) -> dict[str, Any]:
    """The two shares of each policy, by population."""
    random = Random(7)
    truth: Truth = {}
    found: dict[str, dict[str, Any]] = {population: {} for population in POPULATIONS}
    with large_scratch() as scratch:
        deployment = Deployment.create(scratch / "deployment", STITCH_START_DATE=str(FIRST_DAY))
        (deployment.landing_dir / "jitsu").mkdir()
        with (deployment.landing_dir / "jitsu" / "all.ndjson").open("w") as file:
            for population in POPULATIONS:
                for event, users in simulate(population, people, random):
                    file.write(json.dumps(event) + "\n")
                    truth[population, event["messageId"]] = users
        deployment.settle("--view-stitching")
        os.environ.update(deployment.environment)
        settings = Settings.load()
        for suffix, rules, policies in VARIANTS:
            with rules_trial(settings, ["policy_preview_events"]) as trial:
                trial.follow({name: settings.rules(name).changed_by(rules) for name in POPULATIONS}, ())
                for policy in policies:
                    answers = trial.warehouse.rows(
                        "select project_id, event_id, case when stitched_by in ('own', 'link before', 'link after') "
                        "then stitched_user_id end from policy_preview_events where policy = $policy",
                        policy=policy,
                    )
                    for population in POPULATIONS:
                        own = [answer for answer in answers if answer[0] == population]
                        found[population][policy + suffix] = _shares(own, truth)
    return {"people_per_population": people, "events": len(truth), "populations": found}


def _shares(answers: Iterable[tuple[str, str, str | None]], truth: Truth) -> dict[str, float]:
    credited = rightly = of_accounts = 0
    for project, event, user in answers:
        users = truth[project, event]
        of_accounts += bool(users)
        credited += user is not None
        rightly += user in users
    return {"rightly": round(rightly / credited, 4), "found": round(rightly / of_accounts, 4)}


def main() -> None:
    people = int(float(sys.argv[1])) if len(sys.argv) > 1 else 300
    keep("policies", measure(people))


if __name__ == "__main__":
    main()
