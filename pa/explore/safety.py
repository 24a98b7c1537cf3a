"""Who may ask, and what a page from here may do: the outermost layer of the server.

- The Host header must name this machine. Else a web page elsewhere could let its own name point to
  127.0.0.1 and read what is served here (DNS rebinding).
- A request that a page of another origin sends is refused, whatever it asks.
- Where other machines can reach the server, every address begins with a random token.
- Every answer carries a content security policy under which a page runs the scripts and styles of
  this server and loads from nowhere else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import secrets
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Whether a host to listen on can be reached from this machine alone."""
    return host == "localhost" or _is_address(host, "is_loopback")


def _is_address(host: str, kind: str | None = None) -> bool:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return kind is None or bool(getattr(address, kind))


def names_of(host: str) -> frozenset[str]:
    """The names by which a server that listens on `host` may be asked for, in lower case."""
    names = {*LOOPBACK, host.strip("[]")}
    if not is_loopback(host):
        names |= {socket.gethostname(), socket.getfqdn()}
    return frozenset(name.lower() for name in names)


def new_token() -> str:
    """128 random bits, for an address."""
    return secrets.token_urlsafe(16)


class Guard:
    """An ASGI application around another, with the rules above.

    `names` are the hosts that may be asked for. With a `token`, addresses are asked for too (no
    name can be rebound to a literal address), and every path begins with the token.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], token: str | None = None) -> None:
        self._app = app
        self._names = frozenset(names)
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await self._guarded(scope, receive, answer)
        except asyncio.CancelledError:  # the server is told to stop, and its patience is at an end
            if not answer.begun:
                text = "the explorer was stopped before it could answer."
                await _tell(answer, 503, "stopped", text)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if (refusal := self._refusal(headers)) is not None:
            await _tell(send, 403, "refused", refusal)
            return
        if self._token is not None:
            entered = self._enter(scope)
            if entered is None:
                text = "open the whole address that `pa explore` printed: it holds a token."
                await _tell(send, 404, "not found", text)
                return
            if scope["path"] == f"/{self._token}":
                await _redirect(send, f"/{self._token}/")
                return
            scope = entered
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        name = _host_name(host)
        if name not in self._names and not (self._token is not None and _is_address(name)):
            return (
                f"this server is not called {name[:100]!r}, but {', '.join(sorted(self._names))}. "
                f"Open it under one of these, or start `pa explore --host` with that name."
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return f"a page of {origin[:100]} may not ask this server."
        if headers.get("sec-fetch-site") == "cross-site" and (
            headers.get("sec-fetch-mode") != "navigate"
        ):
            return "a page of another site may not ask this server."
        return None

    def _enter(self, scope: Scope) -> Scope | None:
        """The scope below the token; None where the path does not begin with it."""
        first = scope["path"].split("/")[1] if scope["path"].startswith("/") else ""
        assert self._token is not None
        if not secrets.compare_digest(first.encode(), self._token.encode()):
            return None
        return {**scope, "root_path": f"/{self._token}"}


def _host_name(host: str) -> str:
    """The name in a Host header, without its port, in lower case."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal():
        name = host
    return name.strip("[]").lower()


class _Answer:
    """Sends with our headers, and knows whether anything was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await self._send(message)


async def _tell(send: Send, status: int, error: str, message: str) -> None:
    problem: dict[str, Any] = {"error": error, "message": message, "commands": []}
    await _send(
        send, status, json.dumps(problem).encode(), [(b"content-type", b"application/json")]
    )


async def _redirect(send: Send, to: str) -> None:
    await _send(send, 307, b"", [(b"location", to.encode())])


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
