"""The folder of a run: its checkpoints, provenance, records and resource log."""
