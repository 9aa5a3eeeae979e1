"""``stitch_pipeline.IdentityStitching``: the definitions as a Dagster component, set up in YAML.

The attributes are the fields of ``Settings`` and ``Placement``. Their schema is that of these classes, with two things
added: a template such as ``{{ env.LANDING_DIR }}`` may stand for any value, and every value may be left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from dagster import Component, ComponentLoadContext, ComponentTree, Definitions, Model, ResolutionContext, Resolvable
from dagster.components import ComponentTypeSpec, Scaffolder, ScaffoldRequest, scaffold_with
from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo

from stitch_pipeline.orchestration.placement import Placement, placement_of
from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.dg_project import dg_project_around
from stitch_pipeline.settings.environment import paths_relative_to
from stitch_pipeline.settings.rules import StitchingRules, as_text
from stitch_pipeline.startup import large_imports

NOT_IN_YAML = ("decisions",)
"""Decisions are lines of `overrides.csv`, also under a component."""
_TEMPLATE = r"\{\{.*\}\}"
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "required")


class Scaffold(Scaffolder[Any]):
    """Writes a ``defs.yaml`` that loads as it is, with what one changes first."""

    def scaffold(self, request: ScaffoldRequest[Any]) -> None:
        request.target_path.mkdir(parents=True, exist_ok=True)
        prefix = "".join(c if c.isascii() and c.isalnum() else "_" for c in request.target_path.name)
        # The one name that the file cannot have (``Settings.duckdb_path``).
        file = "warehouse" if prefix.lower() == "stitch" else prefix
        if request.scaffold_format == "python":
            (request.target_path / "component.py").write_text(_PYTHON.format(prefix=prefix, file=file))
            return
        document = _YAML.format(type=request.type_name, prefix=prefix, file=file)
        path = request.target_path / "defs.yaml"
        if request.append:
            document = f"{path.read_text().rstrip()}\n---\n{document}"
        path.write_text(document)


@scaffold_with(Scaffold)
@dataclass(frozen=True)
class IdentityStitching(Component, Resolvable):
    """Credits anonymous sessions and page views to the person who later logs in, one daily partition at a time.

    It loads the event files of trackers from a landing directory into a DuckDB file, cuts sessions, and re-stitches
    exactly the rows that a late login changes. A relative path is relative to the root of the dg project.
    """

    settings: Settings
    placement: Placement = field(default_factory=lambda: Placement(owners=()))

    @classmethod
    def get_spec(cls) -> ComponentTypeSpec:
        return ComponentTypeSpec(
            description=" ".join((cls.__doc__ or "").split()),
            produces=["asset", "asset_check", "job", "sensor", "schedule", "resource"],
        )

    @classmethod
    def model(cls) -> type[BaseModel]:
        return Attributes

    @classmethod
    def load(cls, attributes: BaseModel | None, context: ComponentLoadContext) -> Self:
        with paths_relative_to(context.project_root):
            return super().load(attributes or Attributes(), context)

    @classmethod
    def resolve_from_model(cls, context: ResolutionContext, model: BaseModel) -> Self:
        """Raises SettingsError with one sentence for each wrong attribute."""
        given = {name: _resolved(context.at_path(name), getattr(model, name)) for name in model.model_fields_set}
        own = {name: given.pop(name) for name in Placement.model_fields if name in given}
        return cls(Settings.load(**given), placement_of(**{"owners": (), **own}))

    def build_defs(self, context: ComponentLoadContext) -> Definitions:
        with large_imports():
            from stitch_pipeline.definitions import build_defs

        return build_defs(self.settings, **dict(self.placement))


def component_at(path: Path, project: Path) -> IdentityStitching:
    """The component that stands at this path below ``defs`` in the dg project that contains ``project``.

    Its runs belong to the project's code location, unless a setting says otherwise. Raises SettingsError if there is
    none.
    """
    found = dg_project_around(project)
    hint = f" There are: {found.listed}." if found and path not in (one.path for one in found.components) else ""
    try:
        tree = ComponentTree.for_project(project)
        component = tree.load_component(path)
    except Exception as error:  # what dg raises has no class in common
        cause = str(error.__cause__ or error).rstrip(".")
        raise SettingsError(f"No component '{path}' loads in the dg project at '{project}': {cause}.{hint}") from None
    # A file of several documents.
    own = [one for one in getattr(component, "components", ()) if isinstance(one, IdentityStitching)]
    if len(own) > 1:
        raise SettingsError(f"'{path}' has {len(own)} components of this type: give each a directory of its own.")
    component = own[0] if own else component
    if not isinstance(component, IdentityStitching):
        kind = type(component).__name__
        raise SettingsError(f"'{path}' is no stitch_pipeline.IdentityStitching, but {kind}.{hint}")
    if "code_location" in component.settings.model_fields_set:
        return component
    settings = component.settings.model_copy(update={"code_location": tree.code_location_name})
    return replace(component, settings=settings)


def markdown_table() -> str:
    """The table of attributes in docs/your-own-dagster.md."""
    lines = ["| attribute | default | |", "| --- | --- | --- |"]
    for name, found in _fields():
        value = found.default
        is_plain = isinstance(value, str | int | float | Path | date) or name in StitchingRules.model_fields
        text = f"{value:g}" if isinstance(value, float) else as_text(value)
        default = f"`{text}`" if is_plain and text else ""
        description = " ".join((found.description or "").split()).removesuffix(".")
        if isinstance(value, StrEnum):
            description += f": {', '.join(f'`{word}`' for word in type(value))}"
        lines.append(f"| `{name}` | {default} | {description} |")
    return "\n".join(lines) + "\n"


def _fields() -> Iterator[tuple[str, FieldInfo]]:
    """The attributes: of the settings those for all projects first, then the rules; then the placement."""
    rules = StitchingRules.model_fields
    own = {name: found for name, found in Settings.model_fields.items() if name not in rules}
    for name, found in {**own, **rules, **Placement.model_fields}.items():
        if name not in NOT_IN_YAML:
            yield name, found


def _resolved(context: ResolutionContext, value: Any) -> Any:
    """The value with its templates filled in. Other text stays as it is: Dagster would make a number of "0123"."""
    if isinstance(value, Mapping):
        return {str(name): _resolved(context.at_path(name), item) for name, item in value.items()}
    if isinstance(value, list):
        return [_resolved(context.at_path(index), item) for index, item in enumerate(value)]
    if not isinstance(value, str) or "{{" not in value:
        return value
    filled_in = context.resolve_value(value)
    if filled_in is None:
        # Else the default would apply, and a variable that is not set would lead to another warehouse.
        name = ".".join(str(part) for part in context.path if part != "attributes")
        raise SettingsError(f"{name} = '{value}': has no value; is the variable set?")
    return filled_in


class _WithSchema(Model):
    """Accepts any value of a known name: values are checked when templates are filled in, by the classes themselves."""

    @classmethod
    def model_json_schema(cls, *arguments: Any, **named: Any) -> dict[str, Any]:
        properties: dict[str, Any] = {}
        schemas = [source.model_json_schema() for source in (Settings, Placement)]
        for name, _ in _fields():
            schema = next(found for found in schemas if name in found["properties"])
            properties[name] = _with_templates(schema["properties"][name], schema.get("$defs", {}))
        return {
            "title": IdentityStitching.__name__,
            "type": "object",
            "additionalProperties": False,
            "properties": properties,
        }


def _model() -> type[_WithSchema]:
    fields: dict[str, Any] = {
        name: (Any, Field(description=found.description, default=None)) for name, found in _fields()
    }
    return create_model("Attributes", __base__=_WithSchema, **fields)


Attributes = _model()


def _with_templates(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with templates in place of values, and without a choice among schemas.

    Of a wrong value among several schemas, `dg check yaml` says only that none is valid. So the choices are joined into
    one schema, and the message says which types or words are expected.
    """
    if schema.get("format") == "password" or any(one.get("format") == "password" for one in schema.get("anyOf", ())):
        # A secret does not belong into a file under version control.
        choices: list[Mapping[str, Any]] = [{"type": "string", "pattern": _TEMPLATE}]
    else:
        choices = list(_choices(schema, definitions))
    joined: dict[str, Any] = {name: schema[name] for name in ("title", "description", "default") if name in schema}
    joined["type"] = list(dict.fromkeys([*(choice["type"] for choice in choices), "string"]))
    words = [word for choice in choices for word in _words(choice)]
    if not any(choice["type"] == "string" and not {"enum", "const", "pattern"} & choice.keys() for choice in choices):
        patterns = [choice["pattern"] for choice in choices if choice["type"] == "string" and "pattern" in choice]
        joined["pattern"] = "|".join(dict.fromkeys([*(f"^{word}$" for word in words), *patterns, _TEMPLATE]))
    for choice in choices:
        joined |= {name: choice[name] for name in _LIMITS if name in choice}
        if "items" in choice:
            joined["items"] = _with_templates(choice["items"], definitions)
        if "properties" in choice:
            own = choice["properties"].items()
            joined["properties"] = {name: _with_templates(found, definitions) for name, found in own}
        if "additionalProperties" in choice:
            others = choice["additionalProperties"]
            is_schema = isinstance(others, Mapping)
            joined["additionalProperties"] = _with_templates(others, definitions) if is_schema else others
    return joined


