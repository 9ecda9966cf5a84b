"""One model under many samplers: drawn, scored and tabled, cell by cell.

Stands above sampling, metrics and reports, which know nothing of each other.
"""
