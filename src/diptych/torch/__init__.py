"""The PyTorch panel. Load it through `diptych.backend.load("torch")` only."""
