"""`pa explore`: parse, call one function of `pa.tasks.explore`, print."""

from __future__ import annotations

import html
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from pa.commands import console
from pa.commands.old_options import emit, naming_checkpoints, with_config, with_json

if TYPE_CHECKING:
    from pa.tasks.explore import Address


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port; default 8642, or a free one if taken."
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--token",
    envvar="PA_EXPLORE_TOKEN",
    help="Token that requests must carry, 16 characters or more; default a random one. Other users "
    "can read a command line: set it by the environment variable PA_EXPLORE_TOKEN.",
)
@click.option("--no-token", is_flag=True, help="Let everyone in who can reach the server.")
@click.option("--device", help="Device that encodes uploaded images.")
@naming_checkpoints
@with_json
@with_config
def explore(config: Any, as_json: bool, open_page: bool, **given: Any) -> None:
    """Click any region of any image, and see its neighbours for several encoders side by side.

    Serves a page until Ctrl-C, to this machine alone unless --host says otherwise. The address that
    it prints holds a token, which keeps other users out. On another machine, through a tunnel:
    ssh -L 8642:localhost:8642 MACHINE.

    \b
    pa explore
    pa explore --port 9000 --open
    pa explore --host 0.0.0.0
    """
    from pa.tasks.explore import ExploreRequest
    from pa.tasks.explore import explore as work

    def ready(address: Address) -> None:
        if as_json:
            emit({"url": address.url, "token": address.token, "public": address.public})
        else:
            console.out(f"explore {config.workspace} at {address.url}")
            console.note("Ctrl-C stops it.")
        reach = "Other machines" if address.public else "Other users of this machine"
        if address.token is None:
            console.note(f"{reach} can look: no token is needed.")
        elif address.public:
            console.note(f"{reach} can reach it: whoever knows the address can look.")
        if open_page:
            # Other users can read the command line of a browser, but not this file.
            page = Path(folder) / "open.html"
            target = html.escape(address.url)
            page.write_text(f'<meta http-equiv="refresh" content="0; url={target}">')
            click.launch(str(page))

    with TemporaryDirectory(prefix="pa-explore-") as folder:  # for its owner alone
        work(config, ExploreRequest(**given), ready)
