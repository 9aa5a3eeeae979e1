"""The path language of sources: what a path means, and what it finds."""

from __future__ import annotations

import json

import duckdb
import pytest

from stitch_pipeline.landing.fields import DocumentFields
from stitch_pipeline.sources.paths import Index, Key, Match, Parameter, Segment, parse_path
from stitch_pipeline.sources.source import Layout

MEANINGS: dict[str, tuple[Segment, ...]] = {
    "userId": (Key("userId"),),
    "contexts[0].userId": (Key("contexts"), Index(0), Key("userId")),
    "data[schema=iglu:a/b/*].id": (Key("data"), Match("schema", "iglu:a/b/", is_prefix=True), Key("id")),
    "context.page.url?ajs_aid": (Key("context"), Key("page"), Key("url"), Parameter("ajs_aid", None)),
    "page_url?_sp.0": (Key("page_url"), Parameter("_sp", 0)),
    # Names of columns as people write them: no parameter follows the question mark.
    "newsletter?": (Key("newsletter?"),),
    "what is it? (free text)": (Key("what is it? (free text)"),),
    "?": (Key("?"),),
}


@pytest.mark.parametrize("path", MEANINGS)
def test_a_path_is_its_segments(path: str) -> None:
    assert parse_path(path) == MEANINGS[path]


ADDRESSES = {
    "https://shop.example/?_sp=b0258d-1.1499000000": ("b0258d-1.1499000000", "b0258d-1", "1499000000"),
    "https://shop.example/a?x=1&_sp=b0.1#_sp=c": ("b0.1", "b0", "1"),
    "https://shop.example/?_sp=a%2Fb%20c.1": ("a/b c.1", "a/b c", "1"),
    "https://shop.example/?_sp=alone": ("alone", "alone", None),
    # Not the parameter: another name, another part of the address, or nothing behind it.
    "https://shop.example/?x_sp=b0.1&_spx=1": (None, None, None),
    "https://shop.example/#?_sp=b0.1": (None, None, None),
    "https://shop.example/_sp=b0.1": (None, None, None),
    "https://shop.example/?_sp=&x=1": (None, None, None),
    # Bytes that are no text.
    "https://shop.example/?_sp=%ff.1": (None, None, None),
    "": (None, None, None),
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_parameter_of_an_address(address: str) -> None:
    paths = ("url?_sp", "url?_sp.0", "url?_sp.1")
    layout = Layout(name="any", fields={"page_url": ("url",)})
    fields = DocumentFields(paths, layout)
    found = ", ".join(str(fields.value(path)) for path in paths)
    query = f"select {found} from (select {fields.found_sql} as found from (select $line as line))"
    assert duckdb.execute(query, {"line": json.dumps({"url": address})}).fetchall() == [ADDRESSES[address]]
