"""Events loaded per second and core, compared with DuckDB alone reading the same files.

Run with ``.venv/bin/python benchmarks/loading.py [EVENTS]``. Three files hold the same events: NDJSON as Jitsu writes
it, CSV and Parquet with Snowplow's canonical columns. For each, in CPU seconds of a fresh process:

- `bare`: DuckDB reads the file with its own reader, with columns and types given, into a table with these columns;
- `index`: the landing sensor's work to find the days in a file;
- `load`: a run's work: map, judge, find duplicates, and write ``raw_events``, all in one transaction.

The ratio is (index + load) / bare. Memory is the peak of the loading process in MB, with DuckDB limited to 600 MB. A
load must not need more memory for larger files, so a tenth of the events is measured too.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from results import keep

REPOSITORY = Path(__file__).resolve().parent.parent
REPEATS = 3

# The same visitors and pages in both shapes; a tenth of the devices are logged in.
EVENTS = """
    select
      n,
      printf('%08x-0000-4000-8000-%012d', n, n) as event_id,
      timestamp '2026-03-01' + to_microseconds(n * (20 * 86400000000 // {events})) as occurred_at,
      printf('%08x-aaaa-4000-8000-%012d', hash(n) % ({events} // 20), hash(n) % ({events} // 20)) as device,
      case when hash(n) % ({events} // 20) % 10 = 0 then printf('user-%d', hash(n) % ({events} // 20)) end as user_id,
      '/product/' || (n % 500) as path,
      case when n % 20 = 0 then 'google' end as utm
    from range({events}) as numbers(n)
"""
JITSU = """
    select
      event_id as "messageId", strftime(occurred_at, '%Y-%m-%dT%H:%M:%S.%fZ') as "timestamp",
      strftime(occurred_at, '%Y-%m-%dT%H:%M:%S.%fZ') as "receivedAt", 'page' as type, device as "anonymousId",
      user_id as "userId",
      {{'page': {{'url': 'https://shop.example.com' || path, 'path': path, 'title': 'Product', 'referrer': ''}},
       'campaign': {{'source': utm, 'medium': 'cpc'}}, 'library': {{'name': '@jitsu/js', 'version': '1.11.0'}},
       'userAgent': 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36'}} as context,
      {{'price': n % 100, 'sku': 'SKU-' || (n % 1000)}} as properties
    from ({events})
"""
SNOWPLOW = """
    select
      'shop' as app_id, 'web' as platform, occurred_at as collector_tstamp, occurred_at as derived_tstamp,
      'page_view' as event, event_id, user_id, device as domain_userid, device || '-1' as domain_sessionid,
      'https://shop.example.com' || path as page_url, path as page_urlpath, 'Product' as page_title,
      utm as mkt_source, 'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36' as useragent, 'page_view' as event_name
    from ({events})
"""
BARE = """
import resource, sys
import duckdb

kind, path, directory = sys.argv[1:]
con = duckdb.connect(directory + "/bare.duckdb")
con.execute("set TimeZone = 'UTC'")
page = "STRUCT(url VARCHAR, path VARCHAR, title VARCHAR, referrer VARCHAR)"
context = f"STRUCT(page {page}, campaign STRUCT(source VARCHAR, medium VARCHAR), \\"userAgent\\" VARCHAR)"
document = (
    "{'messageId': 'VARCHAR', 'timestamp': 'TIMESTAMP', 'receivedAt': 'TIMESTAMP', 'type': 'VARCHAR', "
    f"'anonymousId': 'VARCHAR', 'userId': 'VARCHAR', 'context': '{context}', 'properties': 'JSON'}}"
)
relation = {
    "ndjson": f"read_json(?, format = 'newline_delimited', columns = {document})",
    "csv": "read_csv(?, header = true)",
    "parquet": "read_parquet(?)",
}[kind]
con.execute(f"create table events as select * from {relation}", [path])
usage = resource.getrusage(resource.RUSAGE_SELF)
print(usage.ru_utime + usage.ru_stime)
"""
OURS = """
import json, resource, sys
import duckdb
from stitch_pipeline.landing.index import LandingIndex
from stitch_pipeline.landing.parser import Parser
from stitch_pipeline.landing.zone import landed_files, reading_rules
from stitch_pipeline.settings import Settings
from stitch_pipeline.stitching import load as loading
from stitch_pipeline.warehouse.duckdb import DuckDBWarehouse
from stitch_pipeline.warehouse.tables import create_tables

def seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

settings = Settings.load()
index = LandingIndex(settings.index_path)
started = seconds()
index.refresh(settings)
indexed = seconds()
con = duckdb.connect(str(settings.duckdb_path))
con.execute("set TimeZone = 'UTC'")
con.execute("set memory_limit = '600MB'")  # or DuckDB keeps in memory what has long been written
create_tables(DuckDBWarehouse(con))
with Parser("600MB") as parser:
    loaded = loading.load(
        DuckDBWarehouse(con), parser, index.pending(), landed_files(settings), reading_rules(settings),
        report=lambda text: None,
    )
ended = seconds()
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
rows = con.execute("select count(*) from stitch.raw_events").fetchall()[0][0]
print(json.dumps({"index": indexed - started, "load": ended - indexed, "memory": memory, "rows": rows}))
"""


def run(program: str, environment: dict[str, str], *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), **environment},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()[-1]


def write_files(directory: Path, events: int) -> dict[str, Path]:
    import duckdb

    made = EVENTS.format(events=events)
    files = {
        "ndjson": (directory / "landing" / "jitsu" / "events.ndjson", JITSU, "format json"),
        "csv": (directory / "landing" / "snowplow" / "events.csv", SNOWPLOW, "format csv, header"),
        "parquet": (directory / "landing" / "snowplow" / "events.parquet", SNOWPLOW, "format parquet"),
    }
    with duckdb.connect() as con:
        for path, query, options in files.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            con.execute(f"copy ({query.format(events=made)}) to '{path}' ({options})")
    return {kind: path for kind, (path, _, _) in files.items()}


def ours(kind: str, path: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        feed = Path(directory) / "landing" / path.parent.name
        feed.mkdir(parents=True)
        (feed / path.name).symlink_to(path)
        settings = {
            "STITCH_LANDING_DIR": str(feed.parent),
            "STITCH_DUCKDB_PATH": f"{directory}/warehouse.duckdb",
        }
        measured: dict[str, float] = json.loads(run(OURS, settings))
        return measured


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as directory:
        files = write_files(Path(directory) / "all", events)
        tenth = write_files(Path(directory) / "tenth", events // 10)
        figures: dict[str, dict[str, float]] = {}
        for kind, path in files.items():
            bare, measured = [], []
            for _ in range(REPEATS):
                with tempfile.TemporaryDirectory() as scratch:
                    bare.append(float(run(BARE, {}, kind, str(path), scratch)))
                measured.append(ours(kind, path))
                assert measured[-1]["rows"] == events
            index, load = (statistics.median(one[name] for one in measured) for name in ("index", "load"))
            floor = statistics.median(bare)
            figures[kind] = {
                "bare_cpu_seconds": round(floor, 2),
                "index_cpu_seconds": round(index, 2),
                "load_cpu_seconds": round(load, 2),
                "ratio": round((index + load) / floor, 2),
                "events_per_second_and_core": round(events / (index + load)),
                "memory_mb": statistics.median(one["memory"] for one in measured),
                "memory_mb_at_a_tenth": ours(kind, tenth[kind])["memory"],
            }
    keep("loading", {"events": events, "repeats": REPEATS, "files": figures})


if __name__ == "__main__":
    main()
