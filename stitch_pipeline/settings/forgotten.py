"""The forgotten ids: the lines of ``forgotten.csv``, which hold keyed hashes and never an id.

The list is a reading rule. Whatever is loaded, now or in a rebuild from nothing, is loaded without the ids that it
lists (``landing/forgetting.py``). The key lies in a file of its own beside the list, or in the environment. Without the
right key no file is read at all, because the forgotten ids would come back.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from stitch_pipeline.settings.decisions import Decision, DecisionKind
from stitch_pipeline.settings.errors import SettingsError

COLUMNS = ("project_id", "kind", "hash", "mode", "forgotten_at")
STORED_HASH = "stored_hash"
"""A further column, if ids of some project are hashed when they are loaded."""
PREFIX = "forgotten:"
"""Begins every pseudonym. No other id begins so: it is a blocked id if a client sends it."""
_PSEUDONYM_DIGITS = 32
_KEY_LINE = "# key "
_KEY = re.compile(r"[0-9a-f]{64}")


class Mode(StrEnum):
    """What becomes of the rows of a forgotten id."""

    delete = "delete"
    pseudonymise = "pseudonymise"


@dataclass(frozen=True, order=True)
class ForgottenId:
    """One line of the list."""

    project_id: str
    kind: str
    """``user``, ``device``, or a kind of identifier."""
    hash: str
    mode: Mode
    forgotten_at: str = field(compare=False)
    """ISO 8601, UTC."""
    stored_hash: str = field(default="", compare=False)
    """The hash of the id as tables hold it, where that is not as it is sent (``settings.hashing``)."""

    @property
    def pseudonym(self) -> str:
        return pseudonym(self.hash)


@dataclass(frozen=True)
class Forgotten:
    """The whole list, with the key of its hashes."""

    ids: tuple[ForgottenId, ...] = ()
    key: bytes = field(default=b"", repr=False)

    def __bool__(self) -> bool:
        return bool(self.ids)

    def hash_of(self, project_id: str, kind: str, value: str) -> str:
        """HMAC-SHA256, hexadecimal. The length of the project's name keeps projects apart."""
        return keyed_hash(self.key, project_id, kind, value)

    def find(self, project_id: str, kind: str, value: str) -> ForgottenId | None:
        """The line for an id; None if it is not forgotten."""
        if not self.ids:
            return None
        wanted = self.hash_of(project_id, kind, value)
        return next(
            (one for one in self.ids if (one.project_id, one.kind, one.hash) == (project_id, kind, wanted)), None
        )

    @property
    def digest(self) -> str:
        """Changes with the list; empty for an empty list. No id can be found from it."""
        if not self.ids:
            return ""
        lines = "\n".join(f"{one.project_id} {one.kind} {one.hash} {one.mode}" for one in sorted(self.ids))
        return hashlib.sha256(lines.encode()).hexdigest()[:16]

    def device_name(self, project_id: str, device: str) -> str:
        """The device as tables hold it."""
        found = self.find(project_id, "device", device)
        return found.pseudonym if found else device

    def link_name(self, project_id: str, id_hash: str, device: str) -> str:
        """The user of a deleted person's links on a device. Another one on each device, so that nothing joins them."""
        return pseudonym(self.hash_of(project_id, "link", f"{id_hash}:{device}"))


def keyed_hash(key: bytes, project_id: str, kind: str, value: str) -> str:
    message = f"{len(project_id.encode())}:{project_id}{kind}:{value}"
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def pseudonym(id_hash: str) -> str:
    return PREFIX + id_hash[:_PSEUDONYM_DIGITS]


def is_pseudonym(value: str) -> bool:
    return value.startswith(PREFIX)


def read_forgotten(path: Path, key_in_environment: str | None) -> Forgotten:
    """The list at ``path``; an empty one if there is no file. Raises SettingsError with one sentence if it is wrong.

    The files are read again only if one of them has changed.
    """
    if not path.exists():
        return Forgotten()
    return _read_once(path, key_in_environment, _state(path), _state(key_path(path)))


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=8)
def _read_once(path: Path, key_in_environment: str | None, *states: tuple[int, int, int] | None) -> Forgotten:
    key_digest, ids = _read(path)
    if not ids:
        return Forgotten()
    key = _key(path, key_in_environment)
    if key is None:
        raise SettingsError(
            f"The key of {path} is missing: put it back as '{key_path(path)}' or into STITCH_FORGET_KEY; without it "
            "nothing is loaded, because the forgotten ids would come back."
        )
    if _digest(key) != key_digest:
        raise SettingsError(
            f"The key for {path} is not the one that its hashes were made with: put the right one back as "
            f"'{key_path(path)}' or into STITCH_FORGET_KEY; until then nothing is loaded, because the forgotten ids "
            "would come back."
        )
    return Forgotten(ids, key)


