"""What this machine has: its processor, and packages that only some commands need."""
