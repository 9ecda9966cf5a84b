"""The worker processes of the ladder, one per implementation."""
