"""`diptych reproduce`: a whole study from one command, stage by stage, none of them done twice."""

from diptych.reproduce.request import Request
from diptych.reproduce.runner import reproduce
from diptych.reproduce.stages import stages

__all__ = ["Request", "reproduce", "stages"]
