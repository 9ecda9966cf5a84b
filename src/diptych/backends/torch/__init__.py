"""The PyTorch panel. Load it through `diptych.backends.protocol.load("torch")` only."""
