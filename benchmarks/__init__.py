"""Timings of both panels against diffusers' `UNet2DModel`; see README.md in this folder."""
