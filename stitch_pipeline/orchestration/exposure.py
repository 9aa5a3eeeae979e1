"""What Dagster's records may hold of the data: run metadata, log lines and errors outlive the rows that they quote.

Unless ``show_ids`` is set, no id and no value of an event gets there. A place that would record one asks this module.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from dagster import MetadataValue

from stitch_pipeline.planning.error_text import without_values
from stitch_pipeline.planning.interruption import interruptible
from stitch_pipeline.settings import Settings
from stitch_pipeline.warehouse.dbt_project import DbtError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_REMEDY = "STITCH_SHOW_IDS=true shows the whole message"
# Messages of these packages do not quote the data; those of engines do.
_OWN = ("stitch_pipeline", "dagster")


class StepError(Exception):
    """What ended a step, without values of the data."""


def shown(settings: Settings, message: str) -> str:
    """The message of an engine or of dbt, as it may be recorded."""
    if settings.show_ids:
        return message
    safe = without_values(message)
    return safe if safe == message else f"{safe} … ({_REMEDY})"


def samples(settings: Settings, **metadata: Any) -> Mapping[str, MetadataValue[Any]]:
    """Metadata that quotes data: empty unless ``show_ids`` is set."""
    return {name: MetadataValue.json(value) for name, value in metadata.items()} if settings.show_ids else {}


def hides_values(settings: Settings) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A decorator for the body of an asset or op: what it raises is recorded as ``shown`` says."""

    def decorated(body: Callable[_P, _R]) -> Callable[_P, _R]:
        if inspect.isgeneratorfunction(body):

            @functools.wraps(body)
            def events(*arguments: _P.args, **named: _P.kwargs) -> Iterator[Any]:
                with _hidden(settings):
                    yield from body(*arguments, **named)

            return events  # type: ignore[return-value]

        @functools.wraps(body)
        def once(*arguments: _P.args, **named: _P.kwargs) -> _R:
            with _hidden(settings):
                return body(*arguments, **named)

        return once

    return decorated


@contextmanager
def _hidden(settings: Settings) -> Iterator[None]:
    try:
        with interruptible():
            yield
    except Exception as error:
        if isinstance(error, DbtError):
            raise DbtError(shown(settings, str(error))).with_traceback(error.__traceback__) from None
        if settings.show_ids or type(error).__module__.split(".")[0] in _OWN:
            raise
        # Not `from error`: Dagster records the whole chain.
        raise StepError(f"{type(error).__name__}: {shown(settings, str(error))}").with_traceback(
            error.__traceback__
        ) from None
