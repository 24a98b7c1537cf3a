"""The application: the routes, the files of the page, and the guard around both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import xxhash
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from pa import __version__
from pa.explore import error_responses
from pa.explore.routes import routers
from pa.explore.safety import LOOPBACK, Guard
from pa.explore.services import Services
from pa.workspace import Workspace

PAGE = Path(__file__).with_name("page")
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
}


def make_app(
    workspace: Workspace,
    *,
    names: Iterable[str] = LOOPBACK,
    token: str | None = None,
    device: str | None = None,
    checkpoints: Sequence[Path] = (),
) -> ASGIApp:
    """The explorer of a workspace as an ASGI application.

    `names` are the hosts it is reached by; with a `token`, every request must carry it;
    `device` and `checkpoints` encode uploaded images. The schema is at /api/openapi.json.
    """
    services = Services.of(workspace, device, checkpoints)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        services.limiters.close()

    app = FastAPI(
        title="pa explore",
        version=__version__,
        description="Nearest regions of regions, for several encoders side by side.",
        openapi_url="/api/openapi.json",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    error_responses.add_handlers(app)
    for router in routers(services):
        app.include_router(router)
    _add_page(app)
    return Guard(app, names, token)


def _add_page(app: FastAPI) -> None:
    """Serve the files of the page, read once, by the names they had then."""
    files = {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in KINDS}
    tags = {name: f'"{xxhash.xxh3_64_hexdigest(data)}"' for name, data in files.items()}

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return await page("index.html", request)

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str, request: Request) -> Response:
        if name not in files:
            raise HTTPException(404, f"there is no page file {name[:100]!r}.")
        headers = {"ETag": tags[name], "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tags[name]:
            return Response(status_code=304, headers=headers)
        return Response(files[name], media_type=KINDS[Path(name).suffix], headers=headers)
