"""dbt, run inside this process. Only this module imports dbt.

``dagster-dbt`` provides the definitions (``@dbt_assets``). To run dbt, it would start a process per invocation and
parse the whole project whenever a variable changes. Here the parsed project is read once from dbt's own cache, and each
run is one call.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import orjson

from stitch_pipeline.settings import Policy
from stitch_pipeline.shipped_files import DBT_PROJECT, IS_CHECKOUT
from stitch_pipeline.startup import large_imports
from stitch_pipeline.warehouse.port import Engine

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

PROJECT_DIR = DBT_PROJECT
_MANIFEST = "manifest.json"
_PARSED = "partial_parse.msgpack"
_DIGEST = "parsed_sources.sha256"
_DUCKDB = "duckdb"
_TARGET = "DBT_STITCH_TARGET"  # the variable that `profiles.yml` reads
# The same in every run. Parsing needs them too, because they decide what the models refer to.
_RELEASE_SECONDS = 30
_POLICIES = {"policies": [policy.value for policy in Policy]}

DbtEvent = Mapping[str, Any]
RESULT_EVENTS = ("LogModelResult", "LogTestResult", "RunResultError")
_START_EVENT = "LogStartLine"
_on_start: ContextVar[Callable[[str], None] | None] = ContextVar("_on_start", default=None)


class DbtError(Exception):
    """dbt itself could not run or parse the project; the message is dbt's own."""


@dataclass(frozen=True)
class ModelResult:
    """The outcome of one model or test. ``message`` is dbt's own, and may be empty."""

    name: str
    is_model: bool
    succeeded: bool
    seconds: float
    message: str


@cache
def target_dir(engine: str = _DUCKDB) -> Path:
    """The directory that dbt writes to: in a checkout inside the project, otherwise in the user's cache.

    An installed package may be read-only, and several versions of it may share one cache. Each engine has a directory
    of its own, because dbt parses a project for one adapter.
    """
    if IS_CHECKOUT:
        directory = PROJECT_DIR / "target"
    else:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        directory = Path(caches) / "stitch_pipeline" / _sources_digest()[:16]
    return directory if engine == _DUCKDB else directory / engine


def prepare_manifest(engine: str = _DUCKDB) -> Path:
    """The path of the dbt project's manifest. Parses the project first if one of its files, or dbt, has changed.

    ``engine`` is a name in dbt's ``profiles.yml``. Raises DbtError if the project does not parse.
    """
    target, digest = target_dir(engine), _sources_digest()
    is_parsed = all((target / name).exists() for name in (_MANIFEST, _PARSED, _DIGEST))
    if is_parsed and (target / _DIGEST).read_text() == digest:
        return target / _MANIFEST
    target.mkdir(parents=True, exist_ok=True)
    # Written aside and moved into place, because another process may be reading or parsing at the same time.
    with (
        TemporaryDirectory(dir=target) as aside,
        _environment({"STITCH_DUCKDB_PATH": "unused.duckdb", _TARGET: engine}),
    ):
        result = _runner(None, []).invoke(["parse", *_where(engine), *_vars({}), "--target-path", aside])
        if not result.success:
            raise DbtError(f"The dbt project does not parse: {result.exception}")
        (Path(aside) / _DIGEST).write_text(digest)
        for name in (_MANIFEST, _PARSED, _DIGEST):
            (Path(aside) / name).replace(target / name)
    _parsed_project.cache_clear()
    return target / _MANIFEST


def prepared_digest() -> str:
    """A digest that identifies the version of the dbt project from which the manifest was made."""
    return (target_dir() / _DIGEST).read_text()


@cache
def manifest() -> dict[str, Any]:
    """The manifest as ``dagster-dbt`` reads it."""
    parsed: dict[str, Any] = orjson.loads(prepare_manifest().read_bytes())
    return parsed


def model_names(materialized: str) -> list[str]:
    """The names of the models with this materialization, internal models included."""
    return [
        node["name"]
        for node in manifest()["nodes"].values()
        if node["resource_type"] == "model" and node["config"]["materialized"] == materialized
    ]


@cache
def assets_manifest(engine: str = _DUCKDB) -> dict[str, Any]:
    """The manifest without internal models, which are not assets. The UI shows the engine's name on each asset."""
    whole = manifest()
    internal = {name for name, node in whole["nodes"].items() if "internal" in node.get("tags", ())}

    def without(nodes: Mapping[str, Any]) -> dict[str, Any]:
        return {name: node for name, node in nodes.items() if name not in internal}

    def pruned(node: Mapping[str, Any]) -> dict[str, Any]:
        depends_on = node.get("depends_on", {})
        kept = [name for name in depends_on.get("nodes", ()) if name not in internal]
        return {**node, "depends_on": {**depends_on, "nodes": kept}}

    return {
        **whole,
        "metadata": {**whole["metadata"], "adapter_type": engine},
        "nodes": {name: pruned(node) for name, node in without(whole["nodes"]).items()},
        "parent_map": {
            name: [parent for parent in parents if parent not in internal]
            for name, parents in without(whole["parent_map"]).items()
        },
        "child_map": {
            name: [child for child in children if child not in internal]
            for name, children in without(whole["child_map"]).items()
        },
    }


