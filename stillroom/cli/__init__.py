"""The command line. Heavy imports are inside the commands, so that `stillroom --help` is fast."""

from stillroom.cli import around, finished, work
from stillroom.cli._group import main

__all__ = ["around", "finished", "main", "work"]
