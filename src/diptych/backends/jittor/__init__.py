"""The Jittor panel. Load it through `diptych.backends.protocol.load("jittor")` only."""