def _choices(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schemas that a value may have, references and choices among choices resolved."""
    if "$ref" in schema:
        yield from _choices(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    elif "anyOf" in schema:
        for choice in schema["anyOf"]:
            yield from _choices(choice, definitions)
    else:
        yield schema


def _words(schema: Mapping[str, Any]) -> list[str]:
    return [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else [])]


_YAML = """\
type: {type}

attributes:
  # Precedes the keys of all assets ({prefix}/stitched_sessions) and the names of jobs, sensors and schedules.
  key_prefix: {prefix}
  # Where event files arrive. Each directory directly below is a feed, and its name says which tracker wrote the files:
  # jitsu, segment, snowplow, ga4, …. Relative to the project's root.
  landing_dir: data/landing
  # The warehouse. It is created when it is first needed. `stitch.duckdb` is the one name that it cannot have.
  duckdb_path: data/{file}.duckdb
  # The first daily partition (UTC); earlier events are quarantined.
  start_date: "2025-01-01"
  # A directory with another name, or with files of your own format, is described here.
  # feeds:
  #   web_events:
  #     source: segment
  #     project_id: shop
  #   exports:
  #     source: custom
  #     project_id: shop
  #     fields:
  #       event_id: id
  #       occurred_at: created_at
  #       anonymous_id: cookie
  #       user_id: account
  #       event_type: kind
  # What one site, app or workspace does differently. docs/your-own-dagster.md lists every attribute.
  # projects:
  #   shop:
  #     policy: latest
  #     lookback_days: 90
"""

_PYTHON = """\
import dagster as dg

from stitch_pipeline import IdentityStitching
from stitch_pipeline.settings import Settings


@dg.component_instance
def load(context: dg.ComponentLoadContext) -> IdentityStitching:
    data = context.project_root / "data"
    return IdentityStitching(
        Settings.load(key_prefix="{prefix}", landing_dir=data / "landing", duckdb_path=data / "{file}.duckdb")
    )
"""
