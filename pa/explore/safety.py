"""Who may ask, and what a page from here may do: the outermost layer of the server.

- The Host header must name this machine. Else a web page elsewhere could let its own name point to
  127.0.0.1 and read what is served here (DNS rebinding).
- A request that a page of another origin sends is refused, whatever it asks.
- A request must carry the server's token: in the printed address, then in a cookie, or in a header.
  Else every user of this machine could read what is served on 127.0.0.1.
- Every answer carries a content security policy under which a page runs the scripts and styles of
  this server and loads from nowhere else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import secrets
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Characters that need no quoting in an address, a cookie or a header.
TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")
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
    """The names by which a server that listens on `host` is reached, in lower case."""
    names = {*LOOPBACK, host.strip("[]")}
    if not is_loopback(host):
        names |= {socket.gethostname(), socket.getfqdn()}
    return frozenset(name.lower() for name in names)


def new_token() -> str:
    """128 random bits, for an address."""
    return secrets.token_urlsafe(16)


class Guard:
    """An ASGI application around another, with the rules above.

    `names` are the accepted host names, next to literal addresses, which cannot be rebound. Without
    a `token` everyone who reaches the server is admitted.
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
        except asyncio.CancelledError:  # the server is told to stop, and its timeout is at an end
            if not answer.begun:
                text = "the explorer was stopped before it could answer."
                await _tell(answer, 503, "stopped", text)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if (refusal := self._refusal(headers)) is not None:
            await _tell(send, 403, "refused", refusal)
            return
        if self._token is None:
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        cookie = _cookie_name(headers)
        # A redirect would lose the body of another method.
        if scope["method"] == "GET" and self._is_token(connection.query_params.get("token")):
            await self._enter(connection, cookie, send)
        elif self._is_token(connection.cookies.get(cookie)) or self._is_token(_bearer(headers)):
            await self._app(scope, receive, send)
        else:
            text = (
                "this request has no valid token. Open the whole address that `pa explore` printed "
                "when it was started, or send its token as `Authorization: Bearer TOKEN`."
            )
            await _tell(send, 401, "token needed", text, (b"www-authenticate", b"Bearer"))

    def _refusal(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        name, _ = _host(host)
        if name not in self._names and not _is_address(name):
            return (
                f"this server is not called {name[:100]!r}, but {', '.join(sorted(self._names))}. "
                f"Open it under one of these, or start `pa explore --host` with that name."
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return f"a page of {origin[:100]} may not ask this server."
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and (
            headers.get("sec-fetch-mode") != "navigate"
        ):
            return "a page of another site may not ask this server."
        return None

    def _is_token(self, sent: str | None) -> bool:
        assert self._token is not None
        return sent is not None and secrets.compare_digest(sent.encode(), self._token.encode())

    async def _enter(self, connection: HTTPConnection, cookie: str, send: Send) -> None:
        """Move the token from the address into a cookie, which no script and no Referer shows."""
        kept = [item for item in connection.query_params.multi_items() if item[0] != "token"]
        # A path that begins with two slashes would name another host.
        path = "/" + quote(connection.scope["path"].lstrip("/"))
        location = f"{path}?{urlencode(kept)}" if kept else path
        headers = [
            (b"location", location.encode()),
            (b"set-cookie", f"{cookie}={self._token}; Path=/; HttpOnly; SameSite=Lax".encode()),
            (b"cache-control", b"no-store"),
        ]
        await _send(send, 303, b"", headers)


def _host(host: str) -> tuple[str, str]:
    """Return the name in a Host header in lower case, and the port."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal():
        name, port = host, ""
    return name.strip("[]").lower(), port


def _cookie_name(headers: Headers) -> str:
    """Return a separate name for each port: browsers send a host's cookies to all of its ports."""
    return f"pa-explore-{_host(headers.get('host', ''))[1] or 80}"


def _bearer(headers: Headers) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else None


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


async def _tell(
    send: Send, status: int, error: str, message: str, *headers: tuple[bytes, bytes]
) -> None:
    problem: dict[str, Any] = {"error": error, "message": message, "commands": []}
    kind = (b"content-type", b"application/json")
    await _send(send, status, json.dumps(problem).encode(), [kind, *headers])


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
