"""The numbers of a report, each a plain function of the records."""
