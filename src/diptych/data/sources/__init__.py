"""Known data sets by name: find their files on this machine, or fetch them."""
