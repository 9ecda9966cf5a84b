"""From noise to images: the sampler's settings, the denoiser, the loop over a solver's steps."""
