# %% [markdown]
# # A first look
#
# A trained model from the package: samples, steps, the way from noise to image. Nothing is
# downloaded; on two CPU cores the whole notebook takes under a minute.

# %%
import numpy as np

import diptych

backend = "torch"  # or "jittor": the same numbers up to rounding; one framework in a process
model = diptych.load("zoo:mnist-torch", backend=backend)
print(model)

# %% [markdown]
# ## Samples
#
# uint8, `(N, H, W, C)`. Image i depends on the weights, the sampler, the seed and i alone: fewer
# images are the first of more.

# %%
NUM = 64
images = model.sample(NUM, seed=0)
print(images.shape, images.dtype)
diptych.grid(images)

# %%
assert (model.sample(NUM // 2, seed=0) == images[: NUM // 2]).all()

# %% [markdown]
# ## Fewer network calls
#
# The same noise with the deterministic DDIM solver, in few and in more steps.

# %%
STEPS = (3, 5, 10, 20)
rows = [model.sample(8, solver="ddim", steps=steps, seed=1) for steps in STEPS]
diptych.grid(np.concatenate(rows))

# %% [markdown]
# ## The way from noise to image
#
# `callback(k, x)` sees every step: float32, `(B, C, H, W)`.

# %%
way = []
model.sample(1, solver="ddim", steps=8, seed=1, callback=lambda k, x: way.append(np.array(x)))
print(len(way), way[0].shape)
shown = np.clip((np.concatenate(way) + 1) * 127.5, 0, 255).astype(np.uint8)
diptych.grid(shown.transpose(0, 2, 3, 1))

# %% [markdown]
# ## What the network predicts
#
# Noise is added to images at timestep t; the network says which.

# %%
x = model.encode(images[:4])
eps = model.predict(x, [500] * 4)
print(eps.shape, float(np.std(eps)))
