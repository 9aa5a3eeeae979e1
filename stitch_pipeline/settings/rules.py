"""The stitching rules: declared once, here.

A field of ``StitchingRules`` is an environment variable (``STITCH_POLICY``), a key of ``stitch.toml``, a column of the
table ``project_settings`` and a row of ``stitch settings``. Its ``Scope`` says where else it may be set: for one run in
the launchpad, or in a preview. Its docstring is its description everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from stitch_pipeline.settings.errors import SettingsError
from stitch_pipeline.sources.paths import Key, parse_path

NONE = "none"
"""The text for a list or a table without entries."""
UNLIMITED_DAYS = 36_500
"""The number of days that means "unlimited" in the warehouse and the launchpad. Python has None for it, text
``unlimited``."""


_MINUTES = {"h": 60, "m": 1}
_BY_THE_CLOCK = re.compile(r"(\d{1,9}) ?(h|m)(?:ours?|inutes?)?")


def window_of(value: Any) -> int | str | None:
    """A window as settings hold it: whole UTC days; hours or minutes, as ``24h`` or ``30m``; or None for unlimited.

    Raises ValueError for anything else.
    """
    if value in (None, "", "null", "none", "unlimited", UNLIMITED_DAYS, str(UNLIMITED_DAYS)):
        return None
    text = str(value).strip()
    if text.isdecimal() and not isinstance(value, bool) and int(text) <= UNLIMITED_DAYS:
        return int(text)
    found = _BY_THE_CLOCK.fullmatch(text)
    if found and int(found[1]) * _MINUTES[found[2]] <= UNLIMITED_DAYS * 24 * 60:
        return f"{int(found[1])}{found[2]}"
    raise ValueError(f"must be a number of days (0 to {UNLIMITED_DAYS}), hours as 24h, minutes as 30m, or unlimited")


Days = Annotated[int, Field(ge=0, le=UNLIMITED_DAYS)]
_WINDOW = BeforeValidator(
    window_of,
    json_schema_input_type=(
        Days | Literal["unlimited"] | Annotated[str, Field(pattern=f"^{_BY_THE_CLOCK.pattern}$")] | None
    ),
)
Window = Annotated[int | str | None, _WINDOW]
"""A span of time before or after a row, as ``window_of`` returns it."""


class Policy(StrEnum):
    """The rule that picks the stitched user. Each is one file in ``dbt_project/macros/stitch/policies``."""

    # Members are named as their values, because the launchpad offers and accepts the names of an enum's members.
    latest = "latest"
    first = "first"
    device_split = "device_split"
    next_identify = "next_identify"
    graph = "graph"


@dataclass(frozen=True)
class Scope:
    """Where a rule may be set, apart from the settings."""

    one_run: bool = False
    """In the launchpad, for the rows that one run writes."""
    preview: bool = False
    """In a preview, because no link and no session depends on it."""


class StitchingRules(BaseModel):
    """How anonymous history is credited. Each project may set each field."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    stitching: bool = True
    """Off: the project is not stitched, and every row keeps its own device id."""
    session_stitching: Annotated[bool, Scope(one_run=True)] = True
    """Off: sessions keep their device id."""
    policy: Annotated[Policy, Scope(one_run=True, preview=True)] = Policy.latest
    """Which link of a device decides."""
    keep_own_user: Annotated[bool, Scope(one_run=True, preview=True)] = True
    """A row with a user id is credited to that user. Off: under `latest` and `first` a link goes before it."""
    lookback_days: Annotated[Window, Scope(one_run=True, preview=True)] = 30
    """Days before a login within which anonymous rows are credited, `unlimited`, or a time as `24h` or `30m`."""
    carry_forward_days: Annotated[Window, Scope(preview=True)] = None
    """Days after a link within which rows of the device are credited, `unlimited`, or a time as `24h` or `30m`."""
    max_users_per_device: Annotated[int, Field(ge=1), Scope(preview=True)] = 10
    """With more users than this within the window, a device is shared and its anonymous rows stay anonymous."""
    link_on: Literal["any", "identify"] = "any"
    """Which events link a device to a user: `any` event with both ids, or only `identify`, `alias` and `merge`."""
    max_ids_per_person: Annotated[int, Field(ge=2), Scope(preview=True)] = 1000
    """Under `graph`, a person of several users with more ids than this (devices count) is split into its users."""
    count_people_without_devices: bool = False
    """On: people who have only events without a device on a day are visitors of that day in `visitor_stats`."""
    same_browser_seconds: Annotated[int, Field(ge=0)] = 60
    """`device_pairs` names two devices of a person if one goes on where the other stopped, within this time."""


