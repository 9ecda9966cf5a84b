"""Generation: samples in a folder, and images edited through their latents.

    samples, trajectory                   `diptych sample`, and pictures of the first batch
    for_scoring                           samples of a run for an evaluation
    encode, roundtrip, roundtrip_curve    `diptych encode`: images to latents and back; the error
    inputs, latents                       the user's images; latents in a file
    starts, interpolation                 `diptych sample` from latents, between noises, from images

The inversion itself belongs to a model (`Model.encode`): `diptych.sampling.inversion`, and its
update rule in `diptych.sampling.solvers.ddim_inverse`.
"""
