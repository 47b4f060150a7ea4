"""The verbs. Heavy imports wait inside them, so that `stillroom --help` answers at once."""

from stillroom.cli import around, finished, work
from stillroom.cli._group import main

__all__ = ["around", "finished", "main", "work"]
