"""Editing: images changed through the noise that they come from.

    folder, roundtrip, curve    `diptych encode`: images to latents and back, and what is lost
    inputs, latents             images from the user's hand; latents in a file
    starts, interpolation       `diptych sample` from latents, between noises, from images

The inversion itself belongs to a model (`Model.encode`): `diptych.sampling.inversion`, and its
update rule in `diptych.sampling.solvers.ddim_inverse`.
"""
