"""`pa plan extract`: what an extraction will write and how long it takes, before it begins."""

from __future__ import annotations

import io
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config
from pa.errors import PaError, StorageError, VerificationError
from pa.progress import Progress

if TYPE_CHECKING:
    import polars as pl

    from pa.commands.extract import ExtractRequest
    from pa.data.pace import Pace
    from pa.data.spec import Spec
    from pa.data.store import Store
    from pa.extract.forecast import Conditions, Forecast

# Measured with HDF5 1.14: headers and attributes of a shard, and its index of the chunks of a token
# map, which grows by the row.
SHARD_BYTES, MAP_BYTES, CHUNK_BYTES = 6_500, 3_000, 64
MANIFEST_BYTES = 250  # a shard's entry
SEEDS = 5
OTHER_FILES = 4  # spec.json, rows.parquet, manifest.json, runs.jsonl


@dataclass(frozen=True)
class StorePlan:
    """What is to be done for one store.

    `rows_to_do` are to be encoded and written in `shards_to_do` of `shards` shards; `files` and
    `bytes` are what is still to be written. `rows_adopted` are in shards of other stores that are
    taken over, by link where the disk can. `pace` is that of the longest recorded run of this
    encoder and view in this workspace, one process, or None.
    """

    where: str
    encoder: str
    path: Path
    rows: int
    rows_to_do: int
    rows_adopted: int
    shards: int
    shards_to_do: int
    files: int
    bytes: int
    pace: Pace | None

    @property
    def seconds(self) -> float | None:
        """For one process; None where no earlier run tells the pace."""
        if not self.rows_to_do:
            return 0.0
        return None if self.pace is None else self.rows_to_do / self.pace.rows_per_second

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("where", "encoder", "rows", "rows_to_do")},
            "path": str(self.path),
            "rows_adopted": self.rows_adopted,
            "shards": self.shards,
            "shards_to_do": self.shards_to_do,
            "files": self.files,
            "bytes": self.bytes,
            "rows_per_second": self.pace and self.pace.rows_per_second,
            "rows_per_second_from": self.pace and self.pace.source,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class Plan:
    """What an extraction will do, store by store, and the room there is."""

    stores: list[StorePlan]
    place: Path
    free: int

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.stores)

    @property
    def seconds(self) -> float | None:
        """For one process that does everything; None where a store's time is unknown."""
        each = [entry.seconds for entry in self.stores]
        return None if None in each else math.fsum(value for value in each if value is not None)

    @property
    def fits(self) -> bool:
        return self.bytes <= self.free

    def to_json(self) -> dict[str, Any]:
        return {
            "stores": [entry.to_json() for entry in self.stores],
            "bytes": self.bytes,
            "seconds": self.seconds,
            "place": str(self.place),
            "free": self.free,
            "fits": self.fits,
        }


