"""`diptych studio`."""

from __future__ import annotations

from pathlib import Path

import click

from diptych.cli.common import DEVICE, FOLDER
from diptych.machine.packages import require

PORT = 8765


@click.command(short_help="Look at models, runs and the ladder on a page in the browser.")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=FOLDER)
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True,
              help="0: any that is free.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Another address than this machine's own needs the printed token.")  # fmt: skip
@click.option("--lang", type=click.Choice(["en", "zh"]), default="en", show_default=True,
              help="Language shown first.")  # fmt: skip
@click.option("--no-open", is_flag=True, help="Do not open a browser.")
@DEVICE
def studio(
    folders: tuple[Path, ...], port: int, host: str, lang: str, no_open: bool, device: str
) -> None:
    """Show a page on localhost: sample with both panels side by side, step by step; watch
    trainings; climb the ladder.

    Models, runs and reports are found below each FOLDER (default: this one). Nothing outside them
    is read or written, and nothing leaves the machine. Ctrl-C ends the page and its panels.

    \b
    Examples:
      diptych studio
      diptych studio runs reports --lang zh
      diptych studio runs --port 0 --no-open
      diptych studio runs --host 0.0.0.0        others may open it, with the token
    """
    for package in ("starlette", "uvicorn"):
        require(package, "studio")
    from diptych.backends import check_device
    from diptych.studio import server

    check_device(device)
    shown = server.Studio(folders or (Path("."),), device, lang)
    try:
        socket = server.bind(host, port)
        port = socket.getsockname()[1]
        token = server.new_token(host)
        where = server.address(host, port, token)
        click.echo(f"studio: {where}")
        if not no_open:
            import threading
            import webbrowser

            # A browser in the terminal would hold the server up.
            threading.Thread(target=webbrowser.open, args=(where,), daemon=True).start()
        server.server_of(shown, token, port).run(sockets=[socket])
    finally:
        shown.close()
