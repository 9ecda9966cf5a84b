"""The Jittor panel. Load it through `diptych.backends.load("jittor")` only."""
