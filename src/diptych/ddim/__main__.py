"""`python -m diptych.ddim`: the public address of `diptych.cli.ddim.main`."""

from __future__ import annotations

from diptych.cli import main
from diptych.cli.ddim.main import ddim

if __name__ == "__main__":
    main(ddim, "python -m diptych.ddim")
