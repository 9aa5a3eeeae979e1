"""A policy is one member of the enum and one file of macros."""

from __future__ import annotations

import re

import pytest

from stitch_pipeline.settings import Policy
from stitch_pipeline.shipped_files import DBT_PROJECT

POLICIES = DBT_PROJECT / "macros" / "stitch" / "policies"


@pytest.mark.parametrize("policy", Policy)
def test_a_policy_has_a_file_with_its_rule_its_traits_and_its_reasons(policy: Policy) -> None:
    text = (POLICIES / f"{policy}.sql").read_text(encoding="utf-8")
    signatures = re.findall(r"{%-? macro (.+?) -?%}", text)
    assert signatures == [f"policy_{policy}(lookups, links)", f"policy_{policy}_traits()", f"policy_{policy}_reasons()"]
    assert f"{policy}_candidates as (" in text


def test_no_other_file_is_among_the_policies() -> None:
    assert {path.name for path in POLICIES.iterdir()} == {f"{policy}.sql" for policy in Policy}


def test_no_other_file_of_the_rules_names_a_policy() -> None:
    files = [DBT_PROJECT / "macros" / "stitch" / name for name in ("stitch.sql", "policies.sql")]
    for path in [*files, *(DBT_PROJECT / "models" / "audit").glob("*.sql")]:
        code = re.sub(r"{#.*?#}|--[^\n]*", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        named = [policy for policy in Policy if re.search(rf"'{policy}'", code)]
        assert not named, path