@dataclass(frozen=True)
class Outlook:
    """How a job array would do a plan: simulated several times where chance has a part in it."""

    conditions: Conditions
    runs: tuple[Forecast, ...]

    @property
    def typical(self) -> Forecast:
        """The run of the median finish."""
        return sorted(self.runs, key=lambda run: run.finish)[len(self.runs) // 2]

    def to_json(self) -> dict[str, Any]:
        return {
            "tasks": self.conditions.tasks,
            "at_once": self.conditions.at_once,
            **self.typical.to_json(),
            "finish_of_runs": sorted(run.finish for run in self.runs),
        }


def look_ahead(plan: Plan, conditions: Conditions) -> Outlook | None:
    """Simulate an array that does what a plan says; None where its time is unknown.

    Five times where tasks fail, are preempted or differ in speed: seeds 0 to 4.
    """
    from pa.extract.forecast import forecast

    if plan.seconds is None:
        return None
    shards = [
        (entry.seconds or 0.0) / entry.shards_to_do
        for entry in plan.stores
        for _ in range(entry.shards_to_do)
    ]
    by_chance = conditions.failures or conditions.preemptions or conditions.spread
    seeds = range(SEEDS if by_chance else 1)
    return Outlook(conditions, tuple(forecast(shards, conditions, seed) for seed in seeds))


def plan_extract(config: Config, request: ExtractRequest, progress: Progress) -> Plan:
    """Plan what `pa extract` would do with the same request; writes nothing.

    Encoders are loaded, since their files decide what is stored; no image is decoded. Where `pa
    extract` would refuse because of a store that was made by something else, a note says so.
    """
    from pa.commands.extract import prepare, run_options
    from pa.data import stores
    from pa.extract.slots import choose_shard_rows, make_spec

    encoders, images, views = prepare(config, request, progress)
    options = run_options(config, request)
    planned = []
    for view in views:
        rows = view.rows(images.first(options.limit))
        for encoder in encoders:
            spec = make_spec(encoder, images, view, rows, options)
            slot = stores.slot(
                config.features, images.dataset, images.split, view.name, encoder.name
            )
            others = _others(slot, spec)
            if not (options.replace or options.alongside):
                _tell_rivals(others, spec, progress)
            shard_rows = options.shard_rows or choose_shard_rows(spec)
            planned.append(_plan_store(config, slot / spec.short, spec, rows, shard_rows, others))
    return Plan(planned, config.features, free_bytes(config.features))


def check_space(*plans: Plan) -> None:
    """Raise `StorageError` where the disk is too small for plans of one workspace together."""
    n_bytes = sum(plan.bytes for plan in plans)
    if plans and n_bytes > plans[0].free:
        raise StorageError(
            f"the features need {n_bytes / 1e9:.2f} GB, and {plans[0].place} has "
            f"{plans[0].free / 1e9:.2f} GB free. Free some space (`pa gc` lists what nothing "
            f"needs), choose another --workspace, or keep less with --features."
        )


def free_bytes(place: Path) -> int:
    """Bytes free on the disk of a folder, which need not be there yet."""
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    return shutil.disk_usage(there).free


def _others(slot: Path, spec: Spec) -> list[Store]:
    """The stores in the slot that were made by something else, or of other rows."""
    from pa.data.store import SPEC, Store

    found = [Store.open(file.parent, incomplete=True) for file in sorted(slot.glob(f"*/{SPEC}"))]
    return [store for store in found if store.fingerprint != spec.fingerprint]


def _tell_rivals(others: list[Store], spec: Spec, progress: Progress) -> None:
    for other in others:
        if (other.spec.limit, other.spec.view) == (spec.limit, spec.view):
            progress.note(
                f"{other.title} was made by something else: pa extract will refuse, and show the "
                f"difference, without --replace or --alongside."
            )


def _plan_store(
    config: Config,
    path: Path,
    spec: Spec,
    rows: pl.DataFrame,
    shard_rows: int,
    others: list[Store],
) -> StorePlan:
    from pa.data import shards
    from pa.data.store import SPEC, Store
    from pa.extract.slots import row_bytes

    if begun := (path / SPEC).exists():
        store = Store.open(path, incomplete=True)
        shard_rows = store.shard_rows
    else:
        store = Store(path, spec, shard_rows, {})
    plan = shards.plan(rows["image"].to_numpy(), shard_rows)
    missing = [shard for shard in plan if not (path / shard.name).exists()]
    store.rows = rows  # of a store that is not there yet
    donated = _donated(spec, others) if missing else set()
    adopted = [shard for shard in missing if store.shard_key(shard) in donated]
    to_do = [shard for shard in missing if shard not in adopted]
    maps = sum(len(shape) > 1 for shape in spec.representations.values())
    n_rows = sum(shard.n_rows for shard in to_do)
    n_bytes = n_rows * (row_bytes(spec) + 1 + CHUNK_BYTES * maps)
    n_bytes += len(to_do) * (SHARD_BYTES + MAP_BYTES * maps)
    if not store.is_complete:
        n_bytes += len(plan) * MANIFEST_BYTES + (0 if begun else _table_bytes(rows))
    new_files = len(missing) + (0 if store.is_complete else OTHER_FILES - 2 * begun)
    return StorePlan(
        where=f"{spec.dataset}/{spec.split}/{spec.view['name']}",
        encoder=str(spec.encoder["name"]),
        path=path,
        rows=len(rows),
        rows_to_do=n_rows,
        rows_adopted=sum(shard.n_rows for shard in adopted),
        shards=len(plan),
        shards_to_do=len(to_do),
        files=new_files,
        bytes=n_bytes,
        pace=recorded_pace(config, spec),
    )


def _donated(spec: Spec, others: list[Store]) -> set[str]:
    """The keys of the shards that stores of the same recipe have."""
    from pa.data import shards

    keys = set()
    for donor in others:
        if donor.spec.recipe != spec.recipe:
            continue
        for shard in donor.plan:
            try:
                keys.add(shards.read_info(donor.shard_path(shard)).key)
            except (OSError, VerificationError):
                continue  # not there, or not to be taken over
    return keys


def _table_bytes(rows: pl.DataFrame) -> int:
    table = io.BytesIO()
    rows.write_parquet(table, compression="zstd")
    return table.tell()


def recorded_pace(config: Config, spec: Spec) -> Pace | None:
    """The pace of the longest run of the same encoder, view and precision in this workspace.

    Of the runs that its stores' logs record, the one of the most rows: a run of few rows is mostly
    start-up. None where there was none.
    """
    from pa.data.pace import Pace, read_runs, speed_of_run
    from pa.data.store import SPEC, Store

    best: tuple[float, Pace] | None = None
    slot = f"*/*/{spec.view['name']}/{str(spec.encoder['name']).replace('/', '--')}/*/{SPEC}"
    for file in sorted(config.features.glob(slot)):
        try:
            store = Store.open(file.parent, incomplete=True)
        except PaError:
            continue
        if store.spec.precision["compute"] != spec.precision["compute"]:
            continue
        for run in read_runs(store.path):
            speed = speed_of_run(run)
            if speed is not None and (best is None or run["rows"] > best[0]):
                source = f"as {store.spec.dataset}/{store.spec.split} on {run.get('host')}"
                best = float(run["rows"]), Pace(speed, source)
    return best[1] if best else None
