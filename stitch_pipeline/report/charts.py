"""The charts, as Vega-Lite specifications over the named tables of the page.

Colours are the page's CSS variables, so a chart follows the reader's light or dark scheme without being drawn again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]

_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
BEFORE, AFTER, QUIET, WARN = "var(--before)", "var(--after)", "var(--quiet)", "var(--warn)"
COUNT, SHARE = ",.0f", ".0%"
"""Formats of numbers on an axis and in its tooltips."""
_DAYS_NAMED_EACH = 14
_POINTS_UP_TO = 45
"""A line over at most so many days has a point for each, without which a single day would be invisible."""

CONFIG: Spec = {
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": "var(--grid)",
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelPadding": 8,
    },
    "axisX": {"grid": False, "labelOverlap": True, "labelSeparation": 10},
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": "var(--text)",
        "labelFontSize": 12,
        "symbolType": "circle",
        "symbolSize": 70,
        "offset": 12,
        "columnPadding": 18,
        "labelLimit": 300,
    },
}


def _chart(description: str, data: str, height: int, **rest: Any) -> Spec:
    return {
        "$schema": _SCHEMA,
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "data": {"name": data},
        "config": CONFIG,
        **rest,
    }


# Vega's `tickMinStep` still makes ticks at halves, and their rounded labels would repeat.
_WHOLE = "datum.value == floor(datum.value) ? datum.label : ''"


def _count_axis(title: str) -> Spec:
    return {"title": title, "tickCount": 4, "format": COUNT, "grid": True, "labelExpr": _WHOLE}


def _day_axis(day_count: int) -> Spec:
    # With more ticks than days, a day would be named several times.
    ticks: Spec = {"interval": "day", "step": 1} if day_count <= _DAYS_NAMED_EACH else {"expr": "width / 90"}
    return {**_DAY, "axis": {**_DAY["axis"], "tickCount": ticks}}


_DAY: Spec = {
    "field": "day",
    "type": "temporal",
    "scale": {"type": "utc"},
    "axis": {
        "title": None,
        "format": "%d %b",
        "labelAngle": 0,
        "labelFlush": True,
    },
}
_DAY_TOOLTIP: Spec = {"field": "day", "type": "temporal", "timeUnit": "utcyearmonthdate", "title": "day (UTC)"}


def lines_per_day(
    description: str, data: str, series: Mapping[str, str], title: str, number_format: str, day_count: int
) -> Spec:
    """Two lines over days with the area between them. ``series`` maps columns to labels: before, then after."""
    before, after = series
    colours = {"domain": list(series.values()), "range": [BEFORE, AFTER]}
    value: Spec = {
        "type": "quantitative",
        "scale": {"nice": 5},
        "axis": {"title": title, "format": number_format, "tickCount": 5},
    }
    if number_format == COUNT:
        value["axis"]["labelExpr"] = _WHOLE
    tooltip = [
        _DAY_TOOLTIP,
        *({"field": column, "title": label, "format": number_format} for column, label in series.items()),
    ]
    line: Spec = {"type": "line", "strokeWidth": 2, "interpolate": "monotone"}
    if day_count <= _POINTS_UP_TO:
        line["point"] = {"size": 28 if day_count > 3 else 80, "filled": True}
    return _chart(
        description,
        data,
        260,
        encoding={"x": _day_axis(day_count)},
        layer=[
            {
                "mark": {"type": "area", "interpolate": "monotone", "color": AFTER, "opacity": 0.12},
                "encoding": {"y": {"field": after, **value}, "y2": {"field": before}},
            },
            {
                "transform": [
                    {"fold": [before, after], "as": ["column", "value"]},
                    {
                        "calculate": f"datum.column === '{before}' ? '{series[before]}' : '{series[after]}'",
                        "as": "series",
                    },
                ],
                "mark": line,
                "encoding": {
                    "y": {"field": "value", **value},
                    "color": {"field": "series", "type": "nominal", "scale": colours, "sort": None},
                },
            },
            {
                "mark": {"type": "rule", "strokeWidth": 16, "color": "var(--text)"},
                "params": [
                    {
                        "name": "hover",
                        "select": {
                            "type": "point",
                            "fields": ["day"],
                            "nearest": True,
                            "on": "pointerover",
                            "clear": "pointerout",
                        },
                    }
                ],
                "encoding": {
                    "opacity": {"condition": {"param": "hover", "empty": False, "value": 0.07}, "value": 0},
                    "tooltip": tooltip,
                },
            },
        ],
    )


def bars(description: str, data: str, category: str, value: str, *, category_title: str, value_title: str) -> Spec:
    """Upright bars of one column by category, in the order of the rows, each with its number above it."""
    x: Spec = {
        "field": category,
        "type": "nominal",
        "sort": None,
        "axis": {"title": category_title, "labelAngle": 0, "labelOverlap": False, "labelLimit": 120},
    }
    return _chart(
        description,
        data,
        240,
        encoding={"x": x, "y": {"field": value, "type": "quantitative", "axis": _count_axis(value_title)}},
        layer=[
            {
                "mark": {"type": "bar", "color": AFTER, "cornerRadiusEnd": 3, "width": {"band": 0.65}},
                "encoding": {
                    "tooltip": [
                        {"field": category, "type": "nominal", "title": category_title},
                        {"field": value, "title": value_title, "format": ","},
                        {"field": "share", "title": "share", "format": ".1%"},
                    ]
                },
            },
            {
                "mark": {"type": "text", "dy": -8, "color": "var(--muted)", "fontSize": 11},
                "encoding": {"text": {"field": value, "format": ","}},
            },
        ],
    )


def lying_bars(
    description: str, data: str, category: str, value: str, *, value_title: str, row_count: int, colour: str = AFTER
) -> Spec:
    """Horizontal bars, for categories with long names; ``row_count`` decides the height."""
    y: Spec = {
        "field": category,
        "type": "nominal",
        "sort": None,
        "axis": {"title": None, "labelLimit": 150, "grid": False, "labelColor": "var(--text)", "labelFontSize": 12},
    }
    x: Spec = {
        "field": value,
        "type": "quantitative",
        "axis": _count_axis(value_title),
        "scale": {"padding": 26, "nice": False, "zero": True},
    }
    return _chart(
        description,
        data,
        max(90, 30 * row_count + 45),
        encoding={"y": y, "x": x},
        layer=[
            {
                "mark": {"type": "bar", "color": colour, "cornerRadiusEnd": 3, "height": {"band": 0.6}},
                "encoding": {
                    "tooltip": [
                        {"field": category, "type": "nominal"},
                        {"field": value, "title": value_title, "format": ","},
                    ]
                },
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 6, "color": "var(--muted)", "fontSize": 11},
                "encoding": {"text": {"field": value, "format": ","}},
            },
        ],
    )


def changed_per_day(description: str, data: str, day_count: int) -> Spec:
    """The rows that were credited otherwise, per day, stacked by table."""
    colours = {"stitched_sessions": AFTER, "page_views": BEFORE}
    return _chart(
        description,
        data,
        220,
        mark={"type": "bar", "width": {"band": 0.8}},
        encoding={
            "x": {**_day_axis(day_count), "timeUnit": "utcyearmonthdate", "bandPosition": 0.5},
            "y": {"field": "rows", "type": "quantitative", "axis": _count_axis("rows credited otherwise")},
            "color": {
                "field": "table",
                "type": "nominal",
                "scale": {"domain": list(colours), "range": list(colours.values())},
                "legend": _WRAPPED,
            },
            "tooltip": [
                _DAY_TOOLTIP,
                {"field": "table", "type": "nominal"},
                {"field": "rows", "title": "rows credited otherwise", "format": ","},
            ],
        },
    )


_WRAPPED: Spec = {"columns": {"expr": "width < 420 ? 2 : width < 700 ? 3 : 6"}}


def timeline(description: str, devices: Sequence[str], colours: Mapping[str, str]) -> Spec:
    """A lane per device: sessions as marks from start to end, and what names a user as triangles above them."""
    lane: Spec = {
        "field": "device",
        "type": "nominal",
        "sort": list(devices),
        "axis": {
            "title": None,
            "grid": False,
            "domain": False,
            "labelLimit": 400,
            # Above its lane: an id is too long for a margin.
            "labelAlign": "left",
            "labelPadding": 0,
            "labelOffset": -38,
            "labelColor": "var(--text)",
            "labelFontSize": 12,
            "offset": 0,
            "zindex": 1,
        },
        "scale": {"paddingInner": 0.3, "paddingOuter": 0.2},
    }
    time: Spec = {
        "type": "temporal",
        "scale": {"type": "utc", "padding": 14},
        "axis": {
            "title": "UTC",
            "format": "%d %b",
            "grid": True,
            "labelFlush": True,
            "tickCount": {"expr": "width / 90"},
        },
    }
    session_tooltip = [
        {"field": "began", "title": "session began (UTC)"},
        {"field": "lasted", "title": "lasted"},
        {"field": "own_user", "title": "own user"},
        {"field": "credited", "title": "credited to"},
        {"field": "rule", "title": "by"},
        {"field": "why", "title": "why"},
    ]
    scale = {"domain": list(colours), "range": list(colours.values())}
    colour: Spec = {"field": "kind", "type": "nominal", "scale": scale, "legend": _WRAPPED}
    link_tooltip = [
        {"field": "number", "title": "#"},
        {"field": "user", "title": "names the user"},
        {"field": "began", "title": "from (UTC)"},
        {"field": "events", "title": "events"},
        {"field": "decides", "title": "decides"},
    ]
    return _chart(
        description,
        "sessions",
        100 * len(devices) + 60,
        encoding={"y": lane},
        layer=[
            {
                "mark": {"type": "rule", "strokeWidth": 12, "strokeCap": "butt", "opacity": 0.9},
                "encoding": {
                    "x": {"field": "start", **time},
                    "x2": {"field": "end"},
                    "color": colour,
                    "tooltip": session_tooltip,
                },
            },
            {
                # A session of minutes would be invisible among weeks.
                "mark": {"type": "tick", "thickness": 4, "size": 22, "cornerRadius": 2, "opacity": 1},
                "encoding": {"x": {"field": "start", **time}, "color": colour, "tooltip": session_tooltip},
            },
            {
                # From each session to the link that decides: together they show how far a login reaches.
                "transform": [{"filter": "isValid(datum.link_start)"}],
                "mark": {"type": "rule", "strokeWidth": 1.5, "yOffset": -18, "color": "var(--muted)", "opacity": 0.45},
                "encoding": {"x": {"field": "start", **time}, "x2": {"field": "link_start"}},
            },
            {
                "data": {"name": "links"},
                "mark": {
                    "type": "point",
                    "shape": "triangle-down",
                    "filled": True,
                    "size": 110,
                    "yOffset": -20,
                    "opacity": 1,
                },
                "encoding": {
                    "x": {"field": "start", **time},
                    "fill": {
                        "condition": {"test": "datum.decides > 0", "value": "var(--text)"},
                        "value": "var(--quiet)",
                    },
                    "tooltip": link_tooltip,
                },
            },
        ],
    )
