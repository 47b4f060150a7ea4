"""What an interrupted run continues with: the one place where a run reads its own run.json back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillroom.config.schema import Teacher
from stillroom.errors import StillroomError
from stillroom.io.run_dir import RunDir
from stillroom.search.compression import CompressionChoice
from stillroom.stages.compress import StageRow
from stillroom.teachers.source import CacheDecision


@dataclass(frozen=True)
class TrainedTeacher:
    """Weights files of teachers that a run has trained: stage -> file, and the seed that they were trained with."""

    files: dict[str, Path]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What the seeds of one recipe share with each other.

    Attributes:
        num_students: how many seeds there are, which decides whether a cache pays.
        teacher: trained by another seed; None trains it here.
        choice: of the compression, made by another seed; None chooses it here.
    """

    num_students: int = 1
    teacher: TrainedTeacher | None = None
    choice: CompressionChoice | None = None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The outcome of a run.

    Attributes:
        folder: of the run.
        teacher: the weights files of its teachers; None where none is trained, or not all are finished.
        choice: of the compression; None where the recipe names it.
        failures: what fell short without stopping it: unverified files, a missed target, a student that diverged.
    """

    folder: Path
    teacher: TrainedTeacher | None
    choice: CompressionChoice | None
    failures: tuple[StillroomError, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ResumeState:
    """The facts of run.json that a resumed run depends on; the defaults are those of a new run.

    Attributes:
        status: "new", "running", "stopped", "failed", "unverified", "missed" or "done".
        seconds: of all attempts so far.
        started: time of the first one.
        fingerprint: of the images.
        teacher_seed: of the run that trained the teachers, where it is another.
        cache: whether teacher outputs are cached.
        choice: of the compression.
        rows: measured stages of the student.
        stage_seconds: stage -> duration of its training.
    """

    status: str = "new"
    seconds: float = 0.0
    started: str | None = None
    fingerprint: str | None = None
    teacher_seed: int | None = None
    cache: CacheDecision | None = None
    choice: CompressionChoice | None = None
    rows: tuple[StageRow, ...] = ()
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stage_steps: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, run: RunDir) -> ResumeState:
        """From the folder of a run; a new run where there is no run.json."""
        info: dict[str, Any] = run.info
        answers, chosen, stages = info.get("answers"), info.get("chosen"), info.get("stages", {})
        return cls(
            status=info.get("status", "new"),
            seconds=info.get("seconds", 0.0),
            started=info.get("started"),
            fingerprint=info.get("data", {}).get("fingerprint"),
            teacher_seed=info.get("teacher_of_seed"),
            cache=CacheDecision(answers["kept"], answers["why"]) if answers else None,
            choice=CompressionChoice(chosen["why"], chosen["table"]) if chosen else None,
            rows=tuple(StageRow(**row) for row in info.get("compress", ())),
            stage_seconds={stage: facts["seconds"] for stage, facts in stages.items() if "seconds" in facts},
            stage_steps={stage: facts["steps"] for stage, facts in stages.items() if "steps" in facts},
        )


def trained_teacher(
    run: RunDir, sections: Mapping[str, Teacher], state: ResumeState, *, seed: int
) -> TrainedTeacher | None:
    """The teachers that a run has trained or taken over, if all of them are finished; None where none is trained."""
    files = {stage: run.weights(stage) for stage, one in sections.items() if one.finetune != "none"}
    if not files or not all(path.exists() for path in files.values()):
        return None
    return TrainedTeacher(files, seed if state.teacher_seed is None else state.teacher_seed)


def earlier_result(folder: Path, sections: Mapping[str, Teacher], *, seed: int) -> RunResult | None:
    """The outcome of a run so far, from its folder; None where there is none."""
    run = RunDir(folder)
    state = ResumeState.read(run)
    if state.status == "new":
        return None
    return RunResult(folder=folder, teacher=trained_teacher(run, sections, state, seed=seed), choice=state.choice)
