"""Timings of both backends against diffusers' `UNet2DModel`; see README.md in this folder."""
