"""Listening: a socket of our own, so that what fails is said before anything starts."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from pa.errors import BusyError, UsageError

DEFAULT_PORT = 8642
_BACKLOG = 512


def listen(host: str, port: int | None) -> socket.socket:
    """A listening socket. Without a port it is 8642, or any free one where that is taken.

    Raises `BusyError` for a port that is taken, `UsageError` for a host that is not of this machine
    or a port that may not be had.
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
            f"--host {host} is no host that is known here ({error.strerror or error})."
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
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=3,
    )
    server = _Server(config, ready)
    server.run(sockets=[listening])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()
