"""`pa explore`: serve a page that shows the neighbours of any region."""

from __future__ import annotations

import html
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from pa.commands import console, options
from pa.errors import MissingError

if TYPE_CHECKING:
    from pa.explore.server import Address
    from pa.workspace import Workspace


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port. Default: 8642, or a free one if taken."
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--token",
    envvar="PA_EXPLORE_TOKEN",
    help="Token of at least 16 characters that requests must carry. Default: a random one. Other "
    "users can read a command line: set it with the environment variable PA_EXPLORE_TOKEN.",
)
@click.option("--no-token", is_flag=True, help="Admit everyone who can reach the server.")
@click.option("--device", help="Device that encodes uploaded images.")
@options.checkpoints
@options.as_json
@options.workspace
def explore(
    workspace: Workspace,
    host: str,
    port: int | None,
    open_page: bool,
    token: str | None,
    no_token: bool,
    device: str | None,
    checkpoints: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Click any region of any image and see its neighbours for several encoders side by side.

    Serves a page until Ctrl-C, to this machine only unless --host says otherwise. The printed
    address holds a token that keeps other users out. On another machine, through a tunnel:
    ssh -L 8642:localhost:8642 MACHINE.

    \b
    pa explore
    pa explore --port 9000 --open
    pa explore --host 0.0.0.0
    """
    try:
        from pa.explore.server import explore as serve
    except ModuleNotFoundError as error:
        if error.name not in ("cachetools", "fastapi", "uvicorn"):
            raise
        raise MissingError(
            f"the explorer needs {error.name}, which is not installed: "
            f"pip install 'part-aware[explore]'."
        ) from None

    def ready(address: Address) -> None:
        if as_json:
            options.emit({"url": address.url, "token": address.token, "public": address.public})
        else:
            console.out(f"explore {workspace.path} at {address.url}")
            console.note("Press Ctrl-C to stop.")
        audience = "Other machines" if address.public else "Other users of this machine"
        if address.token is None:
            console.note(f"{audience} can see the page: no token is needed.")
        elif address.public:
            console.note(f"{audience} can reach it: everyone who knows the address can see it.")
        if open_page:
            # Other users can read the command line of a browser, but not this file.
            page = Path(folder) / "open.html"
            target = html.escape(address.url)
            page.write_text(f'<meta http-equiv="refresh" content="0; url={target}">')
            click.launch(str(page))

    with TemporaryDirectory(prefix="pa-explore-") as folder:  # readable by its owner alone
        serve(
            workspace,
            ready,
            host=host,
            port=port,
            token=token,
            no_token=no_token,
            device=device,
            checkpoints=checkpoints,
        )
