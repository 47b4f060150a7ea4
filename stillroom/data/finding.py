"""One thing that is wrong with a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stillroom.errors import StillroomError

SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found.

    Attributes:
        severity: an "error" stops a run, a "warning" is told.
        failure: code, what, why, effect and fix.
    """

    severity: Literal["error", "warning"]
    failure: StillroomError

    @property
    def code(self) -> str:
        """`SR-D110`, say."""
        return self.failure.code


def warning(failure: StillroomError) -> Finding:
    """A finding that stops nothing."""
    return Finding(severity="warning", failure=failure)


def examples(names: Sequence[str], *, between: str = "; ") -> str:
    """The first few, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return between.join(names[:SHOWN]) + more
