"""The tracker files of a simulated online shop, the same for the same seed, whatever day they begin on.

Two projects: ``shop`` (web through Jitsu, mobile app through Snowplow) and ``blog`` (web only). People browse on
several devices, share some, log in late or never, lose cookies and refuse consent; trackers send events twice, late and
broken. All times are UTC without a zone. Only ``Random(seed)`` decides, and no result depends on the order of a hash.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from uuid import UUID

from stitch_pipeline.landing.parser import write_parquet


class NamedVisitor(NamedTuple):
    """The visitor that the demo follows."""

    project_id: str
    user_id: str
    anonymous_ids: tuple[str, ...]


STORY = NamedVisitor("shop", "u1001", ("maya-laptop-1c9e", "maya-phone-8b42"))
"""Maya browses for five weeks on a laptop (Jitsu) and in the app on a phone (Snowplow), and logs in on
both only in the last three days. Her ids are the same for every seed."""

LAST_DAYS = 3
DAYS = 60
LIBRARY_MEMBERS = 14
HOUR_WEIGHTS = (3, 2, 1, 1, 1, 1, 2, 4, 5, 6, 6, 6, 8, 7, 6, 6, 6, 7, 9, 11, 12, 11, 9, 6)
DEFECTS = {"parquet": ("no_id", "future"), "csv": ("no_id", "future", "bad_time")}
DEFECTS["ndjson"] = DEFECTS["gz"] = (*DEFECTS["csv"], "broken_json")

USER_AGENTS = {
    "laptop": "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "phone": "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/131.0 Mobile Safari/537.36",
    "app": "ShopApp/4.2 (Android 14; Pixel 8)",
    "bot": "Mozilla/5.0 (compatible; ShelfCrawler/2.1; +https://shelf.example/bot)",
}
ARRIVALS = (  # referrer, then utm_source, utm_medium and utm_campaign
    ("", None),
    ("https://www.google.com/", None),
    ("https://blog.example.com/", None),
    ("https://www.google.com/", ("google", "cpc", "spring-sale")),
    ("", ("newsletter", "email", "weekly-digest")),
    ("https://l.instagram.com/", ("instagram", "social", "sneaker-drop")),
)
ARRIVAL_WEIGHTS = (36, 26, 6, 13, 11, 8)
NAMES = ("Amara Costa", "Björn Lund", "Chloé Dubois", "Diego García", "Hana Ito", "Kofi Adler", "Mei Lin")
CATEGORIES = ("shoes", "boots", "jackets", "bags", "socks")
STYLES = ("Alpine", "Harbour", "Coastal", "Urban", "Meadow", "Summit", "Canyon", "Drift")
PRODUCTS = range(101, 141)
POSTS = ("breaking-in-boots", "packing-light", "how-we-test-soles", "winter-layers", "repair-dont-replace")
TITLES = {"/": "Home", "/cart": "Cart", "/checkout": "Checkout", "/signup": "Sign up", "/account": "Account"}
TITLES |= {f"/c/{category}": category.capitalize() for category in CATEGORIES}
TITLES |= {f"/p/{number}": f"{STYLES[number % 8]} {CATEGORIES[number % 5]}" for number in PRODUCTS}
TITLES |= {f"/posts/{post}": post.replace("-", " ").capitalize() for post in POSTS}

ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
CLIENT_SESSION = "contexts_com_snowplowanalytics_snowplow_client_session_1"
SCREEN_VIEW = "unstruct_event_com_snowplowanalytics_mobile_screen_view_1"
SNOWPLOW_TIMES = ("collector_tstamp", "dvce_created_tstamp", "derived_tstamp")
PARQUET_TYPES = dict.fromkeys(SNOWPLOW_TIMES, "TIMESTAMP") | {"se_value": "DOUBLE", "is_bot": "BOOLEAN"}


@dataclass(eq=False)
class Person:
    person_id: str
    traits: dict[str, str] = field(default_factory=dict)
    user_ids: dict[str, str] = field(default_factory=dict)  # by project, whether or not they ever log in
    login_days: dict[str, int] = field(default_factory=dict)  # by project: the day of the first login
    devices: list[Device] = field(default_factory=list)
    logged_in_to: set[str] = field(default_factory=set)
    is_bot: bool = False


@dataclass(eq=False)
class Device:
    """One browser profile or app installation, as one project sees it."""

    project_id: str
    kind: str
    anonymous_id: str
    shared: bool = False
    steady: bool = True  # otherwise a browser may lose its cookie, and an app may upload days late
    consents: bool = True
    blocked_user_id: str | None = None  # what a buggy client sends as the user id when signed out
    signed_in: Person | None = None
    sessions: int = 0
    free_at: datetime = datetime.min


class Visit(NamedTuple):
    at: datetime
    person: Person
    device: Device
    signs_in: bool = False
    bot_pages: int = 0


class Step(NamedTuple):
    kind: str  # page, track, identify or sign_out
    name: str = ""  # the path of a page, the name of a track
    properties: dict[str, Any] = {}  # noqa: RUF012 - never changed, and a tuple has no default factory


class Event(NamedTuple):
    event_id: str | None
    step: Step
    page: dict[str, str]  # as analytics.js describes it
    campaign: tuple[str, str, str] | None
    person: Person
    device: Device
    occurred_at: datetime
    received_at: datetime
    anonymous_id: str | None
    user_id: str | None
    session_id: str
    session_index: int
    defect: str = ""


@dataclass(frozen=True)
class LandedFile:
    path: str  # relative to the landing directory
    lands_on: date
    content: tuple[Event, ...] | bytes = field(repr=False)

    @property
    def rows(self) -> int:
        """The rows that a reader finds, bad rows and copies included; 0 if the file cannot be read."""
        return 0 if isinstance(self.content, bytes) else len(self.content)


@dataclass(frozen=True)
class Shop:
    days: tuple[date, ...]
    files: tuple[LandedFile, ...]  # as they arrive; the last late ones arrive after the last day
    events: tuple[Event, ...] = field(repr=False)  # every valid event once


def simulate(seed: int = 7, first_day: date = date(2025, 1, 1), days: int = DAYS, people: int = 1500) -> Shop:
    """The traffic of ``people`` over ``days`` days, in memory; ``land`` writes its files.

    Another ``first_day`` moves everything by whole days and changes nothing else.
    """
    rng, midnight = Random(seed), datetime.combine(first_day, time())
    visits = [*_story_visits(rng, midnight, days), *_bot_visits(rng, midnight, days)]
    for person in _population(rng, people, days):
        visits += _visits(rng, person, midnight, days)
    visits.sort(key=lambda visit: visit.at)
    # Devices remember who is signed in, so visits are played in the order in which they begin.
    events = [event for visit in visits for event in _events(rng, visit, first_day, midnight + timedelta(days=days))]
    events.sort(key=lambda event: (event.occurred_at, event.event_id))
    calendar = tuple(first_day + timedelta(days=n) for n in range(days))
    files = sorted(_files(rng, events, calendar), key=lambda file: (file.lands_on, file.path))
    return Shop(calendar, tuple(files), tuple(events))


def land(shop: Shop, landing_dir: Path, *, through: date | None = None, after: date | None = None) -> list[Path]:
    """Write the files that arrive in ``(after, through]``, each unbounded by default; returns their paths."""
    written = []
    for file in shop.files:
        if (after and file.lands_on <= after) or (through and file.lands_on > through):
            continue
        path = landing_dir / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        # A sensor may be looking: the file appears under its own name only when it is whole.
        part = path.with_name(f".{path.name}.part")
        _write(file, part)
        # What phones send late arrives after the last day, which may be yesterday: no file is dated in the future.
        landed_at = min(datetime.combine(file.lands_on, time(23, 59, 59), UTC), datetime.now(UTC)).timestamp()
        os.utime(part, (landed_at, landed_at))
        part.replace(path)
        written.append(path)
    return written


@dataclass(frozen=True)
class Truth:
    """The valid events, in three lists of the same order, with the user id of the person if the person ever logs in."""

    project_ids: list[str]
    event_ids: list[str | None]
    user_ids: list[str | None]


def users_of_events(shop: Shop) -> Truth:
    """Who made each valid event."""
    truth = Truth([], [], [])
    for event in shop.events:
        person, project_id = event.person, event.device.project_id
        truth.project_ids.append(project_id)
        truth.event_ids.append(event.event_id)
        truth.user_ids.append(person.user_ids[project_id] if project_id in person.logged_in_to else None)
    return truth


def write_truth(shop: Shop, path: Path) -> None:
    """Write a Parquet file with the person of each valid event, and the user id if the person ever logs in."""
    rows = []
    for event in shop.events:
        person, project_id = event.person, event.device.project_id
        user_id = person.user_ids[project_id] if project_id in person.logged_in_to else None
        ids = {"project_id": project_id, "event_id": event.event_id, "person_id": person.person_id}
        rows.append({**ids, "user_id": user_id, "is_bot": person.is_bot})
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_parquet(rows, path)


def _story_visits(rng: Random, midnight: datetime, days: int) -> Iterator[Visit]:
    traits = {"email": "maya.okafor@mail.example", "name": "Maya Okafor", "plan": "plus"}
    maya = Person("person-maya", traits, {STORY.project_id: STORY.user_id})
    laptop = Device(STORY.project_id, "laptop", STORY.anonymous_ids[0])
    phone = Device(STORY.project_id, "app", STORY.anonymous_ids[1])
    for n, day in enumerate([*range(max(0, days - 38), days - LAST_DAYS, 2), days - 2, days - 1]):
        at = midnight + timedelta(days=day, hours=18, minutes=rng.randrange(60))
        yield Visit(at, maya, (laptop, phone)[n % 2], signs_in=day >= days - LAST_DAYS)


def _bot_visits(rng: Random, midnight: datetime, days: int) -> Iterator[Visit]:
    """A crawler that pauses for half an hour only after more than three days, and a burst every night."""
    crawler, price_watch = Device("shop", "bot", _uuid(rng)), Device("shop", "bot", _uuid(rng))
    evening = midnight + timedelta(days=days // 3, hours=17)
    yield Visit(evening, Person("bot-crawler", is_bot=True), crawler, bot_pages=3000)
    bot = Person("bot-prices", is_bot=True)
    for day in range(days):
        yield Visit(midnight + timedelta(days=day, hours=3), bot, price_watch, bot_pages=20)


def _population(rng: Random, people: int, days: int) -> Iterator[Person]:
    """All people but Maya and the bots. The first share the library's computer, the next come in families."""
    computers = [Device("shop", "laptop", _uuid(rng), shared=True) for _ in range(2 + people // 40)]
    sharing = computers[:1] * LIBRARY_MEMBERS + [computer for computer in computers[1:] for _ in range(2)]
    for n in range(people):
        email, plan = f"customer{n}@mail.example", rng.choice(("free", "free", "plus"))
        person = Person(f"person-{n:05d}", {"email": email, "name": rng.choice(NAMES), "plan": plan})
        # Each project numbers its own users, so the same id in both is two people.
        person.user_ids = {"shop": f"u{2000 + n}", "blog": f"u{2000 + (n + people // 3 + 1) % people}"}
        shared = sharing[n : n + 1]
        kinds = [("shop", kind) for kind in ("laptop", "phone", "app") if rng.random() < 0.54]
        if rng.random() < 0.30 or not kinds:
            kinds.append(("blog", rng.choice(("laptop", "phone"))))
        for project_id, kind in kinds:
            blocked_id = rng.choices((None, "null", "undefined", ""), (96, 1, 1, 2))[0]
            device = Device(project_id, kind, _uuid(rng), blocked_user_id=blocked_id)
            device.steady, device.consents = False, rng.random() > 0.05
            person.devices.append(device)
        person.devices += shared * 2
        for project_id in sorted({device.project_id for device in person.devices}):
            # Half log in at some time before the last days, one in seven in them, the others never.
            draw = rng.random() * (0.5 if shared else 1.0)
            if draw < 0.64:
                span = (0, days - LAST_DAYS) if draw < 0.5 else (days - LAST_DAYS, days)
                person.login_days[project_id] = rng.randrange(*span)
        yield person


def _visits(rng: Random, person: Person, midnight: datetime, days: int) -> Iterator[Visit]:
    def at(day: int) -> datetime:
        hour = rng.choices(range(24), HOUR_WEIGHTS)[0]
        return midnight + timedelta(days=day, hours=hour, milliseconds=rng.randrange(3_600_000))

    first_day = rng.choice((0, 0, rng.randrange(days)))
    for _ in range(max(1, round(rng.lognormvariate(2.6, 0.75) * days / 60))):
        device, day = rng.choice(person.devices), rng.randrange(first_day, days)
        signs_in = rng.random() < (0.85 if device.shared else 0.45)
        signs_in &= day >= person.login_days.get(device.project_id, days)
        yield Visit(at(day), person, device, signs_in)
    for project_id, day in person.login_days.items():
        own = [device for device in person.devices if device.project_id == project_id]
        yield Visit(at(day), person, rng.choice([device for device in own if device.shared] or own), True)


def _events(rng: Random, visit: Visit, first_day: date, end: datetime) -> Iterator[Event]:
    """What the trackers see of one visit."""
    person, device, project_id = visit.person, visit.device, visit.device.project_id
    is_app = device.kind == "app"
    if not (device.steady or is_app) and rng.random() < 0.015:
        device.anonymous_id, device.signed_in = _uuid(rng), None
    if device.signed_in is not person:
        device.signed_in = None
    device.sessions += 1
    session_id = _uuid(rng)
    at = max(visit.at, device.free_at)
    is_late = is_app and not device.steady and rng.random() < 0.12
    days_late = 1 + ((at.date() - first_day).days + 1) % 3 if is_late else 0
    referrer, campaign = rng.choices(ARRIVALS, ARRIVAL_WEIGHTS)[0]
    for step in _steps(rng, visit):
        if at >= end:
            return
        if step.kind == "sign_out":
            device.signed_in = None
            continue
        if step.kind == "identify":
            device.signed_in = person
            person.logged_in_to.add(project_id)
            if is_app:  # has no such event: it sends the user id from here on
                continue
        if step.kind == "page":
            search = "?utm_source={}&utm_medium={}&utm_campaign={}".format(*campaign) if campaign else ""
            url = f"https://{project_id}.example.com{step.name}{search}"
            page = {"url": url, "path": step.name, "title": TITLES[step.name]}
            page |= {"referrer": referrer, "search": search}
            referrer, page_campaign, campaign = url, campaign, None
        received_at = at + timedelta(days=days_late, milliseconds=rng.randrange(80, 2500))
        event_id = _uuid(rng) if is_app else f"{rng.getrandbits(80):020x}"
        user_id = device.signed_in.user_ids[project_id] if device.signed_in else device.blocked_user_id
        sent_ids = (device.anonymous_id if device.consents else None, user_id, session_id, device.sessions)
        yield Event(event_id, step, page, page_campaign, person, device, at, received_at, *sent_ids)
        # Always shorter than the gap that ends a session.
        seconds = min(rng.lognormvariate(3.7, 1.2), 1700) if step.kind == "page" else rng.uniform(0.3, 4)
        at += timedelta(milliseconds=1 + int(1000 * seconds))
    device.free_at = at + timedelta(minutes=rng.randrange(31, 90))


def _steps(rng: Random, visit: Visit) -> list[Step]:
    person, device = visit.person, visit.device
    if visit.bot_pages:
        return [Step("page", f"/p/{rng.choice(PRODUCTS)}") for _ in range(visit.bot_pages)]
    steps = _shop_steps(rng)
    if device.project_id == "blog":
        steps = [Step("page", f"/posts/{rng.choice(POSTS)}") for _ in range(rng.randrange(1, 5))]
    if visit.signs_in and not device.signed_in:
        login = [Step("page", "/account"), Step("identify"), Step("page", "/")]
        if device.project_id not in person.logged_in_to:
            login = [Step("page", "/signup"), Step("identify"), Step("track", "signup")]
        position = rng.randrange(1, len(steps) + 1)
        steps[position:position] = login
    if rng.random() < (0.9 if device.shared else 0.1) and (visit.signs_in or device.signed_in):
        steps += [Step("sign_out"), *[Step("page", "/")] * rng.randrange(3)]
    return steps


def _shop_steps(rng: Random) -> list[Step]:
    landing = rng.choice(("/", "/", f"/c/{rng.choice(CATEGORIES)}", f"/p/{rng.choice(PRODUCTS)}"))
    steps, cart = [Step("page", landing)], []
    for _ in range(min(14, int(rng.expovariate(1 / 5)))):
        number = rng.choice(PRODUCTS)
        looks_closely = rng.random() < 0.6
        steps.append(Step("page", f"/p/{number}" if looks_closely else f"/c/{rng.choice(CATEGORIES)}"))
        if looks_closely and rng.random() < 0.18:
            cart.append(19.0 + number % 7 * 15)
            properties = {"product_id": str(number), "price": cart[-1], "currency": "EUR"}
            steps.append(Step("track", "added_to_cart", properties))
    if cart and rng.random() < 0.45:
        order = Step("track", "completed_checkout", {"revenue": sum(cart), "currency": "EUR"})
        steps += [Step("page", "/cart"), Step("page", "/checkout"), order]
    return steps


def _files(rng: Random, events: list[Event], calendar: tuple[date, ...]) -> Iterator[LandedFile]:
    contents: dict[tuple[str, date], list[Event]] = {}
    for event in events:
        day = event.occurred_at.date()
        contents.setdefault(_file(event, day, calendar[0]), []).append(event)
        resent_on = day + timedelta(days=rng.randrange(2))
        if rng.random() < 0.012 and resent_on <= calendar[-1]:
            again = event._replace(received_at=event.received_at + (resent_on - day) + timedelta(seconds=2))
            contents.setdefault(_file(event, resent_on, calendar[0]), []).append(again)
    for n, ((path, lands_on), rows) in enumerate(contents.items()):
        if n % 2 == 0:
            defects = DEFECTS[path.rpartition(".")[2]]
            defect, event = defects[n // 2 % len(defects)], rng.choice(rows)
            bad_id = None if defect == "no_id" else f"bad-{rng.getrandbits(64):016x}"
            shift = timedelta(days=10 if defect == "future" else 0)
            rows.append(event._replace(event_id=bad_id, occurred_at=event.occurred_at + shift, defect=defect))
        yield LandedFile(path, lands_on, tuple(rows))
    cut_off = b"PAR1 this upload was cut off before its footer"
    yield LandedFile("jitsu/shop/retry.ndjson.gz", calendar[len(calendar) // 3], cut_off)
    yield LandedFile("snowplow/retry.parquet", calendar[len(calendar) // 2], cut_off)


def _file(event: Event, day: date, first_day: date) -> tuple[str, date]:
    """Path and day of arrival: one file per day, and others for what offline phones send days late."""
    number = (day - first_day).days
    if event.device.kind != "app":
        return f"jitsu/{event.device.project_id}/{day}.ndjson{'.gz' if number % 7 in (3, 4) else ''}", day
    days_late = (event.received_at - event.occurred_at).days
    late = f"-late-{days_late}d" if days_late else ""
    suffix = ("csv", "ndjson", "parquet")[number % 3]
    return f"snowplow/{day}{late}.{suffix}", day + timedelta(days=days_late)


def _write(file: LandedFile, path: Path) -> None:
    if isinstance(file.content, bytes):
        path.write_bytes(file.content)
    elif ".ndjson" in file.path:
        text = "".join(_line(event) for event in file.content).encode()
        path.write_bytes(gzip.compress(text, 6, mtime=0) if file.path.endswith(".gz") else text)
    else:
        rows = [_snowplow_row(event, " ", "") for event in file.content]
        for row in rows:
            row |= {key: ENCODE(row[key]) for key in (CLIENT_SESSION, SCREEN_VIEW) if row[key]}
        if file.path.endswith(".parquet"):
            _write_parquet(rows, path)
            return
        with path.open("w", encoding="utf-8", newline="") as text_file:
            writer = csv.DictWriter(text_file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _jitsu_row(event: Event) -> dict[str, Any]:
    kind, name, properties = event.step
    occurred_at = event.occurred_at.isoformat(timespec="milliseconds") + "Z"
    context: dict[str, Any] = {"page": event.page, "userAgent": USER_AGENTS[event.device.kind]}
    context |= {"locale": "en-GB", "library": {"name": "@jitsu/js", "version": "1.9.18"}}
    if event.campaign:
        context["campaign"] = dict(zip(("source", "medium", "name"), event.campaign, strict=True))
    return {
        "messageId": event.event_id,
        "type": kind,
        "event": name if kind == "track" else None,
        "timestamp": "not-a-time" if event.defect == "bad_time" else occurred_at,
        "sentAt": occurred_at,
        "receivedAt": event.received_at.isoformat(timespec="milliseconds") + "Z",
        "projectId": event.device.project_id,
        "anonymousId": event.anonymous_id,
        "userId": event.user_id,
        "traits": event.person.traits if kind == "identify" else None,
        "properties": properties,
        "context": context,
    }


def _snowplow_row(event: Event, date_separator: str, zone: str) -> dict[str, Any]:
    step, page = event.step, event.page
    # The checkout is a web view inside the app.
    kind = "struct" if step.kind == "track" else "page_view" if page["path"] == "/checkout" else "unstruct"
    name = {"struct": "event", "unstruct": "screen_view"}.get(kind, kind)
    row: dict[str, Any] = {"app_id": event.device.project_id, "platform": "mob"}
    for column in SNOWPLOW_TIMES:
        at = event.received_at if column == "collector_tstamp" else event.occurred_at
        written = at.isoformat(date_separator, "milliseconds") + zone
        row[column] = "not-a-time" if event.defect == "bad_time" else written
    row |= {"event": kind, "event_name": name, "event_id": event.event_id, "user_id": event.user_id}
    row |= dict.fromkeys(("domain_userid", "domain_sessionid", "network_userid"))
    for column, key in (("url", "url"), ("title", "title"), ("urlpath", "path"), ("referrer", "referrer")):
        row[f"page_{column}"] = page[key] if kind == "page_view" else None
    campaign = event.campaign or (None, None, None)
    row |= zip(("mkt_source", "mkt_medium", "mkt_campaign"), campaign, strict=True)
    value = step.properties.get("revenue", step.properties.get("price"))
    action = ("shop", step.name, value) if kind == "struct" else [None] * 3
    row |= zip(("se_category", "se_action", "se_value"), action, strict=True)
    session = {"sessionId": event.session_id, "sessionIndex": event.session_index}
    context = [{"userId": event.anonymous_id} | session] if event.anonymous_id else None
    screen = {"id": event.event_id, "name": page["title"]} if kind == "unstruct" else None
    return row | {"useragent": USER_AGENTS["app"], CLIENT_SESSION: context, SCREEN_VIEW: screen}


def _line(event: Event) -> str:
    row = _snowplow_row(event, "T", "Z") if event.device.kind == "app" else _jitsu_row(event)
    line = ENCODE({key: value for key, value in row.items() if value is not None})
    return (line[: len(line) // 2] if event.defect == "broken_json" else line) + "\n"


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    write_parquet(rows, {name: PARQUET_TYPES.get(name, "VARCHAR") for name in rows[0]}, path)


def _uuid(rng: Random) -> str:
    return str(UUID(int=rng.getrandbits(128), version=4))
