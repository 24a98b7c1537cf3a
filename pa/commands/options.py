"""Options that several commands share, and the objects that they become.

A group of options is stated once, here or in the file of its command, and reaches the command as
one typed object: `@options.stores` passes `selector: StoreSelector`.
"""

from __future__ import annotations

import functools
import json
import math
import pkgutil
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


# -- values ----------------------------------------------------------------------------------------


class Finite(click.FloatRange):
    """A range of numbers without NaN, which passes every comparison, and infinity."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def listed(context: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Read comma-separated names."""
    if value is None:
        return ()
    parts = tuple(part.strip() for part in value.split(","))
    if not all(parts):
        raise click.BadParameter(f"{value!r} has an empty part: give names separated by commas")
    return parts


def numbers(context: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Read comma-separated whole numbers."""
    try:
        return tuple(int(part) for part in listed(context, option, value))
    except ValueError:
        raise click.BadParameter("give whole numbers with commas, such as 3,5,7,11") from None


def reals(context: click.Context, option: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Read comma-separated finite numbers."""
    try:
        values = tuple(float(part) for part in listed(context, option, value))
    except ValueError:
        values = (math.nan,)
    if not all(math.isfinite(number) for number in values):
        raise click.BadParameter("give numbers with commas, such as 0.1,0.4,1")
    return values


def box(
    context: click.Context, option: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Read x0,y0,x1,y1."""
    if value is None:
        return None
    try:
        corners = tuple(float(part) for part in value.split(","))
    except ValueError:
        corners = ()
    if len(corners) != 4:
        raise click.BadParameter("give four numbers x0,y0,x1,y1 in pixels, such as 40,60,96,116")
    return corners


def key_values(
    context: click.Context, option: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, Any], ...]:
    """Read repeated NAME=VALUE; a value that is valid JSON is read as JSON."""
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


def names(flag: str, field: str, text: str) -> click.Option:
    """Return an option that takes names separated by commas."""
    return click.Option([flag, field], callback=listed, help=text)


# -- groups ----------------------------------------------------------------------------------------


class Group:
    """Options that reach a command as one object: `name` = make(**values).

    `make` is a class, or its "module:name", which is imported when the command runs. The name of
    each option is that of a field.
    """

    def __init__(self, name: str, make: type | str, *options: click.Option) -> None:
        self.name = name
        self.make = make
        self.options = options

    def __call__(self, command: F) -> F:
        """Give a command the options of the group."""

        @functools.wraps(command)
        def gathered(*args: Any, **values: Any) -> Any:
            return command(*args, **{self.name: self.build(values)}, **values)

        params = [*getattr(command, "__click_params__", []), *reversed(self.options)]
        gathered.__click_params__ = params  # type: ignore[attr-defined]
        return gathered  # type: ignore[return-value]

    def build(self, values: dict[str, Any]) -> Any:
        """Take the values of the group out of those of a command, and return the object."""
        fields = [option.name for option in self.options if option.name is not None]
        make = pkgutil.resolve_name(self.make) if isinstance(self.make, str) else self.make
        return make(**{field: values.pop(field) for field in fields})


STORE_SELECTOR = "pa.data.store.find:StoreSelector"
STORE_OPTIONS = (
    click.Option(["--dataset"], help="Dataset of the store."),
    click.Option(["--split"], help="Split of the store."),
    click.Option(["--view"], help="View of the store: image, grid, parts or windows."),
    click.Option(["--protocol"], help="Protocol of view parts, such as paper or released."),
    click.Option(
        ["--store", "fingerprint"],
        help="Fingerprint of the store; its first characters are enough.",
    ),
)

# The store of a command, without its encoder: for commands that take several encoders.
stores_of_encoders = Group("selector", STORE_SELECTOR, *STORE_OPTIONS)
stores = Group(
    "selector",
    STORE_SELECTOR,
    click.Option(["--encoder"], help="Encoder of the store."),
    *STORE_OPTIONS,
)

encoders = click.option(
    "--encoder", "encoders", callback=listed, help="Encoder, or several separated by commas."
)

encoder_options = Group(
    "encoder_options",
    "pa.workspace:EncoderOptions",
    click.Option(["--checkpoint"], type=PATH, help="Weights file, .safetensors or .pth."),
    click.Option(
        ["--num-heads"],
        type=click.IntRange(1),
        help="Number of attention heads. Default: that of the official size.",
    ),
    click.Option(["--branch"], help="Network of the file, such as teacher or student."),
    click.Option(
        ["--layers"],
        callback=numbers,
        help="Blocks whose raw outputs are stored, such as 3,5,7,11.",
    ),
    click.Option(["--accept"], is_flag=True, help="Load a file that is not recognised."),
    click.Option(
        ["--option", "options"],
        multiple=True,
        callback=key_values,
        help="Option of the encoder, as NAME=VALUE; see `pa encoders list`.",
    ),
    click.Option(["--device"], help="Device: auto, cpu, cuda or cuda:N."),
    click.Option(["--dtype"], type=click.Choice(DTYPES), help="Precision of the forward pass."),
)

regions = Group(
    "regions",
    "pa.workspace:RegionSelector",
    click.Option(["--dataset"], help="Dataset: a name of pa.toml, or a kind with --root."),
    click.Option(["--root"], type=PATH, help="Root folder of the dataset."),
    click.Option(["--split"], help="Split of the dataset; needed if it has several."),
    click.Option(["--boxes"], type=PATH, help="Table of boxes for view parts, CSV or Parquet."),
    click.Option(
        ["--protocol"], help="Protocol of view parts, such as paper or released. Default: paper."
    ),
    click.Option(
        ["--view-option", "view_options"],
        multiple=True,
        callback=key_values,
        help="One field of a view, as NAME=VALUE; see docs/views.md.",
    ),
    names("--view", "views", "Views, separated by commas: image, grid, parts, windows."),
)

checkpoints = click.option(
    "--checkpoint",
    "checkpoints",
    type=PATH,
    multiple=True,
    help="Weights that produced the store, if the recorded file was moved. Checked by SHA-256; "
    "repeat the option for several encoders.",
)

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def workspace(command: F) -> F:
    """Open the workspace of `--workspace` and pass it as the first argument."""

    @click.option("--workspace", "-w", "own_workspace", type=PATH, help="Same as `pa --workspace`.")
    @functools.wraps(command)
    def opened(own_workspace: Path | None, *args: Any, **values: Any) -> Any:
        from pa.config import FILE
        from pa.workspace import Workspace

        path = own_workspace or click.get_current_context().obj
        opened_workspace = Workspace(path, progress=console.progress())
        try:
            return command(opened_workspace, *args, **values)
        except PaError as error:
            names_settings = isinstance(error, MissingError | AmbiguousError)
            if (names_settings or FILE in str(error)) and opened_workspace.config.without_file:
                error.add_note(opened_workspace.config.without_file)
            raise

    return opened  # type: ignore[return-value]


def emit(value: Any) -> None:
    """Print one JSON object."""
    console.out(json.dumps(value, ensure_ascii=False, indent=1))