def rules_with(scope: Literal["one_run", "preview"]) -> tuple[str, ...]:
    """The names of the rules with this scope."""
    return tuple(
        name
        for name, field in ProjectSettings.model_fields.items()
        for item in field.metadata
        if isinstance(item, Scope) and getattr(item, scope)
    )


def as_stored(name: str, value: Any) -> dict[str, Any]:
    """A rule's value as the warehouse stores it: by column, in their order.

    A window has two columns, one for days and one for minutes, of which one is None.
    """
    if not is_window(name):
        return {name: value}
    minutes = name.removesuffix("_days") + "_minutes"
    if isinstance(value, str):
        return {name: None, minutes: int(value[:-1]) * _MINUTES[value[-1]]}
    return {name: UNLIMITED_DAYS if value is None else value, minutes: None}


def is_window(name: str) -> bool:
    """Whether the rule is a window of time."""
    return _WINDOW in ProjectSettings.model_fields[name].metadata


def as_text(value: Any) -> str:
    """A rule's value as a person writes it."""
    if isinstance(value, tuple):
        return ", ".join(value) or NONE
    if isinstance(value, Mapping):
        limits = [f"{kind}.{other}={count}" for kind, own in value.items() for other, count in own.items()]
        return ", ".join(limits) or NONE
    return "unlimited" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _kinds(value: Any) -> Any:
    """Kinds as text, as ``as_text`` writes them."""
    return tuple(part.strip() for part in value.split(",") if value != NONE) if isinstance(value, str) else value


def _limits(value: Any) -> Any:
    """Limits as text, as ``as_text`` writes them."""
    if not isinstance(value, str):
        return value
    limits: dict[str, dict[str, str]] = {}
    for part in value.split(",") if value != NONE else ():
        names, _, count = part.partition("=")
        kind, dot, other = names.strip().partition(".")
        if not dot or not count:
            raise ValueError("must be written as user.device=5, email.per_person=1, or none")
        limits.setdefault(kind, {})[other] = count.strip()
    return limits


# What Python, RE2 (DuckDB) and PostgreSQL read alike. A pattern must match a whole value, so it needs no anchors.
_PLAIN_ESCAPE = re.compile(r"\\([dDsSwWntr]|[^\w\s])")
_LIST = re.compile(r"\[\^?[^\]]+\]")
_OTHER_ESCAPE = re.compile(r"\\.")
_NOT_PLAIN = re.compile(r"\(\?(?!:).?|[*+?}]\+|\{,")
_CLASS = re.compile(r"\[[:.=]|\[\^?\]")


def _is_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"'{value}' is no regular expression: {error}") from None
    rest = _PLAIN_ESCAPE.sub("_", value)
    if found := _OTHER_ESCAPE.search(rest) or _NOT_PLAIN.search(_LIST.sub("_", rest)) or _CLASS.search(value):
        raise ValueError(f"'{value}' has {found[0]}, which engines read in different ways or not at all: avoid it")
    return value


Pattern = Annotated[str, AfterValidator(_is_pattern)]
"""A regular expression that must match a whole value."""
Several = BeforeValidator(_several, json_schema_input_type=str | list[str])
Paths = Annotated[tuple[str, ...], Several, Field(min_length=1)]
Kinds = BeforeValidator(_kinds, json_schema_input_type=str | list[str])
Limits = BeforeValidator(_limits)

OWN_KINDS = ("user", "device")
"""The kinds of ids that every project has; ``identifiers`` adds more."""
PER_PERSON = "per_person"
"""The key of ``limits`` for the number of values of a kind that one person may have."""
MAX_UNIQUE_IDENTIFIERS = 3
"""Each unique kind is one more cut of the graph (``macros/graph/cuts.sql``), so their number is limited."""


