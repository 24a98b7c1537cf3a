"""The web application: routes, the files of the page, and the checks of `safety` around both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from pa.explore import error_responses
from pa.explore.routes import Services, router, workspace_router
from pa.explore.safety import LOOPBACK, Guard
from pa.version import __version__
from pa.workspace import Workspace


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

    @asynccontextmanager
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
