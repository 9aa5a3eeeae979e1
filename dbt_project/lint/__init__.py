"""What sqlfluff must know of dbt to render the models: enough to lint their SQL, nothing of what it does."""

import ast
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jinja2 import pass_context

_POLICIES = Path(__file__).parent.parent / "macros" / "stitch" / "policies"


def _dispatch(macro: str) -> Callable[..., str]:
    shapes = {
        "join_latest": lambda left, right, *rest: f"{left} left join {right} on {left}.id = {right}.id",
        "least_reached": lambda edges: f"select a as node, b as component from {edges}",
        "nearest_seeds": lambda seeds, edges: f"select a as node, b as seed from {edges} cross join {seeds}",
    }
    return shapes.get(macro, lambda *arguments: f"{macro}({', '.join(map(str, arguments))})")


class _Macros:
    """What dbt calls `context`: every macro by its name."""

    def __getitem__(self, name: str) -> Callable[..., Any]:
        @pass_context
        def call(context: Any, *arguments: Any) -> Any:
            text = context[name](*arguments).strip()
            # Jinja knows no `return`: what a macro returned is here as text.
            return ast.literal_eval(text) if text.startswith("{") else text

        return call


def var(name: str, default: Any = None) -> Any:
    policies = sorted(path.stem for path in _POLICIES.glob("*.sql"))
    return {"policies": policies, "exceptions": {}, "stale_grains": ["sessions", "page_views"]}.get(name, name)


context = _Macros()
adapter = SimpleNamespace(
    dispatch=_dispatch, get_columns_in_relation=lambda relation: [SimpleNamespace(name="project_id")]
)
model = SimpleNamespace(config={"materialized": "in_place"})
target = SimpleNamespace(schema="stitch")
execute = True


def run_query(sql: str) -> Any:
    return SimpleNamespace(rows=[[1]])


globals()["return"] = lambda value: value  # no name that Python would let us define otherwise