class IdentifierSettings(BaseModel):
    """One ``[projects.<project_id>.identifiers.<kind>]`` table: where an event holds, say, an e-mail address."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    paths: Paths
    """Fields of ``traits`` or ``properties``, such as ``traits.email``, or what the source calls an identifier, such as
    ``identifiers.device_id``; the first with a value wins."""
    normalise: Annotated[tuple[Literal["trim", "lower", "digits"], ...], Several] = ("trim",)
    """Steps before a value is compared: trim white space, convert to lower case, keep only digits."""
    valid: Pattern | None = None
    """A regular expression: a value counts only if the whole of it matches."""
    blocked: Annotated[tuple[Pattern, ...], Several] = ()
    """Regular expressions: a value does not count if the whole of it matches one."""

    @field_validator("paths")
    @classmethod
    def _are_known_places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            place, _, field = path.partition(".")
            if place not in ("traits", "properties", "identifiers") or not field:
                raise ValueError(
                    f"'{path}' is no place to look: write traits.<field>, properties.<field> or identifiers.<kind>"
                )
            segments = parse_path(field)
            is_plain = bool(segments) and all(isinstance(segment, Key) for segment in segments)
            # These two have a meaning in paths of DuckDB's JSON functions.
            if not is_plain or "*" in field or "\\" in field:
                raise ValueError(f"'{path}' is no plain path: write names joined by dots, as traits.address.email")
        return value


class ProjectSettings(StitchingRules):
    """One ``[projects.<project_id>]`` table: the rules, and the settings that only projects have."""

    blocked_ids: tuple[str, ...] = ()
    """Values that are not an identity, in addition to the built-in list."""
    blocked_patterns: Annotated[tuple[Pattern, ...], Several] = ()
    """Regular expressions: a device or user id is not an identity if the whole of it matches one."""
    conversion_events: tuple[str, ...] = ("signup", "completed_checkout")
    """Names of the events that `user_conversions` reports, in funnel order."""
    identifiers: dict[str, IdentifierSettings] = {}
    """Under `graph`, further kinds of ids (such as `email`) that tie devices and users together."""
    unique_identifiers: Annotated[tuple[str, ...], Kinds, Scope(preview=True)] = ()
    """Under `graph`, kinds of ids with only one value per person."""
    limits: Annotated[dict[str, dict[str, Annotated[int, Field(ge=1)]]], Limits, Scope(preview=True)] = {}
    """Under `graph`, by kind of id: how many ids of other kinds it may be tied to, and `per_person`."""
    contested_ids: Annotated[Literal["nobody", "first"], Scope(preview=True)] = "nobody"
    """Under `graph`, who gets an id that is equally near to two persons: `nobody`, or who was seen `first`."""
    hash_key: str = ""
    """The environment variable with the key by which ids are hashed when they are loaded; by default they are not."""

    @property
    def resolves_persons(self) -> bool:
        """Whether the project's ids are resolved to persons."""
        return self.stitching and self.policy == Policy.graph

    def changed_by(self, rules: Mapping[str, Any]) -> ProjectSettings:
        """These settings with other values for some rules, by name. Raises SettingsError for an invalid value."""
        try:
            return ProjectSettings.model_validate({**self.model_dump(), **rules})
        except ValidationError as error:
            raise SettingsError(sentences(error, ProjectSettings)) from None

    @field_validator("identifiers")
    @classmethod
    def _have_names(cls, value: dict[str, IdentifierSettings]) -> dict[str, IdentifierSettings]:
        for kind in value:
            if kind in OWN_KINDS or not kind.isidentifier():
                raise ValueError(f"'{kind}' cannot name a kind of identifier: take another word, such as email")
        return value

    @field_validator("hash_key")
    @classmethod
    def _names_a_variable(cls, value: str) -> str:
        if re.fullmatch(r"[0-9A-Fa-f]{32,}", value):
            raise ValueError("is a key: put it into an environment variable, and its name here")
        if value and (not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value) or value.startswith("STITCH_")):
            raise ValueError("is no name of a variable: write one such as SHOP_HASH_KEY, without STITCH_ in front")
        return value

    @property
    def values_per_person(self) -> dict[str, int]:
        """How many values of a kind one person may have, by kind, in the order in which persons are cut."""
        limits = {kind: own[PER_PERSON] for kind, own in self.limits.items() if PER_PERSON in own}
        return {**dict.fromkeys(self.unique_identifiers, 1), **limits}

    @model_validator(mode="after")
    def _kinds_are_known(self) -> ProjectSettings:
        known = ("user", *self.identifiers)
        if unknown := [kind for kind in self.unique_identifiers if kind not in known]:
            raise ValueError(f"unique_identifiers names '{unknown[0]}'; the kinds are: {', '.join(known)}")
        for kind, limits in self.limits.items():
            if kind not in ("device", *known):
                raise ValueError(f"limits names '{kind}'; the kinds are: device, {', '.join(known)}")
            self._check_limits(kind, limits)
        if len(self.values_per_person) > MAX_UNIQUE_IDENTIFIERS:
            raise ValueError(
                f"unique_identifiers and limits may name {MAX_UNIQUE_IDENTIFIERS} kinds with values per person"
            )
        if self.hash_key:
            ways: dict[str, tuple[object, ...]] = {}
            for own in self.identifiers.values():
                for path in own.paths:
                    way = (own.normalise, own.valid, own.blocked)
                    if ways.setdefault(path, way) != way:
                        raise ValueError(
                            f"{path} is read in two ways (normalise, valid, blocked), and with hash_key it holds one "
                            "hash: take one away"
                        )
        return self

    def _check_limits(self, kind: str, limits: Mapping[str, int]) -> None:
        if kind == "device":  # `max_users_per_device` is another rule, which every policy has
            allowed = [*self.identifiers]
        else:
            allowed = ["device", *(self.identifiers if kind == "user" else ["user"]), PER_PERSON]
        for name, count in limits.items():
            if (kind, name) == ("device", "user"):
                raise ValueError("limits.device.user is no limit of its own: set max_users_per_device")
            if name not in allowed:
                raise ValueError(f"limits.{kind} names '{name}'; it can limit: {', '.join(allowed) or 'no kind yet'}")
            if name == PER_PERSON and kind in self.unique_identifiers and count != 1:
                raise ValueError(f"limits.{kind}.{PER_PERSON} = {count}, but unique_identifiers names '{kind}'")