def write_forgotten(path: Path, forgotten: Forgotten) -> None:
    """Replace the list at ``path``, in one step, by this one."""
    has_stored = any(one.stored_hash for one in forgotten.ids)
    header = (*COLUMNS, STORED_HASH) if has_stored else COLUMNS
    rows = [
        (one.project_id, one.kind, one.hash, one.mode.value, one.forgotten_at, one.stored_hash)[: len(header)]
        for one in forgotten.ids
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8", newline="") as file:
        file.write(f"{_KEY_LINE}{_digest(forgotten.key)}\n")
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def key_for(path: Path, key_in_environment: str | None) -> bytes:
    """The key for the list at ``path``, created if there is none yet."""
    key = _key(path, key_in_environment)
    if key is not None:
        return key
    created = secrets.token_hex(32)
    place = key_path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(created + "\n")
        file.flush()
        os.fsync(file.fileno())
    return bytes.fromhex(created)


def key_path(path: Path) -> Path:
    """The file of the list's key."""
    return path.with_suffix(".key")


def followed_decisions(decisions: Iterable[Decision], forgotten: Forgotten) -> tuple[Decision, ...]:
    """The decisions without forgotten ids.

    Decisions on a link or a device keep their effect, with pseudonyms. Lines about two users of whom one is forgotten
    are left out.
    """
    if not forgotten:
        return tuple(decisions)
    return tuple(kept for one in decisions if (kept := _followed(one, forgotten)) is not None)


def _followed(decision: Decision, forgotten: Forgotten) -> Decision | None:
    project = decision.project_id
    if decision.kind in (DecisionKind.same_person, DecisionKind.never_same):
        users = (decision.id, decision.other_id)
        return None if any(forgotten.find(project, "user", user) for user in users) else decision
    device, other = forgotten.device_name(project, decision.id), decision.other_id
    kind, separator, value = other.partition(":")
    found = forgotten.find(project, "user", other) or (forgotten.find(project, kind, value) if separator else None)
    if found is not None:
        is_deleted = found.mode == Mode.delete
        other = forgotten.link_name(project, found.hash, device) if is_deleted else found.pseudonym
        if found.kind != "user":
            other = f"{found.kind}:{other}"
    if (device, other) == (decision.id, decision.other_id):
        return decision
    # The reason is free text and may name whom it is about.
    return replace(decision, id=device, other_id=other, reason="")


def _digest(key: bytes) -> str:
    return hmac.new(key, b"stitch forget", hashlib.sha256).hexdigest()[:16]


def _key(path: Path, key_in_environment: str | None) -> bytes | None:
    text, place = key_in_environment, "STITCH_FORGET_KEY"
    if text is None:
        if not key_path(path).exists():
            return None
        text, place = key_path(path).read_text(encoding="ascii", errors="replace"), str(key_path(path))
    if not _KEY.fullmatch(text.strip()):
        raise SettingsError(f"{place} does not hold a key: it is 64 hexadecimal digits in lower case.")
    return bytes.fromhex(text.strip())


def _read(path: Path) -> tuple[str, tuple[ForgottenId, ...]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8 text: put back the file that `stitch forget` wrote.") from None
    key_digest = next((line.removeprefix(_KEY_LINE).strip() for line in lines if line.startswith(_KEY_LINE)), "")
    written = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    header = written[0][1].strip().split(",") if written else [*COLUMNS]
    if header not in ([*COLUMNS], [*COLUMNS, STORED_HASH]):
        raise SettingsError(f"{path} line {written[0][0]}: the header is: {','.join(COLUMNS)}.")
    found: dict[tuple[str, str, str], ForgottenId] = {}
    for number, line in written[1:]:
        cells = next(csv.reader([line]))
        is_complete = len(cells) == len(header) and all(cells[: len(COLUMNS)])
        hashes = [cells[2], *filter(None, cells[len(COLUMNS) :])] if is_complete else []
        if not is_complete or not all(map(_KEY.fullmatch, hashes)) or cells[3] not in [mode.value for mode in Mode]:
            raise SettingsError(
                f"{path} line {number}: is no line of `stitch forget` (project, kind, 64 hexadecimal digits, "
                f"{' or '.join(Mode)}, time): put back the file that it wrote."
            )
        one = ForgottenId(cells[0], cells[1], cells[2], Mode(cells[3]), *cells[4:])
        found[one.project_id, one.kind, one.hash] = one
    return key_digest, tuple(found.values())
