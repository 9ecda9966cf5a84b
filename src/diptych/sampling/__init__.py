"""Sampling, from noise to images: the settings, the denoiser, the loop over a solver's steps."""
