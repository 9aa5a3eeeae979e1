"""``stitch settings``: every setting, from the classes that read them; ``--markdown`` prints the table of the docs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.markup import escape

from stitch_pipeline.cli.command import EXIT_OK, Commands, add_command, print_json
from stitch_pipeline.settings import ProjectSettings, Settings
from stitch_pipeline.settings.environment import FROM_FILES
from stitch_pipeline.settings.rules import StitchingRules, as_text, rules_with

PER_PROJECT = "✎"


def add(commands: Commands) -> None:
    settings = add_command(commands, "settings", run, "show every setting, its default and its value in force")
    settings.add_argument("--markdown", action="store_true", help="print the table of the docs instead")


def run(options: argparse.Namespace, console: Console) -> int:
    if options.markdown:
        print(markdown_table(), end="")
    elif options.json:
        settings = Settings.load()
        print_json(
            {
                setting.name: {
                    "value": _value(settings, setting),
                    "default": setting.default,
                    "projects": _values_of_projects(settings, setting),
                }
                for setting in all_settings()
            }
        )
    else:
        print_settings(Settings.load(), console)
    return EXIT_OK


@dataclass(frozen=True)
class Setting:
    """A setting and where it can be set."""

    field: str
    default: str
    description: str
    in_environment: bool
    per_project: bool

    @property
    def name(self) -> str:
        """The environment variable, or the key for a setting that only stitch.toml has."""
        return f"STITCH_{self.field.upper()}" if self.in_environment else self.field

    @property
    def places(self) -> str:
        """Where it can be set, separated by commas."""
        places = {
            "environment": self.in_environment,
            "project": self.per_project,
            "one run": self.field in rules_with("one_run"),
            "preview": self.field in rules_with("preview"),
        }
        return ", ".join(place for place, may_be_set in places.items() if may_be_set)


def all_settings(cls: type[Settings] = Settings) -> list[Setting]:
    """Settings for all projects only, then rules, then settings for single projects only."""
    own = {name: field for name, field in cls.model_fields.items() if name not in FROM_FILES}
    rules = {name: own.pop(name) for name in StitchingRules.model_fields}
    of_projects = {name: field for name, field in ProjectSettings.model_fields.items() if name not in rules}
    return [
        *(_setting(name, field, in_environment=True, per_project=False) for name, field in own.items()),
        *(_setting(name, field, in_environment=True, per_project=True) for name, field in rules.items()),
        *(_setting(name, field, in_environment=False, per_project=True) for name, field in of_projects.items()),
    ]


def markdown_table() -> str:
    """The table of README.md. PER_PROJECT marks what stitch.toml may set per project."""
    lines = ["| setting | default | |", "| --- | --- | --- |"]
    for setting in all_settings():
        name = f"`{setting.name}`" + (f" {PER_PROJECT}" if setting.per_project else "")
        default = f"`{setting.default}`" if setting.default else ""
        lines.append(f"| {name} | {default} | {setting.description} |")
    return "\n".join(lines) + "\n"


def print_settings(settings: Settings, console: Console) -> None:
    """Print every setting with its value in force, its default and its description."""
    for setting in all_settings(type(settings)):
        values = "; ".join(_values(settings, setting)) or "not set"
        default = f"default {setting.default}" if setting.default else "no default"
        console.print(f"[bold]{setting.name}[/] = {escape(values)}  [dim]({escape(default)}; {setting.places})[/]")
        console.print(f"    {escape(setting.description)}")


def _values(settings: Settings, setting: Setting) -> Iterator[str]:
    """The value for all projects, and the values of the projects that set it themselves."""
    if value := _value(settings, setting):
        yield value
    yield from (f"{project}: {own}" for project, own in _values_of_projects(settings, setting).items())


def _value(settings: Settings, setting: Setting) -> str:
    return _shown(getattr(settings, setting.field), setting.per_project) if setting.in_environment else ""


def _values_of_projects(settings: Settings, setting: Setting) -> dict[str, str]:
    return {
        project: _shown(getattr(own, setting.field), True)
        for project, own in sorted(settings.projects.items())
        if setting.per_project and setting.field in own.model_fields_set
    }


def _setting(name: str, field: FieldInfo, *, in_environment: bool, per_project: bool) -> Setting:
    description = " ".join((field.description or "").split()).removesuffix(".")
    if isinstance(field.default, StrEnum):
        description += f": {', '.join(f'`{choice}`' for choice in type(field.default))}"
    return Setting(name, _shown(field.default, per_project), description, in_environment, per_project)


def _shown(value: Any, is_rule: bool) -> str:
    """A value as a person writes it. None is "unlimited" for a rule, and no value for another setting."""
    if value is None and not is_rule:
        return ""
    if isinstance(value, SecretStr):
        return "(secret)"
    if isinstance(value, tuple | dict):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else as_text(value)