# An address that may have a password, where none is expected.
_SECRET = re.compile(r"://[^/\s]*@|password=")


def sentences(
    error: ValidationError,
    model: type[BaseModel],
    *,
    named: Callable[[str], str] = str,
    secrets: Collection[str] = (),
) -> str:
    """The error as text, a sentence for each wrong key of ``model``: the key, its value and what is expected.

    ``named`` returns a key as a person wrote it. The values of the keys in ``secrets`` are left out.
    """

    def sentence(item: Any) -> str:
        path = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            *above, key = item["loc"]
            return f"{named(path)} is not a setting{did_you_mean(str(key), _keys_at(model, above))}"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "tuple_type":
            message = "is neither a text nor a list of texts"
        if isinstance(item["input"], Mapping) and item["type"] == "value_error":  # of a whole table
            return f"{named(path)}: {message}." if path else f"{message}."
        is_secret = path in secrets or path.endswith("hash_key") or _SECRET.search(str(item["input"]))
        value = "(secret)" if is_secret else repr(str(item["input"]))
        return f"{named(path)} = {value}: {message[0].lower()}{message[1:]}."

    return " ".join(dict.fromkeys(sentence(item) for item in error.errors()))


def did_you_mean(name: str, known: Iterable[str], *, written: Callable[[str], str] = str) -> str:
    """The end of a sentence on an unknown name: the known name that is nearest, or where the names are listed.

    ``written`` returns a name as a person writes it.
    """
    nearest = get_close_matches(name, sorted(known), n=1)
    if nearest:
        return f": did you mean {written(nearest[0])}?"
    return ": `stitch settings --markdown` lists the settings."


def _keys_at(model: type[BaseModel], path: Sequence[Any]) -> Sequence[str]:
    """The keys of the table at this path: models have fields, and a dict has one model for all of its keys."""
    found: Any = model
    for part in path:
        is_model = isinstance(found, type) and issubclass(found, BaseModel)
        if is_model and part not in found.model_fields:
            return ()
        found = found.model_fields[part].annotation if is_model else get_args(found)[-1] if get_args(found) else None
    return tuple(found.model_fields) if isinstance(found, type) and issubclass(found, BaseModel) else ()
