"""Human decisions about identity: the lines of ``overrides.csv``, and their consequences.

Removing a line undoes its decision. This module reads the lines, checks them against each other and converts them to
the form that the macros need; ``dbt_project/macros/decisions.sql`` says what they mean for a row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

COLUMNS = ("project_id", "decision", "id", "other_id", "reason")
_COMMENT = "#"


class DecisionsError(ValueError):
    """Lines of the file are wrong. The message has a sentence for each, with file, line, field, value and remedy."""


class DecisionKind(StrEnum):
    """What a decision says about ``id`` and ``other_id``."""

    same_person = "same_person"
    """Two user ids of one person: everything of ``other_id`` is credited to ``id``."""
    never_same = "never_same"
    """Two users who are two persons: a device that both used is shared."""
    shared_device = "shared_device"
    """The device ``id`` is shared, however few users it has."""
    wrong_link = "wrong_link"
    """The links between the device ``id`` and the user ``other_id`` do not count."""
    same_device = "same_device"
    """Two device ids of one browser: they are counted as one device. No row is credited otherwise."""


# The kinds of a decision's two ids.
_IDS = {
    DecisionKind.same_person: ("user", "user"),
    DecisionKind.never_same: ("user", "user"),
    DecisionKind.shared_device: ("device", None),
    DecisionKind.wrong_link: ("device", "user"),
    DecisionKind.same_device: ("device", "device"),
}
# The kinds of which a line says that its two ids are one.
_UNITING = (DecisionKind.same_person, DecisionKind.same_device)


@dataclass(frozen=True, order=True)
class Decision:
    """One line of the file."""

    project_id: str
    kind: DecisionKind
    id: str
    other_id: str
    """Empty for a shared device."""
    reason: str

    @property
    def text(self) -> str:
        """The decision as text, as ``why`` and the logs quote it."""
        ids = f"{self.id}, {self.other_id}" if self.other_id else self.id
        return f"{self.kind} {ids}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Consequences:
    """The consequences of all lines together, as the models read them (table ``configured_decisions``).

    The values of ``wrong_links``, ``shared_devices`` and ``never_same`` are the texts of the decisions.
    """

    person_names: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """By project and user id: the canonical id, and the texts of the lines that lead to it."""
    wrong_links: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    """By project, device and user."""
    shared_devices: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By project and device."""
    never_same: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    """By project and the canonical ids of two persons, the smaller first."""
    same_devices: Mapping[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """By project and device: the device that it is counted as, and the texts of the lines that lead to it."""

    def person(self, project_id: str, user_id: str) -> str:
        """The canonical id of a user; its own id where no line gives it another."""
        return self.person_names.get((project_id, user_id), (user_id, ""))[0]


def read_decisions(path: Path) -> tuple[Decision, ...]:
    """The lines of a CSV file with a header. Blank lines and lines that begin with ``#`` are skipped.

    Raises FileNotFoundError, or DecisionsError with everything that is wrong: a file is followed as a whole or not.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DecisionsError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8.") from None
    written = [
        (number, line)
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith(_COMMENT)
    ]
    if not written:
        return ()
    errors: list[str] = []
    (header_number, header_line), *rest = written
    header = _cells(path, header_number, header_line, errors)
    for name in dict.fromkeys(header):
        if name not in COLUMNS or header.count(name) > 1:
            errors.append(
                f"{path} line {header_number}: '{name}' is no column, or occurs twice; "
                f"the header is: {','.join(COLUMNS)}."
            )
    missing = [name for name in COLUMNS[:-1] if name not in header]
    if missing and not errors:
        errors.append(
            f"{path} line {header_number}: the column {missing[0]} is missing; the header is: {','.join(COLUMNS)}."
        )
    found: dict[int, Decision] = {}
    if not errors:
        for number, line in rest:
            cells = _cells(path, number, line, errors)
            if len(cells) == len(header):
                decision = _decision(path, number, dict(zip(header, cells, strict=True)), errors)
                if decision is not None:
                    found[number] = decision
            elif cells:
                errors.append(
                    f"{path} line {number}: {len(cells)} fields where the header has {len(header)}: "
                    "write every comma, and put a value that has one in double quotes."
                )
        errors += _contradictions(path, found)
    if errors:
        raise DecisionsError(" ".join(errors))
    return tuple(found.values())


def consequences(decisions: Iterable[Decision]) -> Consequences:
    """The consequences of the lines together. They must not contradict each other; ``read_decisions`` checks that."""
    lines = sorted(decisions)
    resolved = Consequences(
        person_names=_united(lines, DecisionKind.same_person),
        same_devices=_united(lines, DecisionKind.same_device),
        wrong_links={
            (line.project_id, line.id, line.other_id): line.text
            for line in lines
            if line.kind == DecisionKind.wrong_link
        },
        shared_devices={
            (line.project_id, line.id): line.text for line in lines if line.kind == DecisionKind.shared_device
        },
    )
    never_same: dict[tuple[str, str, str], str] = {}
    for line in lines:
        if line.kind == DecisionKind.never_same:
            one, other = sorted(resolved.person(line.project_id, user) for user in (line.id, line.other_id))
            never_same.setdefault((line.project_id, one, other), line.text)
    return replace(resolved, never_same=never_same)


def _united(lines: Iterable[Decision], kind: DecisionKind) -> dict[tuple[str, str], tuple[str, str]]:
    """By project and id: the id that it is one with, and the texts of the lines of this kind that lead to it."""
    named_by = {(line.project_id, line.other_id): line for line in lines if line.kind == kind}
    found = {}
    for project, name in named_by:
        steps = _steps(named_by, project, name)
        found[project, name] = (steps[-1].id, "; ".join(step.text for step in steps))
    return found


def _cells(path: Path, number: int, line: str, errors: list[str]) -> list[str]:
    try:
        (cells,) = csv.reader([line], strict=True, skipinitialspace=True)
    except csv.Error as error:
        errors.append(
            f"{path} line {number}: is no CSV ({error}): close every double quote, and double those within a value."
        )
        return []
    return [cell.strip() for cell in cells]


def _decision(path: Path, number: int, cells: Mapping[str, str], errors: list[str]) -> Decision | None:
    def complain(name: str, remedy: str) -> None:
        errors.append(f"{path} line {number}: {name} = '{cells[name]}': {remedy}.")

    before = len(errors)
    if not cells["project_id"]:
        complain("project_id", "name the project of the ids")
    try:
        decision = DecisionKind(cells["decision"])
    except ValueError:
        complain("decision", f"is no decision; the decisions are: {', '.join(DecisionKind)}")
        return None
    kind, other_kind = _IDS[decision]
    if not cells["id"]:
        complain("id", f"{decision} needs the id of a {kind} here")
    if other_kind is None and cells["other_id"]:
        complain("other_id", f"{decision} is about one {kind}: leave this field empty")
    if other_kind is not None and not cells["other_id"]:
        complain("other_id", f"{decision} needs the id of a {other_kind} here")
    if other_kind == kind and cells["id"] and cells["id"] == cells["other_id"]:
        complain("other_id", f"{decision} needs two different ids: correct one, or take the line out")
    if len(errors) > before:
        return None
    return Decision(cells["project_id"], decision, cells["id"], cells["other_id"], cells.get("reason", ""))


def _contradictions(path: Path, lines: Mapping[int, Decision]) -> list[str]:
    """What is wrong between lines that are each correct."""
    errors = []
    numbers: dict[tuple[str, ...], int] = {}
    united: dict[DecisionKind, dict[tuple[str, str], Decision]] = {kind: {} for kind in _UNITING}
    for number, line in lines.items():
        place = f"{path} line {number}"
        # The order of the two ids matters for every kind except never_same.
        ids = (line.id, line.other_id) if line.kind != DecisionKind.never_same else sorted((line.id, line.other_id))
        key = (line.project_id, line.kind, *ids)
        if key in numbers:
            errors.append(f"{place}: '{line.kind} {line.id}' repeats line {numbers[key]}: take one of the two out.")
            continue
        numbers[key] = number
        if line.kind not in _UNITING:
            continue
        named_by = united[line.kind]
        what = "device" if line.kind == DecisionKind.same_device else "person"
        already = named_by.get((line.project_id, line.other_id))
        if already is not None:
            errors.append(
                f"{place}: other_id = '{line.other_id}': is already the same {what} as '{already.id}'; to make all "
                f"three one {what}, write '{line.kind}' with id '{already.id}' and other_id '{line.id}'."
            )
            continue
        if any(step.id == line.other_id for step in _steps(named_by, line.project_id, line.id)):
            counts = {"person": "credited to this id", "device": "counted as this device"}[what]
            named = {"person": "the canonical id", "device": "the one that counts"}[what]
            errors.append(
                f"{place}: other_id = '{line.other_id}': '{line.id}' is already {counts}, so neither would be {named}: "
                "take this line out, or exchange the ids of the others."
            )
            continue
        named_by[line.project_id, line.other_id] = line
    if errors:
        return errors
    resolved = consequences(lines.values())
    for number, line in lines.items():
        if line.kind != DecisionKind.never_same:
            continue
        person = resolved.person(line.project_id, line.id)
        if person == resolved.person(line.project_id, line.other_id):
            errors.append(
                f"{path} line {number}: other_id = '{line.other_id}': never the same as '{line.id}', but by "
                f"same_person lines both are '{person}': take this line out, or one of those."
            )
    return errors


def _steps(named_by: Mapping[tuple[str, str], Decision], project_id: str, user_id: str) -> list[Decision]:
    """The lines of one kind that lead from an id to the id that it is one with; none if it is that id itself."""
    steps = []
    while (line := named_by.get((project_id, user_id))) is not None:
        steps.append(line)
        user_id = line.id
    return steps
