"""Access checks: the outermost layer of the server.

- The Host header must name this machine. Otherwise a web page could let its own domain point to
  127.0.0.1 and read the responses (DNS rebinding). Literal addresses are accepted, as they cannot
  be rebound; starlette's TrustedHostMiddleware cannot express that, nor IPv6 addresses.
- A request from a page of another origin is refused.
- A request must carry the server's token: in the printed address, later in a cookie, or in a
  header. Otherwise every user of this machine could read what is served on 127.0.0.1.
- A content security policy restricts a page to the scripts and styles of this server.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable
from urllib.parse import quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,}")  # needs no quoting in an address, cookie or header
LOOPBACK = ("localhost", "127.0.0.1", "::1")

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",  # blob: shows an image before its upload
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",  # a response is never interpreted as another type
    "x-frame-options": "DENY",  # as frame-ancestors, for older browsers
    "referrer-policy": "no-referrer",  # the address may contain the token
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`."""
    address = _address(host)
    return host == "localhost" or (address is not None and address.is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def names_of(host: str) -> frozenset[str]:
    """Return the names of a server that listens on `host`, in lower case."""
    names = {*LOOPBACK, host.strip("[]")}
    if not is_loopback(host):
        names |= {socket.gethostname(), socket.getfqdn()}
    return frozenset(name.lower() for name in names)


def new_token() -> str:
    """Return 128 random bits as text for an address."""
    return secrets.token_urlsafe(16)


class Guard:
    """Wrap an ASGI application with the checks above.

    Accept the host names `names` and literal addresses. Without a `token`, accept every client.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], token: str | None = None) -> None:
        self._app = app
        self._names = frozenset(names)
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        connection = HTTPConnection(scope)
        app = self._refusal(connection.headers) or self._admission(connection) or self._app
        try:
            await app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # the server stops, and its timeout has passed
            if not started:
                text = "the explorer was stopped before it could answer."
                await _error(503, "stopped", text)(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers) -> Response | None:
        """Return the response to another host name or another origin; None accepts the request."""
        host = headers.get("host", "")
        name, _ = _split_host(host)
        if name not in self._names and _address(name) is None:
            return _error(
                403,
                "refused",
                f"this server does not have the name {name[:100]!r}. Its names are "
                f"{', '.join(sorted(self._names))}. Use one of them, or start `pa explore --host` "
                f"with that name.",
            )
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return _error(403, "refused", f"a page of {origin[:100]} may not access this server.")
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and (
            headers.get("sec-fetch-mode") != "navigate"
        ):
            return _error(403, "refused", "a page of another site may not access this server.")
        return None

    def _admission(self, connection: HTTPConnection) -> Response | None:
        """Return the response to a request with the token in its address, or without the token.

        The former moves the token into a cookie, which neither scripts nor a Referer reveal.
        """
        if self._token is None:
            return None
        headers, query = connection.headers, connection.query_params
        # Browsers send the cookies of a host to all of its ports.
        cookie = f"pa-explore-{_split_host(headers.get('host', ''))[1] or 80}"
        # Only GET: a redirect would lose the body of another method.
        if connection.scope["method"] == "GET" and self._is_token(query.get("token")):
            kept = [item for item in query.multi_items() if item[0] != "token"]
            # A path that begins with two slashes would name another host.
            path = "/" + quote(connection.scope["path"].lstrip("/"))
            redirect = RedirectResponse(f"{path}?{urlencode(kept)}" if kept else path, 303)
            redirect.set_cookie(cookie, self._token, httponly=True, samesite="lax")
            redirect.headers["cache-control"] = "no-store"
            return redirect
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if self._is_token(connection.cookies.get(cookie)) or (
            scheme.lower() == "bearer" and self._is_token(bearer)
        ):
            return None
        text = (
            "this request has no valid token. Open the whole address that `pa explore` printed "
            "when it was started, or send its token as `Authorization: Bearer TOKEN`."
        )
        return _error(401, "token needed", text, {"www-authenticate": "Bearer"})

    def _is_token(self, text: str | None) -> bool:
        assert self._token is not None
        return text is not None and secrets.compare_digest(text.encode(), self._token.encode())


def _split_host(host: str) -> tuple[str, str]:
    """Return the name in a Host header in lower case, and the port."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdecimal():
        name, port = host, ""
    return name.strip("[]").lower(), port


def _error(
    status: int, error: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": error, "message": message, "commands": []}, status, headers)
