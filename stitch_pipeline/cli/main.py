"""The command line: ``stitch settle``, ``stitch status``, ``stitch retry``, ``stitch accept-vanished``,
``stitch rebuild``, ``stitch forget``, ``stitch why``, ``stitch preview``, ``stitch sources check DIR``,
``stitch settings`` and ``stitch demo``."""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from stitch_pipeline.landing.index import IndexUnusable, LandingIndex
from stitch_pipeline.settings import Policy, Settings, SettingsError
from stitch_pipeline.settings.rules import UNLIMITED_DAYS, StitchingRules, rules_with
from stitch_pipeline.shipped_files import DAGSTER_YAML
from stitch_pipeline.startup import large_imports
from stitch_pipeline.warehouse.port import WarehouseError

if TYPE_CHECKING:
    from dagster import DagsterInstance, Definitions

EXIT_OK, EXIT_FAILED, EXIT_WRONG_SETTINGS = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 for success, 1 for a failure, 2 for a wrong setting or argument."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    try:
        return int(options.command(options, console))
    except SettingsError as error:
        _complain(error)
        return EXIT_WRONG_SETTINGS
    except (IndexUnusable, WarehouseError) as error:
        _complain(error)
        return EXIT_FAILED
    except Exception as error:
        if not _is_of_a_full_disk(error):
            raise
        home = os.environ.get("DAGSTER_HOME", "")
        _complain(
            f"Dagster's records in DAGSTER_HOME '{home}' cannot be written, because there is no room left or the disk "
            "fails: free some space there and run the command again. What was committed to the warehouse is safe."
        )
        return EXIT_FAILED


def _is_of_a_full_disk(error: BaseException | None) -> bool:
    while error is not None:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        # SQLite's words, wrapped by SQLAlchemy. The second is about a limit of the process (ulimit -f), for example.
        if full or any(words in str(error) for words in ("database or disk is full", "disk I/O error")):
            return True
        error = error.__cause__ or error.__context__
    return False


