"""A step that does not end, and whose fault that is.

In a step all wait for the slowest, so one that stands still stops all of them. Only forward and backward passes are
timed (`Pace`), and only when a few have shown how long they take: for data, for another's checkpoint, evaluation or
export everybody waits as long as it takes.

When a pass takes too long anywhere, every process says where it stands (`Standstill`). Who is in a pass, and not in a
call that waits for others, keeps them waiting; or who says nothing at all.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

from stillroom.distributed.errors import ProcessStalled
from stillroom.distributed.peers import HEARING, POLL, Peers
from stillroom.errors import StillroomError

PATIENCE = "STILLROOM_PATIENCE"
"""The environment's word for the seconds that a pass may take, 15 where it says nothing."""

WARM, SLOWER = 3, 10  # passes that may take any time; how many times longer than the longest so far is too long
WAITS = ("torch.distributed", "torch.nn.parallel", "torch.autograd")  # whoever stands in there waits for others


class Pace:
    """`with pace:` around each forward and backward pass knows when one takes far longer than those before."""

    def __init__(self) -> None:
        self.again()

    def again(self) -> None:
        """Forget how long passes take: another training begins."""
        self._passes, self._longest = 0, 0.0
        self._began: float | None = None

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        if self._began is not None and self._passes >= WARM:
            self._longest = max(self._longest, time.monotonic() - self._began)
        self._passes, self._began = self._passes + 1, None

    @property
    def inside(self) -> bool:
        """Whether a pass is under way."""
        return self._began is not None

    def late(self) -> float:
        """Seconds in the present pass if that is too long, else 0."""
        began = self._began
        if began is None or self._passes < WARM:
            return 0.0
        seconds, patience = time.monotonic() - began, float(os.environ.get(PATIENCE, "15"))
        return seconds if seconds > max(patience, SLOWER * self._longest) else 0.0


class Standstill:
    """What one process knows of where all stand. Made in the thread that trains, asked in another.

    Args:
        peers: all of them.
        pace: of this process's training.
    """

    def __init__(self, peers: Peers, pace: Pace):
        self._peers, self._pace, self._thread = peers, pace, threading.current_thread()
        self._since: float | None = None

    def look(self) -> StillroomError | None:
        """SR-R521 with who keeps the others waiting; None while nobody waits too long, or whoever is at work may be.

        Process 0 finds it out, another only where process 0 says nothing. To be asked every `POLL` seconds.
        """
        stands = {rank: self._peers.words(rank).get("stands") for rank in self._peers.watched}
        late = self._pace.late()
        if not late and not any(one and (one["late"] or rank == 0) for rank, one in stands.items()):
            if self._since is not None:
                self._peers.say(stands=None)
            self._since = None
            return None
        if self._since is None:
            self._since = time.monotonic()
        own = _place(sys._current_frames()[self._thread.ident or 0]) | {"late": late, "inside": self._pace.inside}
        self._peers.say(stands=own)
        waited = time.monotonic() - self._since
        if self._peers.rank:
            return self._failure(0, late) if late and stands[0] is None and waited > HEARING + 2 * POLL else None
        return self._whose({0: own} | stands, silent=waited > HEARING) if waited > 4 * POLL else None

    def _whose(self, stands: dict[int, Any], *, silent: bool) -> StillroomError | None:
        """The process at fault, if any; who is `silent` counts."""
        found = [rank for rank, one in stands.items() if one and one["inside"] and not one["waits"]]
        if not found and silent:
            found = [rank for rank, one in stands.items() if one is None]
        if not found and all(one and one["inside"] for one in stands.values()):
            found = [0]  # all wait for each other
        if not found:
            return None
        return self._failure(found[0], max(one["late"] for one in stands.values() if one), stands[found[0]])

    def _failure(self, rank: int, seconds: float, stands: Any = None) -> StillroomError:
        place = stands["place"] if stands else "it does not say where"
        return ProcessStalled(rank=rank, world=self._peers.world, place=place, seconds=f"{seconds:.0f}")


def _place(frame: FrameType) -> dict[str, Any]:
    """Where a thread stands, and whether it waits there for other processes."""
    place = f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}, in {frame.f_code.co_name}"
    return {"place": place, "waits": frame.f_globals.get("__name__", "").startswith(WAITS)}
