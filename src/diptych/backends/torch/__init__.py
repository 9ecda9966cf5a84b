"""The PyTorch backend. Load it only through `diptych.backends.protocol.load("torch")`."""
