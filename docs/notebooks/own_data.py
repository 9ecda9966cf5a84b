# %% [markdown]
# # Your own data
#
# From arrays to a trained model and a score. A real training takes thousands of steps, and
# [own pictures](../own-pictures.md) says how settings are chosen; `STEPS` here only shows the way.

# %%
import numpy as np

import diptych

backend = "torch"  # or "jittor"
STEPS = 200

# %% [markdown]
# ## The data set
#
# Any uint8 array `(N, H, W, C)` or `(N, C, H, W)`, with labels or without. Here: bright squares at
# random places.

# %%
random = np.random.default_rng(0)
pictures = np.zeros((512, 28, 28, 1), np.uint8)
for picture in pictures:
    row, column = random.integers(0, 18, 2)
    picture[row : row + 10, column : column + 10] = random.integers(128, 256)
data = diptych.Dataset.from_arrays(pictures)
print(data)
diptych.grid(pictures[:32])

# %% [markdown]
# ## Training
#
# The run folder is the same that `diptych train` makes; `resume=True` goes on with it.

# %%
run = diptych.train(
    "tiny",
    "squares",
    backend=backend,
    data=data,
    set={"train.steps": STEPS, "train.batch_size": 16},
    progress=False,
)
print(run)
loss = run.metrics["loss"]
print(
    "first tenth",
    loss[: max(1, STEPS // 10)].mean(),
    "last tenth",
    loss[-max(1, STEPS // 10) :].mean(),
)

# %% [markdown]
# ## Samples and a score
#
# A score carries its protocol. These features are those of a small MNIST classifier: not an FID.

# %%
model = run.load()
drawn = model.sample(32, steps=10)
diptych.grid(drawn)

# %%
score = diptych.evaluate(drawn, reference=data, metrics=["fid"], features="mnist", backend=backend)
print(score.metric, score.value)
