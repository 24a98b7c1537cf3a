"""The web application and its server: routes and page, socket, and limits of connections."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from pa.data.store.find import check_workspace, find
from pa.data.version import __version__
from pa.errors import BusyError, UsageError
from pa.explore import error_responses
from pa.explore.routes import Services, router, workspace_router
from pa.explore.safety import LOOPBACK, TOKEN, Guard, is_loopback, names_of, new_token
from pa.extract.image_query import check_checkpoints
from pa.workspace import Workspace

DEFAULT_PORT = 8642  # above 1023, so it needs no privileges
IDLE_SECONDS = 15  # enough for a request header over a slow tunnel
_MAX_DESCRIPTORS = 4096  # enough: the limits below are fractions of it
_MAX_CONNECTIONS = 512  # a browser opens six
# asyncio accepts up to one backlog of connections per turn of its loop, and needs three turns to
# close a refused one.
_BACKLOG = 128
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


class PageFiles(StaticFiles):
    """The files of the page. A browser asks for each by its tag at every visit."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"  # else an update would mix two versions
        return response


def make_app(
    workspace: Workspace,
    *,
    names: Iterable[str] = LOOPBACK,
    token: str | None = None,
    device: str | None = None,
    checkpoints: Sequence[Path] = (),
) -> ASGIApp:
    """Return the explorer of a workspace as an ASGI application.

    Parameters
    ----------
    names
        Host names that requests may use.
    token
        Required in every request; None accepts all requests.
    device, checkpoints
        Encode uploaded images.
    """
    services = Services.of(workspace, device, checkpoints)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        services.limiters.close()

    app = FastAPI(
        title="pa explore",
        version=__version__,
        description="Nearest regions of regions, for several encoders side by side.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # these pages load scripts from other servers
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.services = services
    error_responses.add_handlers(app)
    app.include_router(workspace_router)
    app.include_router(router)
    files = PageFiles(directory=Path(__file__).with_name("page"))

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    app.mount("/page", files)
    return Guard(app, names, token)


@dataclass(frozen=True)
class Address:
    """The address of a running server."""

    url: str  # contains the token
    token: str | None
    public: bool  # whether other machines can reach it


def explore(
    workspace: Workspace,
    ready: Callable[[Address], None],
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    token: str | None = None,
    no_token: bool = False,
    device: str | None = None,
    checkpoints: Sequence[Path] = (),
) -> None:
    """Serve the explorer until an interrupt.

    Parameters
    ----------
    ready
        Called with the address once requests are answered.
    port
        None selects the default port, or a free one if it is taken.
    token
        None selects a random token; `no_token` admits everyone who reaches the server.
    device, checkpoints
        Encode uploaded images.

    Raises
    ------
    UsageError
        If the token is short or needs quoting.
    """
    check_workspace(workspace.path)
    check_checkpoints(checkpoints, list(find(workspace.config.features)))
    if token is not None and (no_token or not TOKEN.fullmatch(token)):
        raise UsageError(
            "--token takes at least 16 letters, digits or characters of `._~-`, and excludes "
            "--no-token. Leave it out for a random token."
        )
    token = None if no_token else token or new_token()
    with listen(host, port) as listening:
        # A host that stands for all addresses is replaced by the name of this machine.
        name = socket.gethostname() if host in ("0.0.0.0", "::") else host
        shown = f"[{name}]" if ":" in name else name
        url = f"http://{shown}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")
        address = Address(url, token, not is_loopback(host))
        app = make_app(
            workspace, names=names_of(host), token=token, device=device, checkpoints=checkpoints
        )
        with contextlib.suppress(KeyboardInterrupt):
            serve(app, listening, lambda: ready(address))


def listen(host: str, port: int | None) -> socket.socket:
    """Return a listening socket. Without a port it is 8642, or a free one if that is taken.

    Raise `BusyError` if the given port is taken, and `UsageError` if the host does not belong to
    this machine or the port is not permitted.
    """
    try:
        return _bind(host, DEFAULT_PORT if port is None else port)
    except BusyError:
        if port is not None:
            raise
        return _bind(host, 0)


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(
            f"--host {host} is not a known host ({error.strerror or error})."
        ) from None
    listening = socket.socket(family, kind, number)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise BusyError(
                f"port {port} of {host} is taken by another program. Choose another with --port N, "
                f"or leave it out for a free one."
            ) from None
        raise UsageError(
            f"cannot listen on {host}, port {port} ({error.strerror}). Choose an address of this "
            f"machine with --host, and a port above 1023 with --port."
        ) from None
    return listening


def serve(app: ASGIApp, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until an interrupt or SIGTERM; `ready` is called when requests are answered."""
    descriptors = _raise_descriptor_limit()
    limit = min(_MAX_CONNECTIONS, descriptors // 4)
    config = uvicorn.Config(
        app,
        http=type("LimitedConnection", (_Connection,), {"limit": limit}),
        ws="none",  # the page uses no websockets
        lifespan="on",  # closes the thread pools at the end
        log_level="error",  # warnings come one per request: a client could fill the disk with them
        access_log=False,  # the address of the first visit contains the token
        server_header=False,
        proxy_headers=False,  # any client could send them
        backlog=min(_BACKLOG, max(1, descriptors // 8)),
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=3,  # seconds for running requests after Ctrl-C
    )
    server = _Server(config, ready)
    server.run(sockets=[listening])


def _raise_descriptor_limit() -> int:
    """Raise the soft limit of file descriptors within the hard one, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _MAX_DESCRIPTORS:
        return _MAX_DESCRIPTORS
    limit = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MAX_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


class _Connection(H11Protocol):
    """A connection that may wait for its client only for a limited time.

    uvicorn limits neither open connections nor the time until a request header is complete. An idle
    connection, without a complete request, is closed after `IDLE_SECONDS`, however many bytes of a
    header arrive meanwhile. Beyond `limit` connections the one that has been idle longest is closed
    for the new one, so that unfinished requests cannot keep visitors out; if none is idle, the
    response to the new one is 503.
    """

    limit: int
    _idle_timer: asyncio.TimerHandle | None = None
    _unread = 0  # bytes of an answer that the client had not read when the timer started

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.limit:
            others = (other for other in self.connections if isinstance(other, _Connection))
            idle = [other for other in others if other.idle_since]
            if not idle:
                self.connections.discard(self)
                transport.write(_BUSY)
                transport.close()
                return
            oldest = min(idle, key=lambda other: other.idle_since)
            # Here, not in `connection_lost`: several connections may arrive before that.
            self.connections.discard(oldest)
            oldest.transport.abort()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._idle_timer is not None:
            self._idle_timer.cancel()

    @property
    def idle_since(self) -> float:
        """The time of the loop at which the connection became idle; 0 during a request."""
        return 0.0 if self._idle_timer is None else self._idle_timer.when() - IDLE_SECONDS

    def _watch(self) -> None:
        """Start the timer of an idle connection, or stop it when a request begins."""
        is_active = self.cycle is not None and not self.cycle.response_complete
        if is_active and self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        elif not is_active and self._idle_timer is None:
            self._unread = self.transport.get_write_buffer_size()
            self._idle_timer = self.loop.call_later(IDLE_SECONDS, self._expire)

    def _expire(self) -> None:
        """Close an idle connection, unless its client is still reading an answer."""
        self._idle_timer = None
        unread = self.transport.get_write_buffer_size()
        if 0 < unread < self._unread:
            self._watch()
        elif unread:  # nothing was read in `IDLE_SECONDS`
            self.transport.abort()
        else:
            self.timeout_keep_alive_handler()
