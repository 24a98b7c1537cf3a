"""`pa status`, `verify` and `gc`: parse, call one function of `pa.tasks`, print."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from pa.commands import console
from pa.commands.old_options import Finite, choosing_store, emit, listed, with_config, with_json
from pa.errors import EXIT_PARTLY_DONE, NewerFormatError, UsageError, VerificationError

WATCH_SECONDS = 5.0


@click.command()
@choosing_store
@click.option("--encoder", help="Encoder of the store.")
@click.option(
    "--watch",
    is_flag=False,
    flag_value=WATCH_SECONDS,
    type=Finite(0.1),
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
    from pa.commands import text_stores as describe_stores
    from pa.data.store.find import StoreSelector
    from pa.tasks import stores

    query = StoreSelector(fingerprint=store, **given)

    def look() -> list[stores.StoreStatus]:
        return stores.status(config, query, named=watch is None)

    def told(found: list[stores.StoreStatus]) -> dict[str, Any]:
        return {
            "workspace": str(config.workspace),
            "stores": [entry.to_json() for entry in found],
        }

    def shown(found: list[stores.StoreStatus]) -> str:
        return describe_stores.status(
            config.workspace, found, "" if found else stores.first_step(config)
        )

    if watch is None:
        if as_json:
            emit(told(look()))
        else:
            console.out(shown(look()))
        return
    console.watch(
        look,
        seconds=watch,
        live=None if as_json else shown,
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
@click.option("--images", is_flag=True, help="Also hash every image file and compare.")
@with_json
@with_config
def verify(
    config: Any,
    as_json: bool,
    quick: bool,
    repair: bool,
    images: bool,
    store: str | None,
    **given: Any,
) -> None:
    """Read stores, indexes and results back: structure, counts, checksums, NaN.

    Exit code 5 says that something is damaged. --repair removes damaged files, and the indexes,
    results and figures that were made from damaged features; the commands that made them make them
    again. Exit code 6 then says that something was removed; without --repair, that a store is not
    complete. A store whose spec.json is missing stays as it is. What a newer version of
    pa wrote is named and left, also by --repair: exit code 4.

    With --images the files of the images are compared with those that the stores were made from:
    exit code 5 if one changed or cannot be read. --repair leaves their stores as they are;
    `pa extract --replace` encodes the images that changed.
    """
    from pa.commands import text_stores as describe_stores
    from pa.data.store.find import StoreSelector
    from pa.tasks import verify as checks
    from pa.tasks.verify_images import check_images

    if quick and repair:
        raise UsageError("--repair reads everything, to remove only what is bad: leave out --quick")
    query = StoreSelector(fingerprint=store, **given)
    checked = list(checks.check(config, query, full=not quick))
    indexes = list(checks.check_indexes(config, full=not quick))
    results = list(checks.check_results(config, full=not quick))
    others = [*indexes, *results]
    newer = checks.newer_paths(checked, others)
    sound = [entry.store for entry in checked if entry.store is not None and not entry.damage]
    of_images = list(check_images(config, sound)) if images else []
    removed = None
    if repair:
        removed = [*checks.repair(checked, indexes, results)]
        removed += checks.remove_derived(config, checked)
    if as_json:
        emit(
            {
                "stores": [entry.to_json() for entry in checked],
                "indexes": [{"index": str(d), "problem": p and str(p)} for d, p in indexes],
                "results": [{"result": str(f), "problem": p and str(p)} for f, p in results],
                "images": [entry.to_json() for entry in of_images],
                "newer": [str(path) for path in newer],
                "removed": None if removed is None else [entry.to_json() for entry in removed],
            }
        )
    else:
        console.out(describe_stores.checks(checked, indexes, results, hint=not repair))
        if of_images:
            console.out(describe_stores.images(of_images))
        if removed is not None:
            console.out(describe_stores.removed(removed))
    changed = any(entry.changed for entry in of_images)
    if changed or (not repair and checks.is_damaged(checked, others)):
        sys.exit(VerificationError.exit_code)
    if newer:
        sys.exit(NewerFormatError.exit_code)
    if removed or any(not entry.is_complete for entry in checked):
        sys.exit(EXIT_PARTLY_DONE)


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
    from pa.commands import text_stores as describe_stores
    from pa.tasks import gc as garbage

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
