"""A page on localhost to look at models, runs and the ladder: `diptych studio`.

    browser -> server -> desk (one queue) -> a worker process for each panel, and one for the ladder

The server's process loads no framework. It only reads below the folders that it was given, and the
ladder's traces, which are deleted, are all that it writes.
"""