@contextmanager
def model_starts(report: Callable[[str], None]) -> Iterator[None]:
    """``report`` receives the name of each model that starts in the body, however many calls lie in between.

    Dagster stands between the command line and a run's models, and has no way to pass a callback on.
    """
    token = _on_start.set(report)
    try:
        yield
    finally:
        _on_start.reset(token)


def run_models(
    engine: Engine,
    *,
    models: Collection[str],
    variables: Mapping[str, Any],
    on_event: Callable[[DbtEvent], None],
) -> list[ModelResult]:
    """Run ``dbt build`` for the named models and their tests; returns one result for each.

    ``on_event`` receives dbt's events about results (RESULT_EVENTS) as dicts, as they happen. A model or test that
    fails is a result, and dbt skips the models that depend on it. Raises DbtError only if dbt itself cannot run, and
    WarehouseError if one failed because of the warehouse as a whole (see ``Engine.problem``).
    """
    from google.protobuf.json_format import MessageToDict

    prepare_manifest(engine.dbt_target)
    on_start = _on_start.get()  # here, because dbt calls back from threads of its own

    def forward(event: Any) -> None:
        if on_start is not None and event.info.name == _START_EVENT and event.data.node_info.resource_type == "model":
            on_start(event.data.node_info.node_name)
        # Only these are converted: a conversion to a dict is slow, and dbt emits some hundred events per run.
        if event.info.name in RESULT_EVENTS:
            on_event(MessageToDict(event, preserving_proto_field_name=True))

    parsed = _parsed_project(engine.dbt_target, engine.catalog, engine.schema)
    # A bare name would also select the folder of that name. The full name selects one model.
    selected = [".".join(node.fqn) for node in parsed.nodes.values() if node.name in models]
    arguments = [
        "build",
        *_where(engine.dbt_target),
        "--target-path",
        str(target_dir(engine.dbt_target)),
        "--no-write-json",
        *_vars(variables),
        "--select",
        *selected,
    ]
    with _environment(engine.dbt_environment):
        try:
            result = _runner(parsed, [forward]).invoke(arguments)
        finally:
            if engine.dbt_target == _DUCKDB:
                _release_connections()
    if result.exception is not None and not isinstance(result.exception, Exception):
        raise result.exception  # of a signal: dbt catches everything
    if result.exception is not None:
        raise engine.problem(str(result.exception)) or DbtError(str(result.exception))
    executed = getattr(result.result, "results", [])
    results = [
        ModelResult(
            name=item.node.unique_id.split(".")[2],
            is_model=item.node.resource_type == "model",
            succeeded=item.status in ("success", "pass", "warn"),
            seconds=item.execution_time,
            message=item.message or "",
        )
        for item in executed
    ]
    for failed in results:
        if not failed.succeeded and (problem := engine.problem(failed.message)):
            raise problem
    return results


def _where(engine: str) -> list[str]:
    where = ["--project-dir", str(PROJECT_DIR), "--profiles-dir", str(PROJECT_DIR)]
    # dbt creates the directory for logs even if it writes none.
    where += ["--log-path", str(target_dir(engine) / "logs")]
    quiet = ["--log-level", "none", "--log-level-file", "none", "--no-use-colors", "--no-print"]
    return [*where, *quiet, "--no-version-check"]


def _vars(variables: Mapping[str, Any]) -> list[str]:
    return ["--vars", orjson.dumps({**_POLICIES, **variables}).decode()]


def _runner(manifest: Manifest | None, callbacks: list[Callable[[Any], None]]) -> Any:
    return _runner_class()(manifest=manifest, callbacks=callbacks)


@cache  # once, because it also ends garbage collection of what is alive at that moment
def _runner_class() -> Any:
    with large_imports():
        from dbt.cli.main import dbtRunner
    return dbtRunner


@cache
def _parsed_project(engine: str, catalog: str, schema: str) -> Manifest:
    """The parsed project, with every relation in the given catalog (DuckDB names it after the file) and schema."""
    from dbt.contracts.graph.manifest import Manifest

    manifest = Manifest.from_msgpack((target_dir(engine) / _PARSED).read_bytes())
    for node in (*manifest.nodes.values(), *manifest.sources.values()):
        node.database, node.schema = catalog, schema
        node.relation_name = None
    return manifest


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the environment variables that ``profiles.yml`` reads, for the duration of one call."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _release_connections() -> None:
    """Close the adapter's connection, which would otherwise hold the file's lock until the process ends.

    A thread of dbt's may still be inside a call on it, and DuckDB 2.0 refuses to close a busy connection. So this waits
    for the end of that call, for half a minute at most.
    """
    import duckdb
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager

    environment = DuckDBConnectionManager._ENV
    DuckDBConnectionManager.close_all_connections()
    give_up_at = time.monotonic() + _RELEASE_SECONDS
    while environment is not None:
        try:
            environment.close()
            return
        except duckdb.Error as error:
            if type(error).__name__ != "ResourceInUseException" or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)


def _sources_digest() -> str:
    import dbt.version  # another dbt may read the same files differently

    digest = hashlib.sha256(dbt.version.installed.to_version_string().encode() + orjson.dumps(_POLICIES))
    for path in sorted(PROJECT_DIR.rglob("*")):
        relative = path.relative_to(PROJECT_DIR)
        if path.is_file() and relative.parts[0] not in ("target", "logs"):
            digest.update(relative.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
