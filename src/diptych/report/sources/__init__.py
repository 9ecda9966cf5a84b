"""The runs of a report and all records beside them: found, checked and put together."""
