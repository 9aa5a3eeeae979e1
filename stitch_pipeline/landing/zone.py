"""Find the files of the landing zone. Every directory directly below the landing directory is one feed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

from stitch_pipeline.landing.forgetting import forgetting
from stitch_pipeline.landing.hashing import hashed_reading
from stitch_pipeline.landing.landed_file import LandedFile
from stitch_pipeline.landing.reading import ReadingRules
from stitch_pipeline.planning.sql_text import any_of
from stitch_pipeline.settings import FeedSettings, Settings, SettingsError
from stitch_pipeline.sources import SOURCES, Layout, Source

# Clocks of file servers differ that much; a file that is further ahead is dated in the future.
_CLOCK_DIFFERENCE_SECONDS = 300
NOTES_OF_TABLES = ".look.json"
"""In the directory of a feed that is a table, what ``landing.extracts`` notes of its looks."""
_TABLE_WITHOUT_FEED = (
    "it is a copy of rows of a table, and no feed is called {feed} any more: bring [feeds.{feed}] with its table back, "
    "or delete this directory"
)
_CAN_ASK_FOR_EFFECTIVE_IDS = os.access in os.supports_effective_ids


def reading_rules(settings: Settings) -> ReadingRules:
    """The settings on which reading depends."""
    return ReadingRules(
        start_date=settings.start_date,
        blocked_ids=tuple(
            (project, value) for project, own in sorted(settings.projects.items()) for value in own.blocked_ids
        ),
        blocked_patterns=tuple(
            (project, pattern)
            for project, own in sorted(settings.projects.items())
            if (pattern := any_of(own.blocked_patterns)) is not None
        ),
        identifiers=tuple((project, tuple(kinds)) for project, kinds in settings.read_identifiers.items()),
        forgetting=forgetting(settings.forgotten, settings.projects),
        hashing=hashed_reading(settings.hashing, settings.projects),
    )


def landed_files(settings: Settings, root: Path | None = None) -> dict[str, LandedFile]:
    """Every file of the landing zone by its name, in that order, except hidden and ``_``-prefixed ones.

    What is there and cannot be read as a file is among them, with its ``problem``. ``root`` replaces the configured
    landing directory. Raises SettingsError if the directory does not exist or cannot be listed.
    """
    root = root or settings.landing_dir
    if not root.is_dir():
        raise SettingsError(
            f"STITCH_LANDING_DIR is '{root}', which is not a directory: create it, or point the variable at "
            "the directory where your tracker's files arrive."
        )
    hashing = hashed_reading(settings.hashing, settings.projects)
    # Not what is forgotten: that concerns few files, and ``stitching.forget`` has those read again. And no key.
    for_all = asdict(replace(reading_rules(settings), forgetting=None, hashing=None))
    del for_all["hashing"]
    rules = json.dumps(for_all, default=str)
    how_read: dict[str, str] = {}
    sources: dict[str, Source | None] = {}
    lookups: dict[Path, list[tuple[Path, str]]] = {}
    landed: dict[str, LandedFile] = {}
    now = datetime.now(UTC)
    for entry in sorted(_listed(root), key=lambda entry: entry.name):
        name, feed = entry.name, entry.name.split("/")[0]
        while name in landed:  # two names that are not UTF-8 may be written alike
            name += "~"
        # Once per feed rather than per file, because the sensor calls this every few seconds.
        if feed not in sources:
            sources[feed] = _source(settings, feed)
        source = sources[feed] if "/" in name else None
        if entry.stat is None:
            landed[name] = LandedFile(
                entry.path, name, source, 0, 0, problem=entry.problem, version=f"problem: {entry.problem}"
            )
            continue
        size, modified_ns = entry.stat.st_size, entry.stat.st_mtime_ns
        if source is None:
            is_extract = "/" in name and (root / feed / NOTES_OF_TABLES).exists()
            problem = _TABLE_WITHOUT_FEED.format(feed=feed) if is_extract else None
            landed[name] = LandedFile(entry.path, name, None, size, modified_ns, problem=problem, version="no feed")
            continue
        own = settings.feed(feed)
        if feed not in how_read:
            # Not the columns by which tables are copied, on which reading does not depend.
            as_read = {name: value for name, value in asdict(source).items() if name != "load_times"}
            reading = rules + json.dumps([as_read, own.reading], default=str)
            if hashing is not None and (hashed := hashing.state(own.project_id)):
                reading += json.dumps(hashed)
            how_read[feed] = hashlib.sha256(reading.encode()).hexdigest()[:12]
        version = f"{size}-{modified_ns}-{how_read[feed]}"
        latest_arrival = None
        if modified_ns / 1e9 > now.timestamp() + _CLOCK_DIFFERENCE_SECONDS:
            # The same all day, so that every load of the day has the same result; read again on the next day.
            latest_arrival = now.replace(hour=0, minute=0, second=0, microsecond=0)
            version += f"-{latest_arrival.date()}"
        if not os.access(entry.path, os.R_OK, effective_ids=_CAN_ASK_FOR_EFFECTIVE_IDS):
            version += "-unreadable"  # so that the file is read again once it may be read
        if source.lookup is not None and source.lookup.is_lookup_file(name):
            lookups.setdefault(entry.path.parent, []).append((entry.path, version))
        landed[name] = LandedFile(
            path=entry.path,
            landing_file=name,
            source=source,
            size=size,
            modified_ns=modified_ns,
            project_id=own.project_id,
            encoding=own.encoding,
            stated_type=own.file_type,
            version=version,
            latest_arrival=latest_arrival,
            waits_for=None if hashing is None else hashing.waits_for(own.project_id),
        )
    return {name: _with_lookups(file, lookups.get(file.path.parent, [])) for name, file in landed.items()}


def extract_at(settings: Settings, landing_file: str, path: Path) -> LandedFile:
    """A file that is to become the one with this name, as it would be read there; see ``landing.extracts``."""
    feed, _, _ = landing_file.partition("/")
    source, own, stat = _source(settings, feed), settings.feed(feed), path.stat()
    lookups: tuple[Path, ...] = ()
    if source is not None and source.lookup is not None:
        beside = sorted((settings.landing_dir / feed).glob("*.parquet"))
        lookups = tuple(one for one in beside if source.lookup.is_lookup_file(one.name))
    return LandedFile(
        path,
        landing_file,
        source,
        stat.st_size,
        stat.st_mtime_ns,
        project_id=own.project_id,
        lookup_files=() if source is None or source.has_no_events(landing_file) else lookups,
    )


def is_below_unlisted(landing_file: str, found: Mapping[str, LandedFile]) -> bool:
    """Whether the file is below a directory that could not be listed: then nothing is known about it."""
    return any(str(parent) in found for parent in PurePosixPath(landing_file).parents)


class _Entry(NamedTuple):
    path: Path
    name: str
    """Relative to the landing directory; bytes that are not UTF-8 are escaped."""
    stat: os.stat_result | None
    problem: str | None = None


def _listed(root: Path) -> Iterator[_Entry]:
    """Every file below the directory, and everything else that is not simply a directory, with the problem."""
    directories = [root]
    while directories:
        directory = directories.pop()
        try:
            with os.scandir(directory) as listed:
                entries = [entry for entry in listed if not entry.name.startswith((".", "_"))]
        except FileNotFoundError:  # removed since its own listing
            continue
        except OSError as error:
            if directory == root:
                raise SettingsError(
                    f"STITCH_LANDING_DIR '{root}' cannot be listed ({error.strerror}): let this user read it."
                ) from None
            yield _Entry(directory, _name(directory, root), None, f"it cannot be listed ({error.strerror})")
            continue
        for entry in entries:
            path = directory / entry.name
            try:
                stat = entry.stat()
                is_directory = S_ISDIR(stat.st_mode)
            except FileNotFoundError:
                if entry.is_symlink():
                    yield _Entry(path, _name(path, root), None, "it is a link to nothing")
                continue  # otherwise removed since the listing
            except OSError as error:
                yield _Entry(path, _name(path, root), None, f"it cannot be looked at ({error.strerror})")
                continue
            if S_ISREG(stat.st_mode):
                yield _Entry(path, _name(path, root), stat)
            elif not is_directory:
                yield _Entry(path, _name(path, root), None, "it is a pipe, a socket or a device, and not a file")
            elif entry.is_symlink():
                yield _Entry(path, _name(path, root), None, "it is a link to a directory, and such are not followed")
            else:
                directories.append(path)


def _name(path: Path, root: Path) -> str:
    return os.fsencode(path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _with_lookups(file: LandedFile, lookups: list[tuple[Path, str]]) -> LandedFile:
    """The file with the lookup tables beside it; its version changes when one of them does."""
    if not lookups or file.source is None or file.source.lookup is None or file.has_no_events:
        return file
    digest = hashlib.sha256(" ".join(version for _, version in lookups).encode()).hexdigest()[:12]
    return replace(file, lookup_files=tuple(path for path, _ in lookups), version=f"{file.version}-{digest}")


def _source(settings: Settings, feed: str) -> Source | None:
    """The source of a feed with the changes from its table in ``stitch.toml``; None if it has no source."""
    own = settings.feed(feed)
    source = SOURCES.get(own.source or feed)
    if source is None:
        return None
    of_some_project = {kind for kinds in settings.read_identifiers.values() for kind in kinds}
    layouts = tuple(_overridden(layout, own, sorted(of_some_project)) for layout in source.layouts)
    return replace(source, layouts=layouts)


def _overridden(layout: Layout, own: FeedSettings, identifiers: Collection[str]) -> Layout:
    merging = {column: paths for column, paths in layout.fields_when_merging.items() if column not in own.fields}
    kinds = {**layout.identifiers, **own.identifiers}
    return replace(
        layout,
        fields={**layout.fields, **own.fields},
        fields_when_merging=merging,
        # Others would be read and stored for nothing.
        identifiers={kind: kinds[kind] for kind in identifiers if kind in kinds},
        # A feed that states its fields need not have the layout's default columns.
        recognised_by=() if own.fields.keys() - {"previous_id"} else layout.recognised_by,
        event_types={**layout.event_types, **{key.lower(): value for key, value in own.event_types.items()}},
        other_event_type=own.other_event_type or layout.other_event_type,
        platforms={**layout.platforms, **own.platforms},
        event_id_from=own.event_id_from or layout.event_id_from,
        times=own.times or layout.times,
        columns=own.columns or layout.columns,
    )
