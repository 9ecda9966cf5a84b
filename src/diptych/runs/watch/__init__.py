"""Records of a run's costs and disturbances, written while it trains.

    RUN/resources.jsonl   one row a second: memory, processor, neighbours, GPU, and the row's cost
    RUN/events.jsonl      interruptions of steps: checkpoints, grids, garbage collection, ...
    RUN/metrics.jsonl     gains per-step processor and waiting times (see `probe`)

None of this affects a run's numbers; `train --no-resources` turns it off.
"""

from diptych.runs.watch.read import cost, read_events, read_resources
from diptych.runs.watch.watcher import Watch

__all__ = ["Watch", "cost", "read_events", "read_resources"]