def _complain(error: Exception | str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print("[red]error:[/]", escape(str(error)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stitch", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    settle = commands.add_parser(
        "settle", help="run what the triggers request until they request nothing; needs no daemon"
    )
    settle.add_argument("--reconcile", action="store_true", help="first look for stale rows over all days and devices")
    settle.add_argument(
        "--view-stitching", action="store_true", help="also re-stitch page views, as view_stitching_schedule does"
    )
    settle.add_argument(
        "--json", action="store_true", help="print one JSON document at the end; progress goes to standard error"
    )
    settle.set_defaults(command=_settle)
    status = commands.add_parser("status", help="show what is left to do, what fails and why; starts nothing")
    status.add_argument("--json", action="store_true", help="print one JSON document")
    status.set_defaults(command=_status)
    retry = commands.add_parser("retry", help="end the pauses after failures, so that sensors retry at their next tick")
    retry.set_defaults(command=_retry)
    accept = commands.add_parser(
        "accept-vanished", help="let the rows of files that are gone from the landing zone be removed"
    )
    accept.set_defaults(command=_accept_vanished)
    rebuild = commands.add_parser(
        "rebuild", help="keep the warehouse aside and build every table from the landing zone; deletes nothing"
    )
    rebuild.set_defaults(command=_rebuild)
    sources = commands.add_parser("sources", help="formats of event files")
    about_sources = sources.add_subparsers(required=True, metavar="COMMAND")
    check = about_sources.add_parser("check", help="show how files would be read and what is wrong; writes nothing")
    check.add_argument("path", type=Path, metavar="DIR", help="a landing directory, one of its feeds, or one file")
    check.set_defaults(command=_check_sources)
    why = commands.add_parser("why", help="explain the users of a device's sessions and events; writes nothing")
    why.add_argument("--project", required=True, metavar="P", help="the project_id")
    why.add_argument("--anonymous-id", required=True, metavar="A", help="the device")
    why.add_argument("--at", metavar="TIME", help="a UTC day or an instant: show only the rows then, or the nearest")
    why.add_argument("--limit", type=_positive, default=40, metavar="N", help="rows to show (default 40)")
    why.set_defaults(command=_why)
    preview = commands.add_parser("preview", help="show what other rules would change; writes nothing")
    preview.add_argument("--project", metavar="P", help="the project_id; by default every project")
    for name in rules_with("preview"):
        rule = StitchingRules.model_fields[name]
        values: dict[str, Any] = (
            {"choices": [policy.value for policy in Policy]}
            if rule.annotation is Policy
            else {"type": _positive if rule.annotation is int else _days, "metavar": "N"}
        )
        # Without a default, because None is unlimited: a rule that is absent stays as it is set.
        flag = "--" + name.replace("_", "-")
        preview.add_argument(flag, default=argparse.SUPPRESS, help=rule.description, **values)
    preview.set_defaults(command=_preview)
    _add_forget(commands)
    settings = commands.add_parser("settings", help="show every setting, its default and its value in force")
    settings.add_argument("--markdown", action="store_true", help="print the table of the docs instead")
    settings.set_defaults(command=_settings)
    demo = commands.add_parser("demo", help="simulate a shop, stitch it, let late logins arrive, stitch again")
    demo.add_argument("--directory", type=Path, default=Path("data/demo"), help="where to work")
    demo.add_argument("--seed", type=int, default=7)
    demo.add_argument("--people", type=int, default=1200)
    demo.set_defaults(command=_demo)
    return parser


def _add_forget(commands: Any) -> None:
    forget = commands.add_parser(
        "forget", help="forget a user, device or identifier for good; without --forget it shows what would go"
    )
    forget.add_argument("--project", required=True, metavar="P", help="the project_id")
    which = forget.add_mutually_exclusive_group(required=True)
    # Read from standard input, the id is neither in the shell's history nor in the list of processes.
    which.add_argument("--user", metavar="ID", help="a user id; - reads it from standard input")
    which.add_argument("--device", metavar="ID", help="an anonymous id; - reads it from standard input")
    which.add_argument("--identifier", metavar="KIND=VALUE", help="as email=ann@example.com; KIND=- reads the value")
    forget.add_argument(
        "--pseudonymise", action="store_true", help="keep the rows under a pseudonym, for totals; default is to delete"
    )
    what = forget.add_mutually_exclusive_group()
    what.add_argument("--forget", action="store_true", help="do it, and settle")
    what.add_argument("--prove", action="store_true", help="search everything that was written, print a certificate")
    forget.set_defaults(command=_forget)


def _forget(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.cli.forget import print_certificate, print_concerned, print_done, request_of
    from stitch_pipeline.stitching.forget import add_to_list, forget, look
    from stitch_pipeline.warehouse.engine import engine_of

    settings = Settings.load()
    request, engine = request_of(options), engine_of(settings)
    if options.prove:
        return print_certificate(settings, request, _dagster_home(), console)
    if not options.forget:
        with engine.open(read_only=True) as warehouse:
            print_concerned(look(warehouse, settings, request), console)
        return EXIT_OK
    add_to_list(settings, request)  # from here on no run loads it, also if the warehouse is busy now
    print_done(settings, request, console)
    with engine.open() as warehouse:
        forget(warehouse, settings, [request])
    return _settle(
        argparse.Namespace(reconcile=False, view_stitching=settings.view_stitching_is_on, json=False), console
    )


def _dagster_home() -> Path:
    return Path(os.environ.get("DAGSTER_HOME") or "dagster_home").resolve()


def _settle(options: argparse.Namespace, console: Console) -> int:
    with large_imports():
        from stitch_pipeline.cli.progress import Progress, as_json
        from stitch_pipeline.orchestration.settle import settle

    settings = Settings.load()
    shown_on = Console(stderr=True, highlight=False, soft_wrap=True) if options.json else console
    with _dagster_instance() as instance, Progress(shown_on) as progress:
        settled = settle(
            settings,
            lambda: _definitions(settings),
            instance,
            reconcile=options.reconcile,
            view_stitching=options.view_stitching,
            report=progress.show,
        )
        progress.close(settled)
    if options.json:
        print(as_json(settled))
    return EXIT_OK if settled.is_settled else EXIT_FAILED


def _definitions(settings: Settings) -> Definitions:
    """All definitions. They need dbt, so they are loaded when there is something to run."""
    with large_imports():
        from stitch_pipeline.definitions import build_defs
    return build_defs(settings)


def _rebuild(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.cli.progress import Progress
    from stitch_pipeline.cli.rebuild import print_started_anew
    from stitch_pipeline.orchestration.abandoned_runs import sole_settler
    from stitch_pipeline.orchestration.settle import settle
    from stitch_pipeline.stitching.rebuild import start_anew

    settings = Settings.load()
    with _dagster_instance() as instance:
        with sole_settler(settings, instance):
            print_started_anew(start_anew(settings), console)
        with Progress(console) as progress:
            settled = settle(settings, lambda: _definitions(settings), instance, report=progress.show)
            progress.close(settled)
    return EXIT_OK if settled.is_settled else EXIT_FAILED


@contextmanager
def _dagster_instance() -> Iterator[DagsterInstance]:
    """The instance of DAGSTER_HOME, by default of ``dagster_home`` below the current directory.

    The default one gets the configuration for one writer at a time. Without a home, Dagster keeps its records in a
    temporary directory and loses them.
    """
    with large_imports():
        from dagster import DagsterInstance

    is_own = not os.environ.get("DAGSTER_HOME")
    home = _dagster_home()
    if is_own:
        os.environ["DAGSTER_HOME"] = str(home)
    home.mkdir(parents=True, exist_ok=True)
    # Dagster creates its tables when it first needs them, and fails if another process creates them at the same time.
    with (home / ".stitch.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_own and not (home / DAGSTER_YAML.name).exists():
            shutil.copy(DAGSTER_YAML, home)
        instance = DagsterInstance.get()
        instance.get_runs(limit=1)
        instance.all_asset_keys()
        instance.all_instigator_state()
    with instance:
        yield instance


def _status(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.cli.status import as_json, print_status
    from stitch_pipeline.orchestration.status import status

    with _dagster_instance() as instance:
        found = status(Settings.load(), instance)
    if options.json:
        print(as_json(found))
    else:
        print_status(found, console)
    return EXIT_OK if found.is_settled else EXIT_FAILED


def _retry(options: argparse.Namespace, console: Console) -> int:
    LandingIndex(Settings.load().index_path).forget_failures()
    console.print("Failures up to now no longer delay anything: the sensors retry at their next tick.")
    return EXIT_OK


def _accept_vanished(options: argparse.Namespace, console: Console) -> int:
    settings = Settings.load()
    files = LandingIndex(settings.index_path).accept_vanished(settings)
    console.print(f"{files:,} files are gone: the next build of their days removes their rows.")
    return EXIT_OK


def _check_sources(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.cli.sources_check import check_sources

    return EXIT_OK if check_sources(Settings.load(), options.path, console) else EXIT_FAILED


def _why(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.cli.why import print_explanation
    from stitch_pipeline.stitching.explain import explain

    explanation = explain(Settings.load(), options.project, options.anonymous_id, options.at)
    print_explanation(explanation, options.limit, console)
    return EXIT_OK


def _preview(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.cli.preview import print_preview
    from stitch_pipeline.stitching.preview import Proposal, preview_rules

    given = vars(options)
    proposal = Proposal(options.project, {name: given[name] for name in rules_with("preview") if name in given})
    print_preview(preview_rules(Settings.load(), proposal), proposal, console)
    return EXIT_OK


def _settings(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.cli.settings import markdown_table, print_settings

    if options.markdown:
        print(markdown_table(), end="")
    else:
        print_settings(Settings.load(), console)
    return EXIT_OK


def _days(text: str) -> int | None:
    if text in ("unlimited", "null"):
        return None
    if not text.isdecimal() or int(text) > UNLIMITED_DAYS:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of days (0 to {UNLIMITED_DAYS}) or 'unlimited'")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def _demo(options: argparse.Namespace, console: Console) -> int:
    from stitch_pipeline.demo.story import tell

    return EXIT_OK if tell(options.directory, options.seed, options.people, console) else EXIT_FAILED
