"""Times DDIM sampling of both backends and of diffusers: `python -m benchmarks.sampling`."""

from __future__ import annotations

from benchmarks.command import command

main = command(
    "sampling",
    "Time a network call of deterministic DDIM sampling: both panels, and diffusers' UNet2DModel "
    "of the same size with its DDIMScheduler. --steps is the number of calls of a turn's chain.",
)

if __name__ == "__main__":
    main()
