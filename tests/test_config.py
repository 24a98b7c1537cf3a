"""Built in < pa.toml < environment < flags, and where each value came from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pa import config
from pa.data.store.find import StoreSelector
from pa.errors import UsageError
from pa.workspace import Workspace


def sources(actual: config.Config) -> dict[str, tuple[object, str]]:
    return {s.name: (s.value, s.source) for s in actual.explain()}


def test_defaults_without_a_file(in_empty_folder: Path) -> None:
    loaded = config.load()
    assert loaded.workspace == in_empty_folder
    assert loaded.settings.storage == "fp16"
    assert sources(loaded)["storage"] == ("fp16", "built in")
    assert sources(loaded)["workspace"] == (str(in_empty_folder), "this folder")


def test_file_then_environment(in_empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (in_empty_folder / "pa.toml").write_text('device = "cpu"\nencoder = "dino"\n')
    monkeypatch.setenv("PA_DEVICE", "cuda")
    loaded = config.load()
    assert loaded.settings.device == "cuda"
    assert loaded.settings.encoder == "dino"
    assert sources(loaded)["device"] == ("cuda", "environment PA_DEVICE")
    assert sources(loaded)["encoder"] == ("dino", str(in_empty_folder / "pa.toml"))


def test_nested_environment(in_empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PA_DATASETS__CUB__ROOT", "/data/cub")
    monkeypatch.setenv("PA_PROBE__TRAIN_SPLIT", "train")
    loaded = config.load()
    assert loaded.settings.datasets["cub"].root == Path("/data/cub")
    assert sources(loaded)["probe.train_split"] == ("train", "environment PA_PROBE__TRAIN_SPLIT")
    assert sources(loaded)["datasets.cub.root"][1] == "environment PA_DATASETS__CUB__ROOT"


@pytest.mark.parametrize("text", ['split = "val"\n', ""])
def test_split_for_all_datasets_is_refused(
    text: str, in_empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = '[datasets.cub]\nroot = "cub"\n[datasets.coco]\nroot = "coco"\n'
    (in_empty_folder / "pa.toml").write_text(text + tables)
    if not text:
        monkeypatch.setenv("PA_SPLIT", "val")
    with pytest.raises(UsageError) as refused:
        config.load()
    assert '[datasets.cub]\n  split = "val"' in str(refused.value)
    assert '[datasets.coco]\n  split = "val"' in str(refused.value)


def test_split_per_dataset_is_used(in_empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (in_empty_folder / "pa.toml").write_text('[datasets.cub]\nroot = "cub"\nsplit = "test"\n')
    assert config.load().settings.datasets["cub"].split == "test"
    monkeypatch.setenv("PA_DATASETS__CUB__SPLIT", "all")
    loaded = config.load()
    assert sources(loaded)["datasets.cub.split"] == ("all", "environment PA_DATASETS__CUB__SPLIT")

    def split(**fields: str) -> str | None:
        return Workspace().complete(StoreSelector(**fields)).split

    assert split(dataset="cub") == "all"
    assert split(dataset="cub", split="train") == "train"
    assert split(dataset="coco") is None


def test_workspace_is_the_nearest_folder_with_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pa.toml").write_text("")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert config.load().workspace == tmp_path
    monkeypatch.setenv("PA_WORKSPACE", str(below))
    assert config.load().workspace == below
    assert config.load(tmp_path).workspace_source == "flag --workspace"


def test_relative_paths_start_at_the_workspace(in_empty_folder: Path) -> None:
    (in_empty_folder / "pa.toml").write_text('[datasets.photos]\nkind = "folder"\nroot = "p"\n')
    loaded = config.load()
    assert loaded.path(loaded.settings.datasets["photos"].root) == in_empty_folder / "p"
    assert loaded.path(Path("/x")) == Path("/x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("devise = 'cpu'", "devise: Extra inputs are not permitted"),
        ("[datasets.cub]\nkind = 'folder'", "datasets.cub.root: Field required"),
        ("batch_size = 'many'", "batch_size: Input should be a valid integer"),
        ("[encoders.dino]\ncheckpiont = 'x'", "encoders.dino.checkpiont: Extra inputs"),
    ],
)
def test_faulty_settings_are_named(in_empty_folder: Path, text: str, message: str) -> None:
    (in_empty_folder / "pa.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        config.load()
    assert message in str(caught.value)
    assert "pa.toml" in str(caught.value)


def test_broken_toml(in_empty_folder: Path) -> None:
    (in_empty_folder / "pa.toml").write_text("a = [")
    with pytest.raises(UsageError, match="is not valid TOML"):
        config.load()


@pytest.mark.parametrize("name", ["../../escape", "a/b", ".hidden", ""])
def test_dataset_names_are_folder_names(in_empty_folder: Path, name: str) -> None:
    (in_empty_folder / "pa.toml").write_text(f'[datasets."{name}"]\nkind = "folder"\nroot = "p"\n')
    with pytest.raises(UsageError, match="datasets"):
        config.load()


def test_scalar_variables_for_tables_are_refused(
    in_empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PA_DATASETS", "foo")
    with pytest.raises(UsageError, match="in PA_\\* variables"):
        config.load()
    monkeypatch.delenv("PA_DATASETS")
    monkeypatch.setenv("PA_STORAGE", "fp8")
    with pytest.raises(UsageError, match="storage"):
        config.load()
