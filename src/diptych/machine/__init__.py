"""Facts of this machine: its processor, and packages that only some commands need."""
