"""The result type of data set checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stillroom.errors import StillroomError

SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One problem of a data set.

    Attributes:
        severity: an "error" stops a run, a "warning" is only reported.
        failure: code, what, why, effect and fix.
    """

    severity: Literal["error", "warning"]
    failure: StillroomError

    @property
    def code(self) -> str:
        """The error code, such as `SR-D110`."""
        return self.failure.code


def warning(failure: StillroomError) -> Finding:
    """A finding that does not stop a run."""
    return Finding(severity="warning", failure=failure)


def examples(names: Sequence[str], *, between: str = "; ") -> str:
    """The first few names, and the number of further ones."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return between.join(names[:SHOWN]) + more
