"""Encoders as flags and settings name them; `pa encoders list`, `check`, `fetch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pa.config import Config, EncoderSettings
from pa.data.store.spec import describe
from pa.errors import (
    AmbiguousError,
    CheckpointError,
    FingerprintError,
    MissingError,
    PaError,
    UsageError,
)
from pa.tasks.choose import device

if TYPE_CHECKING:
    from pa.data.store.reader import Store
    from pa.extract.encoders import Encoder


@dataclass(frozen=True)
class EncoderChoice:
    """How to load an encoder; None or empty = take it from the settings."""

    checkpoint: Path | None = None
    num_heads: int | None = None
    branch: str | None = None
    layers: tuple[int, ...] = ()
    accept: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    device: str | None = None
    dtype: str | None = None

    def check_names(self, config: Config, names: Sequence[str | None]) -> None:
        """Raise `UsageError` where one checkpoint file is given for several encoders."""
        if self.checkpoint and len(names) > 1:
            raise UsageError(
                f"--checkpoint names one file, but {len(names)} encoders were asked for. Set each "
                f'encoder\'s file in {config.file}: [encoders.NAME] checkpoint = "…".'
            )


def default_encoders(config: Config) -> tuple[str, ...]:
    if config.settings.encoder:
        return tuple(config.settings.encoder.split(","))
    configured = tuple(config.settings.encoders)
    if len(configured) == 1:
        return configured
    raise AmbiguousError(
        "which encoder? Give --encoder NAME"
        + (f" (configured: {', '.join(configured)})" if configured else "")
        + ", or set encoder in pa.toml. `pa encoders list` shows what there is."
    )


def find_checkpoint(config: Config, name: str, given: Path | None) -> Path | None:
    """The checkpoint of an encoder: the one given, else of pa.toml, else one that was fetched."""
    from pa.extract.encoders import ENCODERS

    if given is not None:
        return given
    entry = config.settings.encoders.get(name)
    if entry is not None and entry.checkpoint is not None:
        return config.path(entry.checkpoint)
    for source in ENCODERS[name].card.sources if name in ENCODERS else ():
        fetched = config.checkpoints / name / source.file
        if fetched.is_file():
            return fetched
    return None


def load_store_encoder(
    config: Config,
    store: Store,
    command: str,
    *,
    given: Sequence[Path] = (),
    device_name: str | None = None,
) -> Encoder:
    """Load the encoder that produced a store, with the options and precision recorded there.

    The checkpoint is found by its SHA-256: see `find_store_checkpoint`. Raises what it raises, and
    `FingerprintError` where this version of pa loads the same file as another network.
    """
    from pa.extract.encoders import load_encoder as load

    spec = store.spec.encoder
    options = dict(spec["options"])
    encoder = load(
        store.encoder,
        find_store_checkpoint(config, store, command, given),
        num_heads=spec["architecture"].get("heads"),
        branch=options.pop("branch", None),
        layers=options.pop("layers", ()),
        device=device(device_name or config.settings.device),
        compute=store.spec.precision["compute"],
        **options,
    )
    loaded = encoder.spec.to_json()
    loaded["options"] = {k: v for k, v in loaded["options"].items() if k != "compute"}
    now = replace(store.spec, encoder=loaded, transform=encoder.transform.to_json())
    if differences := store.spec.differences(now):
        raise FingerprintError(
            f"{store.title}: this version of pa loads {encoder.checkpoint or 'the weights'} as "
            f"another network than the one recorded. Fields that differ (store → now):\n"
            f"{describe(differences)}\nMake the store again with:\n  {store.command} --replace"
        )
    return encoder


def find_store_checkpoint(
    config: Config, store: Store, command: str, given: Sequence[Path] = ()
) -> Path | None:
    """The checkpoint file that a store was made with; None for weights that timm fetches.

    The first file with the SHA-256 of the store is used: of those `given`, the one recorded with
    the store, the one of pa.toml, the one fetched. Raises `MissingError` where none of them is
    there, `CheckpointError` where those there are other files; `command` is the call that takes
    --checkpoint.
    """
    from pa.extract.encoders.checkpoint import file_sha256
    from pa.extract.encoders.timm_models import PREFIX

    expected, recorded = store.spec.encoder["weights_sha256"], store.source.get("checkpoint")
    origins = {_absolute(path): "--checkpoint" for path in given}
    if recorded is not None:
        origins.setdefault(Path(recorded), "recorded with the store")
    if (found := find_checkpoint(config, store.encoder, None)) is not None:
        origins.setdefault(_absolute(found), f"found by {config.file} or `pa encoders fetch`")
    lines: list[str] = []
    status: type[PaError] = MissingError
    for path, origin in origins.items():
        try:
            sha256 = file_sha256(path)
        except OSError as error:
            lines.append(f"  {path} ({origin}): {error.strerror}")
            continue
        if sha256 == expected:
            return path
        status = CheckpointError
        lines.append(f"  {path} ({origin}): SHA-256 {sha256}")
    if recorded is None and store.encoder.startswith(PREFIX):
        return None
    looked = "\n".join(lines) or "  no file is recorded with the store"
    raise status(
        f"{store.title} was made with a checkpoint of SHA-256 {expected}. That file is needed "
        f"again, and was not found:\n{looked}\nName it, wherever it is now:\n"
        f"  {command} --checkpoint FILE\n"
        f'or set it in {config.file}:\n  [encoders."{store.encoder}"]\n  checkpoint = "FILE"'
    )


def check_given_checkpoints(given: Sequence[Path], chosen: Sequence[Store]) -> None:
    """Raise unless every file of --checkpoint is the one that some store was made with."""
    if not given:
        return
    from pa.extract.encoders.checkpoint import file_sha256

    for path in given:
        if not path.expanduser().is_file():
            raise MissingError(f"--checkpoint {path} is not a file.")
        sha256 = file_sha256(path.expanduser())
        if all(store.spec.encoder["weights_sha256"] != sha256 for store in chosen):
            made_with = "\n".join(
                f"  {store.spec.encoder['weights_sha256']}  {store.title}, "
                f"{store.source.get('checkpoint') or 'no file recorded'}"
                for store in chosen[:12]
            )
            raise CheckpointError(
                f"--checkpoint {path} made none of the stores: its SHA-256 is\n  {sha256}\n"
                f"Expected one of:\n{made_with}\n"
                f"Leave out --checkpoint to use the file that was recorded."
            )


def _absolute(path: Path) -> Path:
    return path.expanduser().resolve()


def load_encoder(config: Config, name: str, choice: EncoderChoice) -> Encoder:
    """Load an encoder with the checkpoint and options that flags or settings name."""
    from pa.extract.encoders import load_encoder as load

    return load(
        name,
        find_checkpoint(config, name, choice.checkpoint),
        layers=choice.layers,
        device=device(choice.device or config.settings.device),
        compute=choice.dtype or config.settings.dtype,
        **_network(config, name, choice),
    )


def _network(config: Config, name: str, choice: EncoderChoice) -> dict[str, Any]:
    entry = config.settings.encoders.get(name, EncoderSettings())
    return {
        "num_heads": choice.num_heads or entry.num_heads,
        "branch": choice.branch or entry.branch,
        "accept": choice.accept or entry.accept,
        **entry.options,
        **dict(choice.options),
    }
