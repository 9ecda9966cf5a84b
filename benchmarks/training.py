"""Times a training step of both backends and of diffusers: `python -m benchmarks.training`."""

from __future__ import annotations

from benchmarks.command import command

main = command(
    "training",
    "Time one training step: both panels, and diffusers' UNet2DModel of the same size in a plain "
    "training loop. Batches, noise, clipping, Adam and the moving average are part of the step.",
)

if __name__ == "__main__":
    main()
