"""`pa explore`: serve the page on which neighbours are looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pa.config import Config
from pa.data.store import find as stores
from pa.errors import MissingError, UsageError
from pa.tasks.encoders import check_given_checkpoints


@dataclass(frozen=True)
class ExploreRequest:
    """Where to serve, and to whom.

    `port` None is the usual one, or a free one; `token` None is a random one, unless `no_token`
    lets everyone in who reaches the server; `device` and `checkpoints` encode uploaded images.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    token: str | None = None
    no_token: bool = False
    device: str | None = None
    checkpoints: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Address:
    """Where the page is, the token in the address, and whether other machines can reach it."""

    url: str
    token: str | None
    public: bool


def explore(config: Config, request: ExploreRequest, ready: Callable[[Address], None]) -> None:
    """Serve the explorer until an interrupt; `ready` is told the address when it answers.

    Raises `UsageError` for a token that is short or needs quoting, `MissingError` without the extra
    `explore`, and what `pa.explore.server.listen` raises.
    """
    stores.check_workspace(config.workspace)
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingError(
            f"the explorer needs {error.name}, which is not installed: "
            f"pip install 'part-aware[explore]'."
        ) from None
    from pa.explore.app import make_app
    from pa.explore.safety import TOKEN, is_loopback, names_of, new_token
    from pa.explore.server import listen, serve

    check_given_checkpoints(request.checkpoints, list(stores.find(config.features)))
    public = not is_loopback(request.host)
    if request.token is not None and (request.no_token or not TOKEN.fullmatch(request.token)):
        raise UsageError(
            "--token takes at least 16 letters, digits or characters of `._~-`, and excludes "
            "--no-token. Leave it out for a random token."
        )
    token = None if request.no_token else request.token or new_token()
    with listen(request.host, request.port) as listening:
        url = _url(request.host, listening.getsockname()[1], token)
        address = Address(url, token, public)
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
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
