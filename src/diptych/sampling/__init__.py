"""From noise to images: the sampler's settings, the denoiser, and the loop over a solver's steps."""
