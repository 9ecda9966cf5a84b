"""`diptych reproduce`: a whole study from one command, stage by stage, none of them done twice."""

from diptych.study.reproduce.request import Request
from diptych.study.reproduce.runner import reproduce
from diptych.study.reproduce.stages import stages

__all__ = ["Request", "reproduce", "stages"]
