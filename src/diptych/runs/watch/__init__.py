"""What a run costs and what disturbs it, written down while it trains.

    RUN/resources.jsonl   a row a second: memory, processor, neighbours, GPU, and its own cost
    RUN/events.jsonl      what interrupted the steps: checkpoints, grids, garbage collection, ...
    RUN/metrics.jsonl     gains per-step processor and waiting times (see `probe`)

None of it reaches a run's numbers; `train --no-resources` leaves it out.
"""

from diptych.runs.watch.read import cost, read_events, read_resources
from diptych.runs.watch.watcher import Watch

__all__ = ["Watch", "cost", "read_events", "read_resources"]
