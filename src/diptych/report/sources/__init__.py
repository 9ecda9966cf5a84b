"""The two runs and all that lies beside them: found, checked, put together."""
