"""Finding files. Every directory directly below the landing directory is one feed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.sources import SOURCES
from stitch_pipeline.warehouse.reading import LandedFile, ReadingRules


@dataclass(frozen=True)
class FoundFile:
    """A file as it lies in the landing zone now."""

    landing_file: str
    path: Path
    size: int
    modified_ns: int
    landed: LandedFile | None
    """How to read it; None if its directory is no feed."""
    version: str
    """Changes when the file changes, and when the way it is read does."""

    @property
    def modified_at(self) -> datetime:
        return datetime.fromtimestamp(self.modified_ns / 1e9, tz=UTC)


def reading_rules(settings: Settings) -> ReadingRules:
    return ReadingRules(
        start_date=settings.start_date,
        blocked_ids=tuple(
            (project, value) for project, own in sorted(settings.projects.items()) for value in own.blocked_ids
        ),
    )


def found_files(settings: Settings) -> list[FoundFile]:
    """Every file of the landing zone, in the order of its name; hidden and ``_``-prefixed ones left out.

    Raises SettingsError if the landing directory does not exist or a feed names an unknown source.
    """
    root = settings.landing_dir
    if not root.is_dir():
        raise SettingsError(
            f"STITCH_LANDING_DIR is '{root}', which is not a directory: create it, or point the variable at "
            "the directory where your tracker's files arrive."
        )
    for feed, own in settings.feeds.items():
        if own.source not in SOURCES:
            raise SettingsError(
                f"feeds.{feed}.source is '{own.source}', which is no source; the sources are: {', '.join(SOURCES)}."
            )
    rules = json.dumps(asdict(reading_rules(settings)), default=str)
    how_read: dict[str, str] = {}
    found = []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if any(part.startswith((".", "_")) for part in relative.parts):
            continue
        try:
            stat = path.stat()
        except FileNotFoundError:  # taken away between the listing and now
            continue
        if not path.is_file():
            continue
        landed = _landed(settings, path, relative, stat.st_mtime_ns)
        feed = relative.parts[0]
        if feed not in how_read:
            reading = "" if landed is None else json.dumps([asdict(landed.source), landed.project_id])
            how_read[feed] = hashlib.sha256((rules + reading).encode()).hexdigest()[:12]
        found.append(
            FoundFile(
                landing_file=relative.as_posix(),
                path=path,
                size=stat.st_size,
                modified_ns=stat.st_mtime_ns,
                landed=landed,
                version=f"{stat.st_size}-{stat.st_mtime_ns}-{how_read[feed]}",
            )
        )
    return found


def _landed(settings: Settings, path: Path, relative: Path, modified_ns: int) -> LandedFile | None:
    if len(relative.parts) < 2:
        return None
    feed = relative.parts[0]
    own = settings.feeds.get(feed)
    name = own.source if own else feed
    if name not in SOURCES:
        return None
    return LandedFile(
        path=path,
        landing_file=relative.as_posix(),
        source=SOURCES[name],
        modified_at=datetime.fromtimestamp(modified_ns / 1e9, tz=UTC),
        project_id=own.project_id if own else None,
    )


NOT_A_FEED = (
    "its directory is no feed: put it into a directory directly below the landing directory that is named "
    f"after a source ({', '.join(SOURCES)}) or that a [feeds.<directory>] table in stitch.toml names"
)
