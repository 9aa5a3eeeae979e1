"""dbt, run inside this process: the one seam between Dagster's definitions and dbt's execution.

``dagster-dbt`` gives the definitions (``@dbt_assets``); its way of running dbt starts a process per
invocation and parses the whole project whenever a variable changes. Here the parsed project is read
from dbt's own cache once, and each run is one call.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import orjson

from stitch_pipeline.shipped_files import DBT_PROJECT

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

PROJECT_DIR = DBT_PROJECT
TARGET_DIR = PROJECT_DIR / "target"
MANIFEST_PATH = TARGET_DIR / "manifest.json"
_PARSED_PATH = TARGET_DIR / "partial_parse.msgpack"
_DIGEST_PATH = TARGET_DIR / "parsed_sources.sha256"

DbtEvent = Mapping[str, Any]


class DbtError(Exception):
    """dbt could not do what was asked; the message is dbt's own."""


@dataclass(frozen=True)
class ModelResult:
    """What became of one model or test."""

    unique_id: str
    succeeded: bool
    seconds: float
    message: str


def prepare_manifest() -> Path:
    """The manifest of the dbt project, parsed again only if a file of the project has changed."""
    digest = _sources_digest()
    is_parsed = MANIFEST_PATH.exists() and _PARSED_PATH.exists() and _DIGEST_PATH.exists()
    if is_parsed and _DIGEST_PATH.read_text() == digest:
        return MANIFEST_PATH
    TARGET_DIR.mkdir(exist_ok=True)
    # Aside and then moved into place, because another process may be reading or parsing at the same time.
    with TemporaryDirectory(dir=TARGET_DIR) as aside, _environment(Path("unused.duckdb")):
        result = _runner(None, []).invoke(["parse", *_where(), "--target-path", aside])
        if not result.success:
            raise DbtError(f"The dbt project does not parse: {result.exception}")
        (Path(aside) / _DIGEST_PATH.name).write_text(digest)
        for path in (MANIFEST_PATH, _PARSED_PATH, _DIGEST_PATH):
            (Path(aside) / path.name).replace(path)
    _parsed_project.cache_clear()
    return MANIFEST_PATH


def prepared_digest() -> str:
    """Names the version of the dbt project that the manifest was made from."""
    return _DIGEST_PATH.read_text()


@cache
def manifest() -> dict[str, Any]:
    """The manifest as ``dagster-dbt`` reads it."""
    parsed: dict[str, Any] = orjson.loads(prepare_manifest().read_bytes())
    return parsed


def run_models(
    duckdb_path: Path,
    *,
    models: Sequence[str],
    variables: Mapping[str, Any],
    on_event: Callable[[DbtEvent], None],
) -> list[ModelResult]:
    """``dbt build`` of the models with the given names, and of their tests.

    ``on_event`` gets every event of dbt as a dict, as it happens. The results name what failed; only what
    stops dbt as a whole raises DbtError. Models after a failed model or test are skipped by dbt.
    """
    from google.protobuf.json_format import MessageToDict

    prepare_manifest()

    def forward(event: Any) -> None:
        on_event(MessageToDict(event, preserving_proto_field_name=True))

    parsed = _parsed_project(duckdb_path.stem)
    # A bare name would also select the folder of that name; the full one selects one model.
    selected = [".".join(node.fqn) for node in parsed.nodes.values() if node.name in models]
    arguments = [
        "build",
        *_where(),
        "--no-write-json",
        "--vars",
        orjson.dumps(dict(variables)).decode(),
        "--select",
        *selected,
    ]
    with _environment(duckdb_path):
        try:
            result = _runner(parsed, [forward]).invoke(arguments)
        finally:
            _release_connections()
    if result.exception is not None:
        raise DbtError(str(result.exception))
    executed = getattr(result.result, "results", [])
    return [
        ModelResult(
            unique_id=item.node.unique_id,
            succeeded=item.status in ("success", "pass", "warn"),
            seconds=item.execution_time,
            message=item.message or "",
        )
        for item in executed
    ]


def _where() -> list[str]:
    where = ["--project-dir", str(PROJECT_DIR), "--profiles-dir", str(PROJECT_DIR)]
    quiet = ["--log-level", "none", "--log-level-file", "none", "--no-use-colors", "--no-print"]
    return [*where, *quiet, "--no-version-check"]


def _runner(manifest: Manifest | None, callbacks: list[Callable[[Any], None]]) -> Any:
    from dbt.cli.main import dbtRunner

    return dbtRunner(manifest=manifest, callbacks=callbacks)


@cache
def _parsed_project(catalog: str) -> Manifest:
    """The parsed project, with every relation in the given catalog (DuckDB names it after the file)."""
    from dbt.contracts.graph.manifest import Manifest

    manifest = Manifest.from_msgpack(_PARSED_PATH.read_bytes())
    for node in (*manifest.nodes.values(), *manifest.sources.values()):
        node.database = catalog
        node.relation_name = None
    return manifest


@contextmanager
def _environment(duckdb_path: Path) -> Iterator[None]:
    """The variables that ``profiles.yml`` reads, for the duration of one call."""
    before = os.environ.get("STITCH_DUCKDB_PATH")
    os.environ["STITCH_DUCKDB_PATH"] = str(duckdb_path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["STITCH_DUCKDB_PATH"]
        else:
            os.environ["STITCH_DUCKDB_PATH"] = before


def _release_connections() -> None:
    """Close the adapter's connection, which would otherwise hold the file's lock until the process ends."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    environment = DuckDBConnectionManager._ENV
    DuckDBConnectionManager.close_all_connections()
    if environment is not None:
        environment.close()


def _sources_digest() -> str:
    import dbt.version  # a new dbt reads the same files differently

    digest = hashlib.sha256(dbt.version.installed.to_version_string().encode())
    for path in sorted(PROJECT_DIR.rglob("*")):
        relative = path.relative_to(PROJECT_DIR)
        if path.is_file() and relative.parts[0] not in ("target", "logs"):
            digest.update(relative.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
