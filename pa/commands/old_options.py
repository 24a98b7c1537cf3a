"""ExtractOptions that several commands share, and how their values are read."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pa.commands import console
from pa.errors import AmbiguousError, MissingError, PaError

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)
DTYPES = ["fp32", "bf16", "fp16"]
STORAGES = [*DTYPES, "int8"]


class Finite(click.FloatRange):
    """A range of numbers; NaN, which is in every range, and infinity are in none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a number to count with.", param, ctx)
        return number


def listed(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """A comma-separated option."""
    if value is None:
        return ()
    parts = tuple(part.strip() for part in value.split(","))
    if not all(parts):
        raise click.BadParameter(f"{value!r} has an empty part: names with commas between them")
    return parts


def box(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 4:
        raise click.BadParameter("four numbers x0,y0,x1,y1 in pixels, such as 40,60,96,116")
    return numbers


def numbers(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Comma-separated whole numbers."""
    try:
        return tuple(int(part) for part in listed(context, option, value))
    except ValueError:
        raise click.BadParameter("whole numbers with commas, such as 3,5,7,11") from None


def key_values(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, Any], ...]:
    """Repeated NAME=VALUE; a value that reads as a JSON number or truth value is one."""
    parsed = []
    for value in values:
        name, equals, text = value.partition("=")
        if not equals:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE")
        try:
            parsed.append((name, json.loads(text)))
        except ValueError:
            parsed.append((name, text))
    return tuple(parsed)


def with_json(command: F) -> F:
    """Give a command --json: one object on stdout instead of text."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def choosing_store(command: F) -> F:
    """Give a command the options that choose a store of the workspace."""
    for option in reversed(
        [
            click.option("--dataset", help="Dataset of the store."),
            click.option("--split", help="Split of the store."),
            click.option("--view", help="View of the store: image, grid, parts or windows."),
            click.option("--protocol", help="Rules of view parts; for a probe, its recipe too."),
            click.option(
                "--store", help="Fingerprint of the store; its first characters are enough."
            ),
        ]
    ):
        command = option(command)
    return command


ENCODER_OPTIONS = (
    "checkpoint",
    "num_heads",
    "branch",
    "layers",
    "accept",
    "options",
    "device",
    "dtype",
)


def choosing_encoder(command: F) -> F:
    """Give a command the options that say how an encoder is loaded."""
    for option in reversed(
        [
            click.option("--checkpoint", type=PATH, help="Weights (safetensors or pth)."),
            click.option(
                "--num-heads",
                type=click.IntRange(1),
                help="Attention heads; default those of the official size.",
            ),
            click.option("--branch", help="Network of the file, such as teacher or student."),
            click.option("--layers", callback=numbers, help="Raw block outputs: 3,5,7,11."),
            click.option(
                "--accept", is_flag=True, help="Load a file that shows no sign of the encoder."
            ),
            click.option(
                "--option",
                "options",
                multiple=True,
                callback=key_values,
                help="Option of the encoder, as NAME=VALUE; see `pa encoders list`.",
            ),
            click.option("--device", help="auto, cpu, cuda, cuda:1 …"),
            click.option("--dtype", type=click.Choice(DTYPES), help="Precision of compute."),
        ]
    ):
        command = option(command)
    return command


def naming_checkpoints(command: F) -> F:
    """Give a command the option that says where the checkpoints of stores are now."""
    return click.option(
        "--checkpoint",
        "checkpoints",
        type=PATH,
        multiple=True,
        help="Weights that the store was made with, where the recorded file is gone or moved. "
        "Checked by SHA-256; repeat it for several encoders.",
    )(command)


def choosing_parts(command: F) -> F:
    """Give a command the options that say which parts of an image are cut out, and how."""
    for option in reversed(
        [
            click.option("--boxes", type=PATH, help="Table of boxes for view parts: CSV, Parquet."),
            click.option(
                "--protocol", help="Rules of view parts: paper, released … Default paper."
            ),
            click.option(
                "--view-option",
                "view_options",
                multiple=True,
                callback=key_values,
                help="One rule of a view, NAME=VALUE: docs/datasets.md.",
            ),
        ]
    ):
        command = option(command)
    return command


def encoder_choice(given: dict[str, Any]) -> Any:
    """Take the options of `choosing_encoder` out of a command's options."""
    from pa.tasks.encoders import EncoderChoice

    return EncoderChoice(**{name: given.pop(name) for name in ENCODER_OPTIONS})


def with_config(command: F) -> F:
    """Load the workspace's settings and pass them as the first argument."""

    @click.option("--workspace", "-w", "own_workspace", type=PATH, help="As `pa --workspace`.")
    @functools.wraps(command)
    def wrapped(own_workspace: Path | None, *args: Any, **kwargs: Any) -> Any:
        from pa import config

        loaded = config.load(own_workspace or click.get_current_context().obj)
        try:
            return command(loaded, *args, **kwargs)
        except PaError as error:
            settings_missing = isinstance(error, MissingError | AmbiguousError)
            if (settings_missing or config.FILE in str(error)) and loaded.without_file:
                error.add_note(loaded.without_file)
            raise

    return wrapped  # type: ignore[return-value]


def emit(value: Any) -> None:
    """Print one JSON object."""
    console.out(json.dumps(value, ensure_ascii=False, indent=1))
