"""The Jittor backend. Load it only through `diptych.backends.protocol.load("jittor")`."""
