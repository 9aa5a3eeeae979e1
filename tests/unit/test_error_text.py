"""No value that an engine quotes is left in its message, and its kind and place are."""

from __future__ import annotations

import duckdb
import pytest

from stitch_pipeline.planning.error_text import without_values


@pytest.mark.parametrize(
    ("message", "safe"),
    [
        (
            'Invalid Input Error: Malformed JSON in file "/l/a", at byte 7 in record/value 3: unexpected character. ',
            "Invalid Input Error: Malformed JSON in the file, at byte 7 in record/value 3: unexpected character.",
        ),
        (
            "Invalid Input Error: No magic bytes found at end of file '/l/b.parquet'\n\nLINE 1: from x",
            "Invalid Input Error: No magic bytes found at end of the file",
        ),
        (
            "Invalid Input Error: CSV Error on Line: 3\nOriginal Line: ann@example.com,1",
            "Invalid Input Error: CSV Error on Line: 3",
        ),
        (
            "IO Error: Unexpected end of GZIP stream: /l/e.csv.gz",
            "IO Error: Unexpected end of GZIP stream: /l/e.csv.gz",
        ),
        (
            "Runtime Error in model users (models/marts/users.sql)\n"
            "  Conversion Error: Could not convert string 'ann' to INT32\n  compiled code at target/users.sql",
            "Runtime Error in model users (models/marts/users.sql)\n  Conversion Error: Could not convert string",
        ),
        ("Got 3 results, configured to fail if != 0", "Got 3 results, configured to fail if != 0"),
    ],
)
def test_the_kind_and_the_place_stay(message: str, safe: str) -> None:
    assert without_values(message) == safe


@pytest.mark.parametrize(
    "sql",
    [
        "select 'SECRET7'::integer",
        "select 'one''SECRET7'::integer",
        "select 'first line\nSECRET7'::integer",
        "select '\"SECRET7'::date",
        "select '777777777777'::double::integer",
        "select 9223372036854775807::bigint + 777777",
        "select 777777777777::decimal(38, 0)::decimal(5, 2)",
        "select json_extract('SECRET7', '$.a')",
        "select strptime('SECRET7', '%Y')",
        "select SECRET7",
    ],
)
def test_a_value_is_left_out(sql: str) -> None:
    with pytest.raises(duckdb.Error) as error:
        duckdb.execute(sql).fetchall()
    assert "SECRET7" in str(error.value) or "7777" in str(error.value)
    safe = without_values(str(error.value))
    assert " Error: " in safe
    assert "SECRET7" not in safe
    assert "7777" not in safe
