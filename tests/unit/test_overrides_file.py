"""``overrides.csv``: what can be written, and one clear sentence for each line that is wrong."""

from pathlib import Path

import pytest

from stitch_pipeline.settings import Settings, SettingsError
from stitch_pipeline.settings.decisions import Decision, DecisionKind, consequences, read_decisions

HEADER = "project_id,decision,id,other_id,reason\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "overrides.csv"
    path.write_text(text, encoding="utf-8")
    return path


def line(decision: str, one: str, other: str = "", project: str = "shop", reason: str = "") -> Decision:
    return Decision(project, DecisionKind(decision), one, other, reason)


def test_a_file_with_every_decision(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "# What we know better than the tracker.\n"
        + HEADER
        + 'shop, same_person, ann, ann@work, "two accounts, says Ann"\n'
        + "\n"
        + "shop,never_same,ann,bob,\n"
        + "blog,shared_device,till,,the shop's till\n"
        + "shop,wrong_link,laptop,sam,support\n",
    )
    assert read_decisions(path) == (
        line("same_person", "ann", "ann@work", reason="two accounts, says Ann"),
        line("never_same", "ann", "bob"),
        line("shared_device", "till", project="blog", reason="the shop's till"),
        line("wrong_link", "laptop", "sam", reason="support"),
    )
    assert read_decisions(written(tmp_path, "")) == ()
    assert read_decisions(written(tmp_path, "decision,project_id,other_id,id\nnever_same,shop,ann,bob\n")) == (
        line("never_same", "bob", "ann"),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "project_id,decision,id,other_id,why\n",
            "line 1: 'why' is no column, or occurs twice; the header is: project_id,",
        ),
        (
            "project_id,decision,id,reason\n",
            "line 1: the column other_id is missing; the header is: project_id,decision,",
        ),
        ("shop,same_person,ann,bob,\n", "line 1: 'shop' is no column"),
        (
            HEADER + "shop,same,ann,bob,\n",
            "line 2: decision = 'same': is no decision; the decisions are: same_person, ",
        ),
        (
            HEADER + "\n# a note\n,same_person,ann,bob,\n",
            "line 4: project_id = '': name the project of the ids",
        ),
        (HEADER + "shop,same_person,ann,,\n", "line 2: other_id = '': same_person needs the id of a user here"),
        (HEADER + "shop,wrong_link,,ann,\n", "line 2: id = '': wrong_link needs the id of a device here"),
        (HEADER + "shop,shared_device,till,ann,\n", "other_id = 'ann': shared_device is about one device: leave this"),
        (HEADER + "shop,never_same,ann,ann,\n", "other_id = 'ann': never_same needs two different ids: correct one"),
        (
            HEADER + "shop,never_same,ann\n",
            "line 2: 3 fields where the header has 5: write every comma, and put a value",
        ),
        (HEADER + 'shop,never_same,"ann,bob,\n', "line 2: is no CSV .*: close every double quote"),
        (
            HEADER + "shop,never_same,ann,bob,\nshop,never_same,bob,ann,again\n",
            "line 3: 'never_same bob' repeats line 2: take one of the two out",
        ),
        (
            HEADER + "shop,same_person,ann,x,\nshop,same_person,bob,x,\n",
            "line 3: other_id = 'x': is already the same person as 'ann'; to make all three one person, write "
            "'same_person' with id 'ann' and other_id 'bob'",
        ),
        (
            HEADER + "shop,same_person,ann,bob,\nshop,same_person,bob,cem,\nshop,same_person,cem,ann,\n",
            "line 4: other_id = 'ann': 'cem' is already credited to this id, so neither would be the canonical id",
        ),
        (
            HEADER + "shop,never_same,bob,cem,\nshop,same_person,ann,bob,\nshop,same_person,bob,cem,\n",
            "line 2: other_id = 'cem': never the same as 'bob', but by same_person lines both are 'ann': take this",
        ),
    ],
)
def test_a_wrong_line_is_named_with_its_field_its_value_and_what_to_do(text: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(SettingsError, match=message) as caught:
        Settings.load(overrides_file=path)
    assert str(caught.value).startswith(str(path))


def test_all_wrong_lines_are_named_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER + "shop,same,ann,bob,\nshop,never_same,ann,bob,\nshop,shared_device,,,\n")
    with pytest.raises(SettingsError) as caught:
        Settings.load(overrides_file=path)
    assert str(caught.value).count(str(path)) == 2


def test_the_same_ids_in_two_projects_are_other_people(tmp_path: Path) -> None:
    lines = "shop,same_person,ann,bob,\nblog,same_person,bob,ann,\nnews,never_same,ann,bob,\n"
    follows = consequences(read_decisions(written(tmp_path, HEADER + lines)))
    assert follows.person("shop", "bob") == "ann"
    assert follows.person("blog", "ann") == "bob"
    assert follows.person("news", "bob") == "bob"


def test_the_file_lies_beside_the_project_file_and_may_be_absent(tmp_path: Path) -> None:
    (tmp_path / "stitch.toml").write_text("")
    assert Settings.load(project_file=tmp_path / "stitch.toml").decisions == ()
    written(tmp_path, HEADER + "shop,shared_device,till,,\n")
    assert Settings.load(project_file=tmp_path / "stitch.toml").decisions == (line("shared_device", "till"),)
    with pytest.raises(
        SettingsError, match=r"STITCH_OVERRIDES_FILE names '.*nowhere\.csv', which does not exist: create"
    ):
        Settings.load(overrides_file=tmp_path / "nowhere.csv")
