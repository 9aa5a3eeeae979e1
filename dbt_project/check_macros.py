"""Lint the SQL inside macros, which sqlfluff skips both where a macro is defined and where it is used.

Each macro, and each block of SQL that a macro keeps in a variable or executes, is linted as a template of its own, with
sample arguments. SQL in Jinja strings, as in `run_query('drop table ' ~ name)`, is not linted.
"""

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import lint  # what sqlfluff knows of dbt, in the folder beside this file
from jinja2 import Environment, meta
from jinja2.defaults import DEFAULT_NAMESPACE
from sqlfluff.core import FluffConfig, Linter
from sqlfluff.core.templaters.builtins.dbt import DBT_BUILTINS

PROJECT = Path(__file__).parent

# Rules for models that macros need not follow.
EXCLUDED = (
    # A macro is indented for the place of its use, and it may keep a short query on one line.
    *("layout.start_of_file", "layout.end_of_file", "layout.indent"),
    *("layout.select_targets", "layout.keyword_newline", "layout.set_operators"),
    # A part of a query has no place for a CTE, and a relation that may be a subquery needs an alias.
    *("structure.subquery", "aliasing.unused"),
)

# Values of arguments; another argument `a` is `the_a`. A loop over a text takes its letters.
ARGUMENTS = {
    "columns": "a",
    "in_force": "select 1 as id",
    "key": ["project_id", "id"],
    "keys": "a",
    "query": "select 1 as id",
    "rows": "select 1 as id",
    "stage": "decides",
    "step": {"first_day": "2025-01-01", "last_day": "2025-01-02"},
    "trait": "resolves_persons",
}
# Stands for the longest macro where others call it: parsing it there too would take a third of the time.
STITCH = (
    "{% macro stitch(subjects, switch, policy) %}{{ 'stitched as (select * from ' ~ subjects ~ ')' }}{% endmacro %}"
)

TAG = re.compile(r"(\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\})", re.S)
DEFINITION = re.compile(r"(\{%-? *(macro|test|materialization) .*?%\})(.*?)\{%-? *end\2 *-?%\}", re.S)
BLOCK = re.compile(r"(\{%-? *(set|call) +(?:\w+|statement\([^%]*\)) *-?%\})(.*?)(\{%-? *end\2 *-?%\})", re.S)
# sqlfluff does not know this clause of DuckDB.
USING_KEY = re.compile(r" using key \(\w+\)")


def templates(text: str, known: set[str]) -> Iterator[str]:
    """Each piece of SQL in a file of macros as a template of a whole statement.

    Line 1 holds what the piece needs. Below it the SQL has the line numbers of the file plus one.
    """
    for definition in DEFINITION.finditer(text):
        tag, _, body = definition.groups()
        # An argument or a variable may have the name of something global.
        known_here = known - set(re.findall(r"\w+", tag)) - set(re.findall(r"\{%-? *set (\w+)", body))
        variables = ""
        for block in BLOCK.finditer(body):
            yield from _template(text, definition.start(3) + block.start(3), block[3], variables, known_here)
            if block[2] == "set":
                # Its SQL as Jinja strings, so that sqlfluff does not lint it a second time.
                parts = (part if TAG.match(part) else f"{{{{ {part!r} }}}}" for part in TAG.split(block[3]))
                variables += " ".join((block[1] + "".join(parts) + block[4]).splitlines())
        rest = BLOCK.sub(lambda block: "{#" + "\n" * block[0].count("\n") + "#}", body)
        yield from _template(text, definition.start(3), rest, variables, known_here)


def _template(text: str, start: int, sql: str, variables: str, known: set[str]) -> Iterator[str]:
    shape = re.sub(r"\{#.*?#\}|\{%.*?%\}|--[^\n]*", "", sql, flags=re.S)
    shape = re.sub(r"\{\{.*?\}\}", "_", shape, flags=re.S).strip()
    if not re.search(r"[^\W_]", shape):
        return  # nothing but Jinja
    before, after = _around(shape)
    lines = text.count("\n", 0, start + len(sql) - len(sql.lstrip())) + 1
    sql = USING_KEY.sub("", sql.strip())
    names = meta.find_undeclared_variables(Environment(extensions=["jinja2.ext.do"]).parse(variables + sql)) - known
    samples = "".join(f"{{% set {name} = {ARGUMENTS.get(name, f'the_{name}')!r} %}}" for name in sorted(names))
    header = samples + STITCH + variables + f"{{{{ {before!r} }}}}" + "{#" + "\n" * lines + "#}"
    yield header + sql + f"{{{{ {after!r} }}}}"


def _around(shape: str) -> tuple[str, str]:
    """The text before and after a piece of SQL that makes it a whole statement."""
    if re.match(r"(select|with|insert|update|delete|create)\b", shape, re.I):
        return "", ""
    if re.match(r"(_,\s*)?\w+ as (_ ?)?\(", shape, re.I):
        # A macro of CTEs gives the last one, and the macro of a policy its candidates too.
        names = re.findall(r"^(\w+) as (?:_ ?)?\(", shape, re.M | re.I)
        given = [name for name in names if name == names[-1] or name.endswith("_candidates")]
        return "with\n", "\n" + " union all ".join(f"select * from {name}" for name in given)
    if re.match(r"from\b", shape, re.I):
        return "select *\n", ""
    if re.match(r"when\b", shape, re.I):
        return "select case\n", "\nend as result"
    if re.match(r"_\s+(asof )?left join\b", shape, re.I):
        return "select * from\n", ""
    return "select 1 from rows where\n", ""


@cache
def _linter() -> Linter:
    rules = FluffConfig.from_path(str(PROJECT)).get("exclude_rules")
    return Linter(FluffConfig.from_path(str(PROJECT), overrides={"exclude_rules": ", ".join((rules, *EXCLUDED))}))


def findings(path: str, template: str) -> set[tuple[str, int, str, str]]:
    """File, line, rule and description of each thing that is wrong with one template."""
    return {
        (path, found.line_no - 1, found.rule_code(), found.desc())
        for found in _linter().lint_string(template, fname=path).get_violations()
        # Layout of line 1 does not matter, but what is wrong with a whole statement is reported there.
        if found.line_no > 1 or found.rule_code() in ("PRS", "TMP")
    }


def main() -> int:
    files = {path: path.read_text() for folder in ("macros", "tests") for path in (PROJECT / folder).rglob("*.sql")}
    known = {name for text in files.values() for name in re.findall(r"\{% macro (\w+)", text)}
    known |= {*DEFAULT_NAMESPACE, *DBT_BUILTINS, *vars(lint)}
    pieces = [(str(path), template) for path, text in files.items() for template in templates(text, known)]
    with ProcessPoolExecutor() as pool:
        found = set().union(*pool.map(findings, *zip(*pieces, strict=True)))
    for path, line, rule, description in sorted(found):
        print(f"{Path(path).relative_to(PROJECT.parent).as_posix()}:{line}: {rule} {description}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
