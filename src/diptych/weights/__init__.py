"""Find, inspect and convert weights of every supported format."""
