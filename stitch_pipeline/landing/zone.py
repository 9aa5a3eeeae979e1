"""Find the files of the landing zone. Every directory directly below the landing directory is one feed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from stitch_pipeline.landing.forgetting import forgetting
from stitch_pipeline.landing.landed_file import LandedFile
from stitch_pipeline.landing.reading import ReadingRules
from stitch_pipeline.settings import FeedSettings, Settings, SettingsError
from stitch_pipeline.sources import SOURCES, Layout, Source


def reading_rules(settings: Settings) -> ReadingRules:
    """The settings on which reading depends."""
    return ReadingRules(
        start_date=settings.start_date,
        blocked_ids=tuple(
            (project, value) for project, own in sorted(settings.projects.items()) for value in own.blocked_ids
        ),
        forgetting=forgetting(settings.forgotten, settings.projects),
    )


def landed_files(settings: Settings, root: Path | None = None) -> dict[str, LandedFile]:
    """Every file of the landing zone by its name, in that order, except hidden and ``_``-prefixed ones.

    ``root`` replaces the configured landing directory. Raises SettingsError if the directory does not exist.
    """
    root = root or settings.landing_dir
    if not root.is_dir():
        raise SettingsError(
            f"STITCH_LANDING_DIR is '{root}', which is not a directory: create it, or point the variable at "
            "the directory where your tracker's files arrive."
        )
    # Not what is forgotten: that concerns few files, and ``stitching.forget`` has those read again.
    rules = json.dumps(asdict(replace(reading_rules(settings), forgetting=None)), default=str)
    how_read: dict[str, str] = {}
    sources: dict[str, Source | None] = {}
    lookups: dict[Path, list[tuple[Path, str]]] = {}
    landed = []
    for path, relative, stat in _listed(root):
        name, feed = relative.as_posix(), relative.parts[0]
        # Once per feed rather than per file, because the sensor calls this every few seconds.
        if feed not in sources:
            sources[feed] = _source(settings, feed)
        source = sources[feed] if len(relative.parts) > 1 else None
        if source is None:
            landed.append(LandedFile(path, name, None, stat.st_size, stat.st_mtime_ns, version="no feed"))
            continue
        own = settings.feed(feed)
        if feed not in how_read:
            reading = rules + json.dumps([asdict(source), own.model_dump()], default=str)
            how_read[feed] = hashlib.sha256(reading.encode()).hexdigest()[:12]
        version = f"{stat.st_size}-{stat.st_mtime_ns}-{how_read[feed]}"
        if source.lookup is not None and source.lookup.is_lookup_file(name):
            lookups.setdefault(path.parent, []).append((path, version))
        landed.append(
            LandedFile(
                path=path,
                landing_file=name,
                source=source,
                size=stat.st_size,
                modified_ns=stat.st_mtime_ns,
                project_id=own.project_id,
                encoding=own.encoding,
                stated_type=own.file_type,
                version=version,
            )
        )
    return {file.landing_file: _with_lookups(file, lookups.get(file.path.parent, [])) for file in landed}


def _listed(root: Path) -> Iterator[tuple[Path, Path, os.stat_result]]:
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if any(part.startswith((".", "_")) for part in relative.parts):
            continue
        try:
            stat = path.stat()
        except FileNotFoundError:  # removed since the listing
            continue
        if path.is_file():
            yield path, relative, stat


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
    layouts = tuple(_overridden(layout, own) for layout in source.layouts)
    return replace(source, layouts=layouts)


def _overridden(layout: Layout, own: FeedSettings) -> Layout:
    return replace(
        layout,
        fields={**layout.fields, **own.fields},
        # A feed that states its fields need not have the layout's default columns.
        recognised_by=() if own.fields else layout.recognised_by,
        event_types={**layout.event_types, **{key.lower(): value for key, value in own.event_types.items()}},
        other_event_type=own.other_event_type or layout.other_event_type,
        platforms={**layout.platforms, **own.platforms},
        event_id_from=own.event_id_from or layout.event_id_from,
        times=own.times or layout.times,
        columns=own.columns or layout.columns,
    )
