"""One model with many samplers: sampled, scored and tabulated, cell by cell.

This package uses sampling, metrics and reports, which do not depend on each other.
"""
