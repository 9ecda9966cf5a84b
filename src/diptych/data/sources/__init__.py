"""Known data sets by name: where their files are on this machine, and how to fetch them."""
