"""Logs of anybody's training: read from the usual formats, with columns guessed by name.

CSV, TSV            of any program, and wandb's exports
JSON, JSON lines    of any program, wandb-history.jsonl, Trainer's trainer_state.json
TensorBoard         event files, or a folder of them
text                one number a line; `step loss`; `Epoch 1, Step: 200, Loss: 0.03`
run folders         of `diptych train`
"""

from diptych.logs.log import Log, read_log

__all__ = ["Log", "read_log"]
