"""Turn errors into responses: one JSON object and a status code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from pa.errors import (
    BusyError,
    ImageError,
    MismatchError,
    MissingError,
    OutOfRangeError,
    PaError,
    UnknownNameError,
    UsageError,
    VerificationError,
)
from pa.explore.limits import TooLargeError

RETRY_SECONDS = 1  # the usual search takes less
_COMMAND = re.compile(r"^\s+(pa .+)$", re.MULTILINE)  # indented lines of a message


@dataclass(frozen=True)
class ErrorResponse:
    """The reason of a failure."""

    error: str  # a kind of error, such as "not found"
    message: str  # for the user, as on the command line
    commands: list[str]  # shell commands in the message


# The first class that matches. 409: the request is valid, but the workspace must be repaired first.
STATUSES: tuple[tuple[type[PaError], int, str], ...] = (
    (BusyError, 503, "busy"),  # the only one that the page retries
    (TooLargeError, 413, "too large"),
    (UnknownNameError, 404, "not found"),
    (OutOfRangeError, 404, "not found"),
    (UsageError, 422, "wrong request"),
    (ImageError, 422, "unreadable image"),
    (MissingError, 409, "missing"),
    (MismatchError, 409, "mismatch"),
    (VerificationError, 409, "damaged"),
)

Responses: TypeAlias = dict[int | str, dict[str, Any]]


def _documented(description: str, **fields: Any) -> dict[str, Any]:
    return {"model": ErrorResponse, "description": description, **fields}


RESPONSES: Responses = {
    401: _documented("The request has no valid token."),
    404: _documented("The gallery, image, row or column does not exist."),
    409: _documented("Something in the workspace is missing or damaged."),
    422: _documented("The request is malformed."),
    503: _documented(
        "Too many requests. Retry after the seconds of Retry-After.",
        headers={"Retry-After": {"schema": {"type": "integer"}}},
    ),
}
UPLOAD_RESPONSES: Responses = {**RESPONSES, 413: _documented("The image has too many bytes.")}


def add_handlers(app: FastAPI) -> None:
    """Turn every error into an `ErrorResponse`."""
    app.add_exception_handler(PaError, _of_pa_error)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(ClientDisconnect, _of_disconnect)
    app.add_exception_handler(Exception, _of_failure)


def _response(
    status: int, error: str, message: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = ErrorResponse(error, message, _COMMAND.findall(message))
    return JSONResponse(asdict(body), status, headers)


async def _of_pa_error(request: Request, error: Exception) -> JSONResponse:
    status, name = next(
        ((status, name) for kind, status, name in STATUSES if isinstance(error, kind)),
        (409, "failed"),
    )
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else {}
    return _response(status, name, str(error), headers)


async def _of_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = [
        f"{'.'.join(map(str, detail['loc'][1:])) or 'request'}: {detail['msg']}"
        for detail in error.errors()
    ]
    return _response(422, "wrong request", "; ".join(details))


async def _of_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    names = {404: "not found", 405: "method not allowed"}
    name = names.get(error.status_code, "failed")
    return _response(error.status_code, name, str(error.detail), error.headers)


async def _of_disconnect(request: Request, error: Exception) -> JSONResponse:
    """Answer a client that left in the middle of its request; it is not read."""
    return _response(400, "disconnected", "the client closed the connection.")


async def _of_failure(request: Request, error: Exception) -> JSONResponse:
    # The server prints the traceback: starlette raises the error again after this answer.
    message = "the explorer failed; the terminal in which it runs shows how."
    return _response(500, "failed", message)
