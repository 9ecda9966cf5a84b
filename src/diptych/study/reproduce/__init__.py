"""`diptych reproduce`: a whole study from one command, stage by stage, each done only once."""

from diptych.study.reproduce.request import StudyRequest
from diptych.study.reproduce.runner import reproduce
from diptych.study.reproduce.stages import stages

__all__ = ["StudyRequest", "reproduce", "stages"]
