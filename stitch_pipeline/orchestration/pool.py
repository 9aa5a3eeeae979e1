"""The pool limit that lets one step at a time open the warehouse, and what is said where an instance lacks it.

Without the limit nothing breaks: DuckDB locks the file, so a second run waits for it, up to STITCH_LOCK_WAIT_SECONDS,
and is requested again if that was too short. But it waits with a process of its own, and not in Dagster's queue.
"""

from __future__ import annotations

import logging

from dagster import DagsterInstance

_warned: set[str] = set()


def missing_limit(instance: DagsterInstance, pool: str) -> str | None:
    """What to do about a pool that lets several steps run at a time; None if it lets one."""
    storage = instance.event_log_storage
    limit = instance.global_op_concurrency_default_limit
    if storage.supports_global_concurrency_limits:
        own = next((found for found in storage.get_pool_limits() if found.name == pool), None)
        limit = own.limit if own and not own.from_default else limit
    if limit is not None and limit <= 1:
        return None
    return (
        f"The pool '{pool}' has {'no limit' if limit is None else f'the limit {limit}'} in this Dagster instance, so "
        "runs that write to the warehouse start at the same time and wait for each other's lock. Run "
        f"`dagster instance concurrency set {pool} 1`, or set concurrency.pools.default_limit: 1 in dagster.yaml."
    )


def warn_once(instance: DagsterInstance, pool: str, log: logging.Logger) -> None:
    """Log in a tick what ``missing_limit`` says, and in the process's own log, once per process and pool."""
    if pool in _warned:
        return
    _warned.add(pool)
    if warning := missing_limit(instance, pool):
        log.warning(warning)
        logging.getLogger(__name__).warning(warning)
