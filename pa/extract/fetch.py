"""Download an official checkpoint, with resume; without a network, say what to put where."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

from pa.data.files import storage_errors, sync
from pa.errors import CheckpointError, MissingError, UnknownNameError
from pa.extract.encoders.card import CheckpointSource, EncoderCard
from pa.progress import Progress

BLOCK = 1 << 20
TIMEOUT = 30.0


def choose_source(card: EncoderCard, file: str | None) -> CheckpointSource:
    """The file of a card: by name, or the first, which holds the most (the projector too)."""
    by_name = {source.file: source for source in card.sources}
    if file is None:
        return card.sources[0]
    if file not in by_name:
        raise UnknownNameError(f"file of encoder {card.name}", file, by_name)
    return by_name[file]


def fetch(source: CheckpointSource, folder: Path, progress: Progress) -> Path:
    """Download a file into a folder, going on where an earlier download stopped.

    The file has its final name only when it is whole and its hash, where the authors state one, is
    right. Raises `MissingError` where it cannot be had from here, with what to put where,
    `CheckpointError` for a wrong hash, `StorageError` for a full disk.
    """
    target = folder / source.file
    if target.is_file():
        return target
    if not source.url:
        by_hand = _by_hand(source, target)
        raise MissingError(f"{source.file} has no address to download from. {by_hand}")
    part = target.with_name(f"{target.name}.download")
    with storage_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _download(source.url, part, progress)
        except urllib.error.HTTPError as error:
            error.close()
            raise MissingError(
                f"{source.url} answers {error.code} {error.reason}. {_by_hand(source, target)}"
            ) from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise MissingError(
                f"cannot reach {source.url} from here ({reason}). {_by_hand(source, target)}"
            ) from None
        _check(source, part)
        sync(part)
        part.replace(target)
    return target


def _by_hand(source: CheckpointSource, target: Path) -> str:
    return (
        f"Download it where there is a network (published at: {source.url or source.note}) and put "
        f"it at {target}, or name its place with --checkpoint FILE."
    )


def _download(url: str, part: Path, progress: Progress) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing beyond what we have: it was whole
            error.close()
            return
        raise
    with response:
        resumed = response.status == 206
        have = have if resumed else 0
        left = int(response.headers.get("Content-Length") or 0)
        whole = have + left
        progress.start(url.rsplit("/", 1)[1], whole, "bytes", have)
        try:
            with part.open("ab" if resumed else "wb") as out:
                while block := response.read(BLOCK):
                    out.write(block)
                    progress.advance(len(block))
        finally:
            progress.stop()
        if part.stat().st_size < whole:
            raise ConnectionError("the connection ended early; the same command goes on from here")


def _check(source: CheckpointSource, part: Path) -> None:
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if source.sha256_prefix and not source.matches(found):
        part.unlink()
        raise CheckpointError(
            f"{source.file} from {source.url} has SHA-256 {found}, expected one that begins with "
            f"{source.sha256_prefix}. The download was deleted; type the command again."
        )
