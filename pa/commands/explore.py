"""`pa explore`: serve the page on which neighbours are looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pa.commands.encoders import check_given_checkpoints
from pa.config import Config
from pa.data import stores
from pa.errors import MissingError


@dataclass(frozen=True)
class ExploreRequest:
    """Where to serve. `port` None is the usual one, or a free one; `device` and `checkpoints`
    encode uploaded images."""

    host: str = "127.0.0.1"
    port: int | None = None
    device: str | None = None
    checkpoints: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Address:
    """Where the page is, and whether other machines can reach it."""

    url: str
    public: bool


def explore(config: Config, request: ExploreRequest, ready: Callable[[Address], None]) -> None:
    """Serve the explorer until an interrupt; `ready` is told the address when it answers.

    On a host that other machines can reach, the address holds a random token. Raises `MissingError`
    without the extra `explore`, and what `pa.explore.server.listen` raises.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingError(
            f"the explorer needs {error.name}, which is not installed: "
            f"pip install 'part-aware[explore]'."
        ) from None
    from pa.explore.app import make_app
    from pa.explore.safety import is_loopback, names_of, new_token
    from pa.explore.server import listen, serve

    check_given_checkpoints(request.checkpoints, list(stores.find(config.features)))
    public = not is_loopback(request.host)
    token = new_token() if public else None
    with listen(request.host, request.port) as listening:
        address = Address(_url(request.host, listening.getsockname()[1], token), public)
        app = make_app(
            config,
            names=names_of(request.host),
            token=token,
            device=request.device,
            checkpoints=request.checkpoints,
        )
        with contextlib.suppress(KeyboardInterrupt):
            serve(app, listening, lambda: ready(address))


def _url(host: str, port: int, token: str | None) -> str:
    """The address to open; a host that means all addresses is called by this machine's name."""
    import socket

    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    shown = f"[{name}]" if ":" in name else name
    return f"http://{shown}:{port}/" + (f"{token}/" if token else "")
