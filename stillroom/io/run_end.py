"""How a run ended, written to its folder by a process that outlived it."""

from __future__ import annotations

import traceback
from pathlib import Path

from stillroom.errors import StillroomError, Stopped
from stillroom.io.run_dir import RunDir


def record_end(folder: Path | None, problem: StillroomError | Stopped) -> None:
    """Write down how a run ended, in place of a process that could not, or did not see the cause.

    Args:
        folder: of a run, or of the runs of several seeds, of which the newest is meant.
        problem: what all its processes ended with.
    """
    notes = [*folder.glob("run.json"), *folder.glob("seed-*/run.json")] if folder else []
    run = RunDir(max(notes, key=lambda path: path.stat().st_mtime).parent) if notes else None
    if run is None or run.info.get("status") not in ("running", "failed", "stopped"):
        return
    status = "stopped" if isinstance(problem, Stopped) else "failed"
    run.note(status=status, exit_code=int(problem.exit), resumable=True)
    if not problem.told:
        with (run.folder / "run.log").open("a", encoding="utf-8") as kept:
            kept.write("".join(traceback.format_exception(problem)))
