"""Studies of several runs: sweeps over samplers, whole reproductions, the demo."""
