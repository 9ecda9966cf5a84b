"""Free training of both backends from several seeds, and the test of equivalence."""
