"""The configuration of a deployment: the environment, ``stitch.toml``, ``overrides.csv``, ``forgotten.csv``, and the
rules that these set.

Belongs here: reading and checking settings, and one clear sentence for each that is wrong. Does not: Dagster, a
database, or what a rule does to a row (``dbt_project/macros/stitch``).
"""

from stitch_pipeline.settings.environment import Settings
from stitch_pipeline.settings.errors import SettingsError
from stitch_pipeline.settings.project_file import FeedSettings
from stitch_pipeline.settings.rules import Policy, ProjectSettings

__all__ = ["FeedSettings", "Policy", "ProjectSettings", "Settings", "SettingsError"]
