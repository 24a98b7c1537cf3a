"""`pa status`, `verify`, `plan` and `gc`: parse, call one function of `pa.commands`, print."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from pa import console, describe_stores
from pa.errors import EXIT_PARTLY_DONE, UsageError, VerificationError
from pa.options import choosing_store, emit, encoder_choice, listed, with_config, with_json

WATCH_SECONDS = 5.0


@click.command()
@choosing_store
@click.option("--encoder", help="Encoder of the store.")
@click.option(
    "--watch",
    is_flag=False,
    flag_value=WATCH_SECONDS,
    type=click.FloatRange(0.1),
    metavar="[SECONDS]",
    help="Show it again and again, every 5 seconds or so many, until all stores are complete.",
)
@with_json
@with_config
def status(
    config: Any, as_json: bool, store: str | None, watch: float | None, **given: Any
) -> None:
    """Show every store: how far it is, how fast, how large, how many bad images.

    It is all read from the files, those of other machines' work too. What they do not tell is
    unknown: where nobody is at work there is no expected end.

    \b
    pa status
    pa status --watch                     live in a terminal, lines elsewhere
    pa status --watch 60 --json           one JSON object per line and minute
    """
    from pa.commands import stores
    from pa.data.stores import StoreQuery

    query = StoreQuery(fingerprint=store, **given)

    def look() -> list[stores.StoreStatus]:
        return stores.status(config, query)

    def told(found: list[stores.StoreStatus]) -> dict[str, Any]:
        return {
            "workspace": str(config.workspace),
            "stores": [entry.to_json() for entry in found],
        }

    if watch is None:
        if as_json:
            emit(told(look()))
        else:
            console.out(describe_stores.status(config.workspace, look()))
        return
    console.watch(
        look,
        seconds=watch,
        live=None if as_json else lambda found: describe_stores.status(config.workspace, found),
        line=(lambda found: json.dumps(told(found), ensure_ascii=False))
        if as_json
        else describe_stores.status_lines,
        until=lambda found: bool(found) and all(entry.is_complete for entry in found),
    )


@click.command()
@choosing_store
@click.option("--encoder", help="Encoder of the store.")
@click.option("--quick", is_flag=True, help="Structure and counts only: no checksums.")
@click.option("--repair", is_flag=True, help="Remove what is bad, so that it can be made again.")
@with_json
@with_config
def verify(
    config: Any, as_json: bool, quick: bool, repair: bool, store: str | None, **given: Any
) -> None:
    """Read stores, indexes and results back: structure, counts, checksums, NaN.

    Exit code 5 says that something is damaged. With --repair what is bad is removed, and nothing
    else: the command that made it makes it again. Exit code 6 then says that
    something was removed; without --repair, that a store is not complete.
    """
    from pa.commands import verify as checks
    from pa.data.stores import StoreQuery

    if quick and repair:
        raise UsageError("--repair reads everything, to remove only what is bad: leave out --quick")
    query = StoreQuery(fingerprint=store, **given)
    checked = list(checks.check(config, query, full=not quick))
    indexes = list(checks.check_indexes(config, full=not quick))
    results = list(checks.check_results(config, full=not quick))
    removed = list(checks.repair(checked, indexes, results)) if repair else None
    if as_json:
        emit(
            {
                "stores": [entry.to_json() for entry in checked],
                "indexes": [{"index": str(d), "problem": problem} for d, problem in indexes],
                "results": [{"result": str(f), "problem": problem} for f, problem in results],
                "removed": None if removed is None else [entry.to_json() for entry in removed],
            }
        )
    else:
        console.out(describe_stores.checks(checked, indexes, results, hint=not repair))
        if removed is not None:
            console.out(describe_stores.removed(removed))
    others = (*indexes, *results)
    damaged = any(entry.damage for entry in checked) or any(problem for _, problem in others)
    if damaged and not repair:
        sys.exit(VerificationError.exit_code)
    if removed or any(not entry.is_complete for entry in checked):
        sys.exit(EXIT_PARTLY_DONE)


@click.group()
def plan() -> None:
    """Say what a long command will cost before it begins."""


ARRAY = [
    click.Option(
        ["--tasks"], type=click.IntRange(1), help="Simulate a job array of so many tasks …"
    ),
    click.Option(["--array-parallelism"], type=click.IntRange(1), help="… of which so many run …"),
    click.Option(["--time"], help="… and are requeued after this time, HH:MM:SS."),
    click.Option(
        ["--failures"],
        type=click.FloatRange(0),
        default=0.0,
        metavar="RATE",
        help="Failures per hour of a running task, such as 0.001.",
    ),
    click.Option(
        ["--preemptions"],
        type=click.FloatRange(0),
        default=0.0,
        metavar="RATE",
        help="Preemptions per hour of a running task: it is requeued.",
    ),
]


def plan_extract(extract: click.Command) -> click.Command:
    """`pa plan extract`: the very options of `pa extract`, and those of a job array."""
    return click.Command(
        "extract",
        callback=_plan_extract,
        params=[*extract.params, *ARRAY],
        help="""Bytes, files, rows and time of an extraction, and the room on the disk.

        Takes every option of `pa extract`. Encoders are loaded, no image is decoded, nothing is
        written. The time is that of one process at the pace of the longest run of the same encoder
        and view in this workspace; where there was none it is unknown. With --tasks it is also that
        of a job array, simulated by the rules of its tasks, with the failures and preemptions
        given. Exit code 1 says that the disk is too small.
        """,
    )


@with_config
def _plan_extract(config: Any, as_json: bool, **given: Any) -> None:
    from pa import describe_submit
    from pa.cluster import minutes
    from pa.commands.extract import ExtractRequest
    from pa.commands.plan import check_space, look_ahead
    from pa.commands.plan import plan_extract as work
    from pa.extract.forecast import Conditions

    tasks, limit = given.pop("tasks"), given.pop("time")
    array = {name: given.pop(name) for name in ("array_parallelism", "failures", "preemptions")}
    if tasks is None and (limit or any(array.values())):
        raise UsageError("--array-parallelism, --time, --failures, --preemptions go with --tasks.")
    made = work(config, ExtractRequest(encoder=encoder_choice(given), **given), console.progress())
    outlook = None
    if tasks is not None:
        conditions = Conditions(
            tasks,
            parallel=array.pop("array_parallelism"),
            limit=60.0 * minutes(limit) if limit else None,
            **array,
        )
        outlook = look_ahead(made, conditions)
    if as_json:
        emit({**made.to_json(), "array": outlook and outlook.to_json()})
    else:
        console.out(describe_stores.plan(made))
        if outlook is not None:
            console.out(describe_submit.outlook(outlook))
    check_space(made)


@click.command()
@click.option("--delete", is_flag=True, help="Delete what is listed.")
@click.option(
    "--unfinished",
    callback=listed,
    metavar="FINGERPRINT",
    help="Also these stores that are not complete: beginnings of fingerprints, with commas.",
)
@click.option(
    "--host",
    "hosts",
    callback=listed,
    help="Also partial files of these hosts, with commas: say it when nothing runs there.",
)
@with_json
@with_config
def gc(config: Any, as_json: bool, delete: bool, **given: Any) -> None:
    """List, and with --delete remove, what nothing refers to any more.

    Partial files of dead processes, indexes of stores that are gone, tables and heads of results
    that are gone, locks of complete stores, empty folders.
    """
    from pa.commands import gc as garbage

    found = garbage.find_garbage(config, **given)
    gone = garbage.delete(found) if delete else []
    if as_json:
        emit(
            {
                "garbage": [entry.to_json() for entry in found],
                "bytes": sum(entry.bytes for entry in found if entry.deletable),
                "deleted": [str(entry.path) for entry in gone],
            }
        )
    else:
        console.out(describe_stores.garbage(found, gone if delete else None))
