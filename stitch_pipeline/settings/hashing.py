"""Hashed ids: projects whose ids are loaded as keyed hashes (HMAC-SHA256), and the keys.

``hash_key`` of a project names the environment variable that holds its key. The key stands nowhere else: whoever
destroys it leaves hashes from which no id can be found. What people write, such as a decision, has the id itself, and
is hashed where it is read.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from stitch_pipeline.settings.decisions import Decision, DecisionKind
from stitch_pipeline.settings.errors import SettingsError
from stitch_pipeline.settings.forgotten import is_pseudonym
from stitch_pipeline.settings.rules import ProjectSettings

PREFIX = "hashed:"
"""Begins every hashed id. People may write it in place of the id."""
DIGITS = 32
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Hashing:
    """The projects with hashed ids: those with their keys, and those of which the key is missing."""

    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    missing: Mapping[str, str] = field(default_factory=dict)
    """By project, the variable that is not set."""

    def stored(self, project_id: str, value: str) -> str:
        """The id as tables hold it. Raises SettingsError if the project's key is missing.

        A user and a device with one id have one hash, because an id may be the one here and the other there.
        """
        if value.startswith(PREFIX) or is_pseudonym(value):
            return value
        if project_id in self.missing:
            raise SettingsError(missing_key(project_id, self.missing[project_id]))
        key = self.keys.get(project_id)
        return value if key is None else hashed(key, project_id, value)

    @property
    def sentences(self) -> list[str]:
        """One on each key that is missing."""
        return [missing_key(project, variable) for project, variable in self.missing.items()]

    def fingerprint(self, project_id: str) -> str:
        """Changes with the key of a project that has it. The key cannot be found from it."""
        return hmac.new(self.keys[project_id], b"stitch hash key", hashlib.sha256).hexdigest()[:16]


def hashed(key: bytes, project_id: str, value: str) -> str:
    """The hash of an id. The length of the project's name keeps projects apart that have one key."""
    message = f"{len(project_id.encode())}:{project_id}{value}"
    return PREFIX + hmac.new(key, message.encode(), hashlib.sha256).hexdigest()[:DIGITS]


def missing_key(project_id: str, variable: str) -> str:
    """The sentence on a key that is not there."""
    return (
        f"The key of project '{project_id}' is missing: set the variable {variable} again. Until then its files, and "
        "those of feeds that name no project, are not loaded; nothing is lost."
    )


def read_hashing(projects: Mapping[str, ProjectSettings], variables: Mapping[str, str | None]) -> Hashing:
    """The keys that the projects name, from the environment or else from ``variables``.

    Raises SettingsError if a variable holds something else than a key.
    """
    keys, missing = {}, {}
    for project, own in sorted(projects.items()):
        if not own.hash_key:
            continue
        text = (os.environ.get(own.hash_key) or variables.get(own.hash_key) or "").strip()
        if not text:
            missing[project] = own.hash_key
        elif not _KEY.fullmatch(text):
            raise SettingsError(
                f"{own.hash_key} does not hold a key: it is 64 hexadecimal digits in lower case, as "
                "`openssl rand -hex 32` prints them."
            )
        else:
            keys[project] = bytes.fromhex(text)
    return Hashing(keys, missing)


def hashed_decisions(
    decisions: Iterable[Decision], hashing: Hashing, projects: Mapping[str, ProjectSettings]
) -> tuple[Decision, ...]:
    """The decisions with ids as tables hold them, without those of projects of which the key is missing.

    Of a project with hashed ids no reason is kept: it is free text, and may name whom it is about.
    """
    return tuple(
        _hashed(one, hashing, projects[one.project_id]) if one.project_id in hashing.keys else one
        for one in decisions
        if one.project_id not in hashing.missing
    )


def _hashed(decision: Decision, hashing: Hashing, own: ProjectSettings) -> Decision:
    def stored(value: str) -> str:
        return hashing.stored(decision.project_id, value) if value else value

    other = decision.other_id
    kind, separator, value = other.partition(":")
    if decision.kind == DecisionKind.wrong_link and separator and kind in ("device", *own.identifiers):
        other = f"{kind}:{stored(value)}"
    else:
        other = stored(other)
    return replace(decision, id=stored(decision.id), other_id=other, reason="")
