"""The settings of a workspace: built-in defaults < pa.toml < PA_* environment < flags.

workspace/
  pa.toml                                     settings, optional
  features/ indexes/ results/ figures/ checkpoints/
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from pa.data import images
from pa.errors import UsageError

FILE = "pa.toml"
HERE = "this folder"  # source of a workspace that nothing names

Precision = Literal["fp32", "bf16", "fp16"]
Storage = Literal["fp32", "bf16", "fp16", "int8"]
# The name of a dataset is also the name of a folder.
Name = Annotated[str, StringConstraints(pattern=r"^[^./\\\s][^/\\]*$")]


class DatasetSettings(BaseModel):
    """[datasets.NAME]: root folder and kind of a dataset (default: the kind of that name)."""

    model_config = ConfigDict(extra="forbid")

    root: Path
    kind: str | None = None
    split: str | None = None
    boxes: Path | None = None
    protocol: str | None = None


class EncoderSettings(BaseModel):
    """[encoders.NAME]: the checkpoint file and what it does not record."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: Path | None = None
    num_heads: int | None = None
    branch: str | None = None
    accept: bool = False
    options: dict[str, Any] = {}


class ProbeSettings(BaseModel):
    """[probe]: the target, and the training and test rows by split or by condition."""

    model_config = ConfigDict(extra="forbid")

    target: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    train_where: str | None = None
    test_where: str | None = None


class ClusterSettings(BaseModel):
    """[cluster]: default resources of `pa submit`, and how tasks start."""

    model_config = ConfigDict(extra="forbid")

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    time: str | None = None
    gpus: int | None = Field(default=None, ge=0)
    cpus: int | None = Field(default=None, ge=1)
    mem: str | None = None
    setup: list[str] = []
    python: str | None = None
    parameters: dict[str, str | int] = {}
    requeues: int = Field(default=20, ge=0)
    signal_seconds: int = Field(default=90, ge=1)


class Settings(BaseSettings):
    """All settings. `dataset`, `view` and `encoder` apply to commands that name none."""

    model_config = SettingsConfigDict(env_prefix="PA_", env_nested_delimiter="__", extra="forbid")

    dataset: str | None = None
    view: str | None = None
    encoder: str | None = None
    representation: str = "pooled"
    device: str = "auto"
    dtype: Precision = "fp32"
    storage: Storage = "fp16"
    batch_size: int = Field(default=0, ge=0)
    workers: int = Field(default=0, ge=0)
    max_pixels: int = Field(default=images.MAX_PIXELS, ge=1)
    probe: ProbeSettings = ProbeSettings()
    cluster: ClusterSettings = ClusterSettings()
    datasets: dict[Name, DatasetSettings] = {}
    encoders: dict[str, EncoderSettings] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The init values are those of pa.toml, and the environment overrides them. Commands apply
        # their flags themselves.
        return env_settings, init_settings


@dataclass(frozen=True)
class Setting:
    """One value and its source."""

    name: str
    value: Any
    source: str


@dataclass(frozen=True)
class Config:
    """The settings of one workspace."""

    workspace: Path
    workspace_source: str
    settings: Settings
    from_file: Mapping[str, Any]

    @property
    def file(self) -> Path:
        return self.workspace / FILE

    @property
    def features(self) -> Path:
        return self.workspace / "features"

    @property
    def indexes(self) -> Path:
        return self.workspace / "indexes"

    @property
    def checkpoints(self) -> Path:
        return self.workspace / "checkpoints"

    @property
    def jobs(self) -> Path:
        return self.workspace / "jobs"

    @property
    def results(self) -> Path:
        return self.workspace / "results"

    @property
    def figures(self) -> Path:
        return self.workspace / "figures"

    @property
    def without_file(self) -> str | None:
        """A note if no pa.toml was found, with the searched folders; else None."""
        if self.file.is_file() or not self.workspace.is_dir():
            return None
        parents = " or its parents" if self.workspace_source == HERE else ""
        return (
            f"no {FILE} found in {self.workspace}{parents}: datasets, encoders and defaults are "
            f"unknown. Name the folder that has one with --workspace DIR, or write one "
            f"(docs/configuration.md)."
        )

    def path(self, value: Path) -> Path:
        """Return a path from pa.toml; relative paths start at the workspace."""
        value = value.expanduser()
        return value if value.is_absolute() else self.workspace / value

    def explain(self) -> list[Setting]:
        """Return every setting with its value and source."""
        listed = [Setting("workspace", str(self.workspace), self.workspace_source)]
        file = dict(_flatten(dict(self.from_file)))
        for name, value in _flatten(self.settings.model_dump(mode="json")):
            variable = "PA_" + name.upper().replace(".", "__")
            if variable in os.environ:
                source = f"environment {variable}"
            elif name in file:
                source = str(self.file)
            else:
                source = "built in"
            listed.append(Setting(name, value, source))
        return listed


def load(workspace: Path | None = None) -> Config:
    """Find the workspace and read its settings.

    The workspace is the given one, else PA_WORKSPACE, else the nearest folder at or above the
    current one with a pa.toml, else the current folder. Raise `UsageError` for a faulty setting.
    """
    folder, source = _find(workspace)
    fields = _read(folder / FILE)
    _refuse_one_split_for_all(folder / FILE, fields)
    try:
        settings = Settings(**fields)
    except ValidationError as error:
        raise UsageError(_explain_faults(folder / FILE, error)) from None
    except SettingsError as error:  # a PA_* variable of a table that is not valid JSON
        raise UsageError(f"settings are wrong, in PA_* variables: {error}.") from None
    images.set_max_pixels(settings.max_pixels)
    return Config(folder, source, settings, fields)


def _find(workspace: Path | None) -> tuple[Path, str]:
    if workspace is not None:
        return workspace.expanduser().absolute(), "flag --workspace"
    if value := os.environ.get("PA_WORKSPACE"):
        return Path(value).expanduser().absolute(), "environment PA_WORKSPACE"
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FILE).is_file():
            return folder, f"nearest {FILE}"
    return here, HERE


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(
            f"cannot read {file} ({error.strerror}). Choose another workspace with --workspace DIR."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not valid TOML: {error}.") from None


def _refuse_one_split_for_all(file: Path, fields: Mapping[str, Any]) -> None:
    """Raise `UsageError` for one split of all datasets."""
    split = fields.get("split", os.environ.get("PA_SPLIT"))
    if split is None:
        return
    where = file if "split" in fields else "the environment (PA_SPLIT)"
    tables = fields.get("datasets")
    names = [fields["dataset"]] if "dataset" in fields else tables or ["NAME"]
    lines = "\n".join(f'  [datasets.{name}]\n  split = "{split}"' for name in names)
    raise UsageError(
        f"split is set for all datasets in {where}: {split!r}. Datasets have different splits. "
        f"Remove it, and set the split of a dataset in {file}:\n{lines}\n"
        f"or as PA_DATASETS__NAME__SPLIT={split}, or per command with --split {split}."
    )


def _explain_faults(file: Path, error: ValidationError) -> str:
    faults = [
        f"  {'.'.join(map(str, fault['loc'])) or '(top)'}: {fault['msg']}"
        for fault in error.errors()
    ]
    return (
        f"settings are wrong, in {file} or in PA_* variables:\n" + "\n".join(faults) + "\n"
        "See docs/configuration.md for what can be set, and `pa config show` for what is."
    )


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value
