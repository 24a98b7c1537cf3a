"""Download an official checkpoint, resuming an interrupted download."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

from pa.data.files import storage_errors, sync
from pa.errors import CheckpointError, MissingError, UnknownNameError
from pa.extract.encoders.checkpoint import file_sha256
from pa.extract.encoders.family import CheckpointSource, EncoderCard
from pa.progress import Progress

BLOCK = 1 << 20  # bytes per read
TIMEOUT = 30.0  # seconds without data


def choose_source(card: EncoderCard, file: str | None) -> CheckpointSource:
    """Return a file of a card by name; None selects the first, which contains the most."""
    by_name = {source.file: source for source in card.sources}
    if file is None:
        return card.sources[0]
    if file not in by_name:
        raise UnknownNameError(f"file of encoder {card.name}", file, by_name)
    return by_name[file]


def fetch(source: CheckpointSource, folder: Path, progress: Progress) -> Path:
    """Download a file into a folder, resuming an earlier download.

    The file gets its final name when it is complete and its hash, if the authors state one, is
    correct.

    Raises
    ------
    MissingError
        If it cannot be downloaded; the message states which file to put where.
    CheckpointError
        For a wrong hash.
    StorageError
        For a full disk.
    """
    target = folder / source.file
    if target.is_file():
        return target
    by_hand = (
        f"Download it on a machine with a network (published at: {source.url or source.note}) and "
        f"copy it to {target}, or give its path with --checkpoint FILE."
    )
    if not source.url:
        raise MissingError(f"{source.file} has no address to download from. {by_hand}")
    # Next to the target, so that the rename at the end stays on one file system.
    part = target.with_name(f"{target.name}.download")
    with storage_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _download(source.url, part, progress)
        except urllib.error.HTTPError as error:
            error.close()
            answer = f"{source.url} answers {error.code} {error.reason}"
            raise MissingError(f"{answer}. {by_hand}") from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            raise MissingError(f"cannot reach {source.url} ({reason}). {by_hand}") from None
        # A file of the right name with other weights would change every result.
        sha256 = file_sha256(part)
        if source.sha256_prefix and not source.matches(sha256):
            part.unlink()
            raise CheckpointError(
                f"{source.file} from {source.url} has SHA-256 {sha256}, expected one that begins "
                f"with {source.sha256_prefix}. The download was deleted; run the command again."
            )
        sync(part)
        part.replace(target)
    return target


def _download(url: str, part: Path, progress: Progress) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # no bytes are left: the download was complete
            error.close()
            return
        raise
    with response:
        resumed = response.status == 206  # a server without ranges sends the whole file (200)
        have = have if resumed else 0
        whole = have + int(response.headers.get("Content-Length") or 0)
        progress.start(url.rsplit("/", 1)[1], whole, "bytes", have)
        try:
            with part.open("ab" if resumed else "wb") as out:
                while block := response.read(BLOCK):
                    out.write(block)
                    progress.advance(len(block))
        finally:
            progress.stop()
        if part.stat().st_size < whole:
            raise ConnectionError("the connection ended early; run the same command to resume")
