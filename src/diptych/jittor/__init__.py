"""The Jittor panel. Load it through `diptych.backend.load("jittor")` only."""
