"""The PyTorch panel. Load it through `diptych.backends.load("torch")` only."""
