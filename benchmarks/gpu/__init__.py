"""Questions to a GPU in one short lease: is the panel right there, and how fast is it?"""
