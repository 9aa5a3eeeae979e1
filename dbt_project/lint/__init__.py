"""What sqlfluff must know of dbt to render the models: enough to lint their SQL, nothing of what it does."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


def _dispatch(macro: str) -> Callable[..., str]:
    shapes = {
        "join_latest": lambda left, right, *rest: f"{left} left join {right} on {left}.id = {right}.id",
        "least_reached": lambda edges: f"select a as node, b as component from {edges}",
        "nearest_seeds": lambda seeds, edges: f"select a as node, b as seed from {edges} cross join {seeds}",
    }
    return shapes.get(macro, lambda *arguments: f"{macro}({', '.join(map(str, arguments))})")


adapter = SimpleNamespace(dispatch=_dispatch)
target = SimpleNamespace(schema="stitch")
execute = True


def run_query(sql: str) -> Any:
    return SimpleNamespace(rows=[[1]])


globals()["return"] = lambda value: value  # no name that Python would let us define otherwise
