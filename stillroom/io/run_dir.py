"""The folder of a run, written atomically. Reports, exports and later commands read nothing else.

runs/NAME/
  run.json                  status, versions, hardware, seeds, exit code, hashes
  recipe.toml               as resolved; running it again gives the same run
  steps.jsonl evals.jsonl   append-only; the only source of charts and report
  samples/                  thumbnails and logits of the probe images
  checkpoints/STAGE/        step-000420/{learner,average,best,optimizer}.safetensors + state.json
  STAGE.safetensors         the final weights of a stage: teacher, baseline, student
  exports/                  student.onnx ...; a file that fails its check is named *.unverified.onnx
  metrics.json              every measurement, with how it was measured
  report.html README.md     self-contained report; model card
  run.log                   the log, with tracebacks
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from stillroom.config.recipe import recorded
from stillroom.io.checkpoint import save_tensors
from stillroom.io.errors import RecipeChanged, RunFolderLocked
from stillroom.io.files import atomic_write, link_or_copy, remove_unfinished, replace_non_finite, write_file, write_json

log = logging.getLogger("stillroom")

STREAMS = ("steps.jsonl", "evals.jsonl")


class RunDir:
    """The folder of one experiment.

    Args:
        folder: its path; created by `open`.
        writes: False in every process but the first: methods that write then do nothing.
    """

    def __init__(self, folder: Path, *, writes: bool = True):
        self.folder, self.writes = Path(folder), writes
        self._lock: TextIO | None = None
        self._streams: dict[str, TextIO] = {}

    def __repr__(self) -> str:
        return f"RunDir({str(self.folder)!r})"

    @classmethod
    def open(cls, folder: Path, recipe: dict[str, Any], toml: str, *, writes: bool = True) -> RunDir:
        """Create the folder, or resume it if it has the same recipe.

        Raises:
            StillroomError: SR-R510 another process is writing to it, SR-C410 it has another recipe.
        """
        run = cls(folder, writes=writes)
        if not writes:
            return run
        run.folder.mkdir(parents=True, exist_ok=True)
        run._take_lock()
        path = run.folder / "recipe.toml"
        if path.exists():
            changes = differences(recorded(path.read_text(encoding="utf-8")), recipe)
            if changes:
                run.close()
                raise RecipeChanged(folder=folder, changes="\n".join(f"  {line}" for line in changes))
        else:
            write_file(path, toml)
        remove_unfinished(run.folder)
        return run

    def close(self) -> None:
        """Close the streams and release the lock."""
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
        if self._lock:
            self._lock.close()
            self._lock = None

    # run.json and metrics.json

    @property
    def info(self) -> dict[str, Any]:
        """The content of `run.json`; empty before the first `note`."""
        path = self.folder / "run.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @property
    def started(self) -> bool:
        """Whether there is a `run.json`."""
        return (self.folder / "run.json").exists()

    def note(self, **facts: Any) -> None:
        """Update `run.json` with `facts`."""
        if self.writes:
            write_json(self.folder / "run.json", self.info | facts)

    def warn(self, text: str) -> None:
        """Log a warning and record it for the report."""
        log.warning(text)
        recorded = self.info.get("warnings", [])
        if text not in recorded:
            self.note(warnings=[*recorded, text])

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`, by `teacher`, `baseline`, `student` and `exports`."""
        path = self.folder / "metrics.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    # Streams

    def append(self, stream: str, line: dict[str, Any]) -> None:
        """Add one line to `steps.jsonl` or `evals.jsonl`."""
        if not self.writes:
            return
        if stream not in self._streams:
            self._streams[stream] = open(self.folder / stream, "a", encoding="utf-8")  # noqa: SIM115
        self._streams[stream].write(json.dumps(replace_non_finite(line)) + "\n")
        self._streams[stream].flush()

    def rewind(self, stage: str, step: int) -> None:
        """Delete the lines of `stage` after `step` from the streams, and an incomplete last line.

        A killed run has logged steps after its last checkpoint; they will be repeated and logged again.
        """
        if not self.writes:
            return
        for name in STREAMS:
            path = self.folder / name
            if path.exists():
                if name in self._streams:
                    self._streams.pop(name).close()
                with atomic_write(path) as temp, path.open(encoding="utf-8") as old, temp.open("w") as new:
                    new.writelines(line for line in old if _kept(line, stage, step))

    # Files

    def checkpoints(self, stage: str) -> Path:
        """The folder of a stage's checkpoints."""
        return self.folder / "checkpoints" / stage

    def drop_checkpoints(self, stage: str) -> None:
        """Delete the checkpoints of a finished stage: they are not needed after its weights file and much larger."""
        if self.writes:
            shutil.rmtree(self.checkpoints(stage), ignore_errors=True)
            with suppress(OSError):  # not empty: another stage has checkpoints
                self.checkpoints(stage).parent.rmdir()

    def weights(self, stage: str) -> Path:
        """The weights file of a finished stage."""
        return self.folder / f"{stage}.safetensors"

    def export_path(self, suffixes: Sequence[str], bits: int, *, own: str = "") -> Path:
        """The path of an exported file. Files of an earlier export, verified or not, are deleted.

        Args:
            suffixes: of the file and its companion files.
            bits: of the weights; 32 for float32.
            own: the name of a user's runtime, whose suffixes may be those of another.
        """
        name = f"student{own and f'-{own}'.lower()}{'' if bits == 32 else f'-int{bits}'}"
        for suffix in suffixes:
            for ending in (suffix, f".unverified{suffix}"):
                (self.folder / "exports" / f"{name}{ending}").unlink(missing_ok=True)
        return self.folder / "exports" / f"{name}{suffixes[0]}"

    def save_weights(self, stage: str, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
        """Write the final weights of a stage, loadable without this program."""
        if self.writes:
            with atomic_write(self.weights(stage)) as temp:
                save_tensors(tensors, temp, metadata)

    def copy_weights(self, stage: str, source: Path) -> None:
        """Use the weights file of another run for a stage that has none; a hard link on the same disk."""
        if self.writes and not self.weights(stage).exists():
            with atomic_write(self.weights(stage)) as temp:
                link_or_copy(source, temp)

    def save_tensors(self, name: str, tensors: dict[str, Any]) -> None:
        """Write `name.safetensors`."""
        with atomic_write(self.folder / f"{name}.safetensors") as temp:
            save_tensors(tensors, temp)

    def write_metrics(self, figures: dict[str, Any]) -> None:
        """Write `metrics.json`."""
        write_json(self.folder / "metrics.json", figures)

    def _take_lock(self) -> None:
        """Lock the folder until the process ends; the system releases the lock even after a kill."""
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


def read_stream(folder: Path, name: str) -> Iterable[dict[str, Any]]:
    """The lines of a stream, without an incomplete one left by a kill."""
    path = Path(folder) / name
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                value = _parse(line)
                if value is not None:
                    yield value


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """The differences between two recipes, one line per value: `train.lr: 0.001 there, 0.01 here`."""
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
