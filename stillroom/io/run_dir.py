"""A run is a folder, written atomically. Everything downstream reads it and nothing else.

runs/NAME/
  run.json                  status, versions, hardware, seeds, exit code, hashes
  recipe.toml               as resolved; running it again gives the same run
  steps.jsonl evals.jsonl   append-only; the only source of charts and report
  samples/                  thumbnails and logits of the probe images
  checkpoints/STAGE/        step-000420/{learner,average,best,optimizer}.safetensors + state.json
  STAGE.safetensors         what a stage ended with: teacher, baseline, student
  exports/                  student.onnx ...; a file that fails its check is named *.unverified.onnx
  metrics.json              every figure, each with how it was measured
  report.html README.md     self-contained report; model card
  run.log                   what was said, with tracebacks
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import socket
import time
import tomllib
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from stillroom.errors import StillroomError, Stopped
from stillroom.io.checkpoint import save_tensors
from stillroom.io.errors import RecipeChanged, RunFolderLocked
from stillroom.io.files import finite, same_file, sweep, temporary, write, write_json

log = logging.getLogger("stillroom")

STREAMS = ("steps.jsonl", "evals.jsonl")


class RunDir:
    """One experiment's folder.

    Args:
        folder: where it is; made by `open`.
        writes: False in every process but the first, whose methods then do nothing.
    """

    def __init__(self, folder: Path, *, writes: bool = True):
        self.folder, self.writes = Path(folder), writes
        self._lock: TextIO | None = None
        self._streams: dict[str, TextIO] = {}

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @classmethod
    def open(cls, folder: Path, recipe: dict[str, Any], toml: str, *, writes: bool = True) -> RunDir:
        """Make the folder, or take up what is in it when it holds the same recipe.

        Raises:
            StillroomError: SR-R510 another process has it, SR-C410 it holds another recipe.
        """
        run = cls(folder, writes=writes)
        if not writes:
            return run
        run.folder.mkdir(parents=True, exist_ok=True)
        run._take_lock()
        path = run.folder / "recipe.toml"
        if path.exists():
            changes = differences(tomllib.loads(path.read_text(encoding="utf-8")), recipe)
            if changes:
                run.close()
                raise RecipeChanged(folder=folder, changes="\n".join(f"  {line}" for line in changes))
        else:
            write(path, toml)
        sweep(run.folder)
        return run

    def close(self) -> None:
        """Let the folder go."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
        if self._lock:
            self._lock.close()
            self._lock = None

    # What the run knows about itself

    @property
    def info(self) -> dict[str, Any]:
        """`run.json`; empty before the first note."""
        path = self.folder / "run.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def note(self, **facts: Any) -> None:
        """Lay `facts` over `run.json`."""
        if self.writes:
            write_json(self.folder / "run.json", self.info | facts)

    def warn(self, text: str) -> None:
        """Say something now and in the report."""
        log.warning(text)
        known = self.info.get("warnings", [])
        if text not in known:
            self.note(warnings=[*known, text])

    @property
    def metrics(self) -> dict[str, Any]:
        """`metrics.json`: every figure, under `teacher`, `baseline`, `student` and `exports`."""
        path = self.folder / "metrics.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    # Streams

    def append(self, stream: str, line: dict[str, Any]) -> None:
        """Add one line to `steps.jsonl` or `evals.jsonl`."""
        if not self.writes:
            return
        if stream not in self._streams:
            self._streams[stream] = open(self.folder / stream, "a", encoding="utf-8")  # noqa: SIM115
        self._streams[stream].write(json.dumps(finite(line)) + "\n")
        self._streams[stream].flush()

    def rewind(self, stage: str, step: int) -> None:
        """Forget what the streams say of `stage` after `step`, and a torn last line.

        A killed run has logged steps that no checkpoint holds; they will be made, and logged, again.
        """
        if not self.writes:
            return
        for name in STREAMS:
            path = self.folder / name
            if path.exists():
                if name in self._streams:
                    self._streams.pop(name).close()
                with temporary(path) as temp, path.open(encoding="utf-8") as old, temp.open("w") as new:
                    new.writelines(line for line in old if _kept(line, stage, step))

    # Files

    def checkpoints(self, stage: str) -> Path:
        """Where the checkpoints of a stage are."""
        return self.folder / "checkpoints" / stage

    def drop_checkpoints(self, stage: str) -> None:
        """Once a stage has left its file, nobody goes back to its checkpoints, and they are many times its size."""
        if self.writes:
            shutil.rmtree(self.checkpoints(stage), ignore_errors=True)
            with suppress(OSError):  # another stage's are still there
                self.checkpoints(stage).parent.rmdir()

    def weights(self, stage: str) -> Path:
        """The file a finished stage leaves."""
        return self.folder / f"{stage}.safetensors"

    def export_path(self, suffixes: Sequence[str], bits: int) -> Path:
        """Where the file of a target goes. What an earlier try left there, verified or not, is removed.

        Args:
            suffixes: of the file and its companions.
            bits: 32 for floats.
        """
        name = f"student{'' if bits == 32 else f'-int{bits}'}"
        for suffix in suffixes:
            for ending in (suffix, f".unverified{suffix}"):
                (self.folder / "exports" / f"{name}{ending}").unlink(missing_ok=True)
        return self.folder / "exports" / f"{name}{suffixes[0]}"

    def save_weights(self, stage: str, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        """What a stage ended with, loadable without this program."""
        if self.writes:
            with temporary(self.weights(stage)) as temp:
                save_tensors(tensors, temp, metadata)

    def adopt(self, other: Path) -> None:
        """Take the trained teachers of another run as what this run's own stages left, and say in `run.json` whose.

        The note comes first: a run that is killed in between notes the same again. Nothing is taken by a run that has
        trained a teacher of its own, or from one that has none.
        """
        theirs, info = sorted(other.glob("teacher*.safetensors")), self.info
        mine = any(self.folder.glob("teacher*.safetensors"))
        if not (self.writes and theirs) or (mine and "teacher_of_seed" not in info):
            return
        origin = RunDir(other).info
        self.note(teacher_of_seed=info.get("teacher_of_seed", origin.get("teacher_of_seed", origin["seeds"][0])))
        for file in theirs:
            if not (self.folder / file.name).exists():
                with temporary(self.folder / file.name) as temp:
                    same_file(file, temp)

    def save_tensors(self, name: str, tensors: dict[str, Any]) -> None:
        """`name.safetensors`."""
        with temporary(self.folder / f"{name}.safetensors") as temp:
            save_tensors(tensors, temp)

    def write_metrics(self, figures: dict[str, Any]) -> None:
        """`metrics.json`."""
        write_json(self.folder / "metrics.json", figures)

    def _take_lock(self) -> None:
        """Hold the folder until the process ends, however it ends: the system lets go of the lock by itself."""
        path = self.folder / ".lock"
        lock = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise RunFolderLocked(folder=self.folder, holder=holder) from problem
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        lock.flush()
        self._lock = lock


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


def read_stream(folder: Path, name: str) -> Iterable[dict[str, Any]]:
    """The lines of a stream; one that a kill tore is left out."""
    path = Path(folder) / name
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                value = _parse(line)
                if value is not None:
                    yield value


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two recipes differ: one line a value, `train.lr: 0.001 there, 0.01 here`."""
    if isinstance(old, dict) and isinstance(new, dict):
        dot = f"{path}." if path else ""
        return [
            line
            for key in sorted(old.keys() | new.keys())
            for line in differences(old.get(key), new.get(key), dot + key)
        ]
    return [] if old == new else [f"{path}: {old!r} there, {new!r} here"]


def _kept(line: str, stage: str, step: int) -> bool:
    value = _parse(line)
    return value is not None and (value["stage"] != stage or value["step"] <= step)


def _parse(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line) if line.endswith("\n") else None
    except json.JSONDecodeError:
        return None
