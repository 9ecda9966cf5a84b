"""`diptych reproduce`: a whole study from one command, stage by stage, none of them done twice."""

from diptych.reproduce.runner import reproduce
from diptych.reproduce.stages import Request, stages

__all__ = ["Request", "reproduce", "stages"]
