"""The straight line: data, teacher, baseline, student, files, figures, report."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from stillroom import report
from stillroom.config.device_profile import with_profile
from stillroom.config.schema import Recipe
from stillroom.data.inspect import inspect, inspect_targets, raise_first_error
from stillroom.distributed.engine import Engine
from stillroom.distributed.signals import Signals
from stillroom.errors import Exit, StillroomError, Stopped
from stillroom.io.run_dir import RunDir
from stillroom.pipeline.errors import ImagesChanged, OutOfMemory
from stillroom.pipeline.prepare import prepare
from stillroom.pipeline.provenance import record_provenance
from stillroom.pipeline.resume import ResumeState, RunResult, Shared, earlier_result, trained_teacher
from stillroom.search.compression import Deployment, resolve_target
from stillroom.stages.build import teacher_sections
from stillroom.stages.compress import intermediate_networks, stage_descriptions, train_and_compress
from stillroom.stages.experiment import Experiment
from stillroom.stages.export import check_available, export_files
from stillroom.stages.final_test import FinalNetworks, run_final_test
from stillroom.stages.train import Trainer
from stillroom.teachers.source import CacheDecision, TeacherSource
from stillroom.training.context import Progress, RunContext
from stillroom.training.errors import TrainingDiverged

log = logging.getLogger("stillroom")

ENDS = {Exit.DIVERGED: "failed", Exit.UNVERIFIED: "unverified", Exit.TARGET_MISSED: "missed"}
"""Exit code of a failure that does not stop the line -> status of the run."""


def run(
    recipe: Recipe,
    folder: Path,
    shared: Shared | None = None,
    *,
    engine: Engine,
    signals: Signals,
    progress: Progress,
) -> RunResult:
    """Run a recipe in a folder of its own. A folder that holds the same recipe is resumed.

    Args:
        recipe: with one seed.
        folder: where to write.
        shared: what other seeds of the recipe have done already; None: it is alone.
        engine: the processes that do it.
        signals: may end it.
        progress: called after every training step.

    Returns:
        the outcome; what fell short without stopping the line is among its `failures`, and written to run.json.

    Raises:
        StillroomError: what stopped it.
        Stopped: by a signal; the same call resumes.
    """
    shared = shared or Shared()
    engine.share(recipe.trainings)
    run = RunDir.open(folder, recipe.as_dict(), recipe.toml(), writes=engine.first)
    sections, seed = teacher_sections(recipe.all_teachers), recipe.seeds[0]
    state = ResumeState.read(run)
    engine.barrier()  # all have read the state before the first process changes it
    if state.status == "done" and (finished := earlier_result(folder, sections, seed=seed)):
        log.info("%s is done already; another name=... starts anew", folder)
        run.close()
        return finished
    failures: list[StillroomError] = []
    with _recorded(run, state, failures):
        teacher_seed = _reuse_teacher(run, state, shared)
        engine.barrier()  # the teacher's files are there before any process looks for them
        experiment = prepare(recipe, engine, report=run.folder if run.writes else None)
        _check_images(run, state, experiment)
        record_provenance(run, recipe, experiment, teacher_seed=teacher_seed, num_students=shared.num_students)
        check_labels(run, experiment)
        deployment = _deployment(run, recipe, experiment, state, shared)
        trainer = Trainer(
            experiment=experiment,
            context=RunContext(run, engine, signals, progress),
            source=TeacherSource(state.cache, _recorder(run), shared.num_students),
            seconds=dict(state.stage_seconds),
            steps=dict(state.stage_steps),
        )
        _train_and_test(trainer, deployment, recipe, state, failures)
        engine.barrier()
    if engine.first and (run.folder / "metrics.json").exists():
        report.write(run.folder)
        report.card(run.folder)
    teacher = trained_teacher(run, sections, ResumeState(teacher_seed=teacher_seed), seed=seed)
    return RunResult(folder=folder, teacher=teacher, choice=deployment.choice, failures=tuple(failures))


def check_labels(run: RunDir, experiment: Experiment) -> None:
    """Refuse labels that make training senseless; warn of what else is odd about the images.

    A set too large for memory is not read through for this: `stillroom check` does that.
    """
    data = experiment.data
    small = data.splits["train"].in_memory
    findings = inspect(data.source, data) if small else inspect_targets(data.source, data)
    raise_first_error(findings)
    for finding in findings:
        run.warn(str(finding.failure).partition("\n")[0])


def _train_and_test(
    trainer: Trainer, deployment: Deployment, recipe: Recipe, state: ResumeState, failures: list[StillroomError]
) -> None:
    """Train teacher, baseline and student, then export and test them. A student that diverges ends the line here."""
    teacher = trainer.train_teacher()
    try:
        baseline = trainer.train_student("baseline", None) if recipe.baseline else None
        student = train_and_compress(trainer, deployment.compress, teacher, state.rows)
    except TrainingDiverged as failure:
        failures.append(failure)
        return
    if trainer.context.engine.first:
        networks = FinalNetworks(
            teacher=teacher,
            student=student,
            baseline=baseline,
            intermediate=intermediate_networks(trainer, deployment.compress),
            descriptions=stage_descriptions(deployment.compress),
        )
        failures += _export_and_test(trainer, networks, deployment, recipe)


def _export_and_test(
    trainer: Trainer, networks: FinalNetworks, deployment: Deployment, recipe: Recipe
) -> list[StillroomError]:
    experiment, run = trainer.experiment, trainer.context.run
    files = export_files(deployment.export, networks.student, experiment.data, experiment.task, run)
    target = recipe.deploy and with_profile(recipe.deploy)
    return run_final_test(experiment, run, networks, files, target, seconds=recipe.bench.seconds)


def _deployment(run: RunDir, recipe: Recipe, experiment: Experiment, state: ResumeState, shared: Shared) -> Deployment:
    """Compressions and files of the run, all that they need installed."""
    target = recipe.deploy and with_profile(recipe.deploy)
    known = state.choice or shared.choice
    deployment = resolve_target(experiment, target, recipe.compress, recipe.export, known=known)
    if deployment.choice:
        run.note(chosen=asdict(deployment.choice))
    check_available(deployment.export, deployment.compress, target)
    return deployment


def _reuse_teacher(run: RunDir, state: ResumeState, shared: Shared) -> int | None:
    """Take the teachers that another seed has trained; the seed they were trained with, None where it is this run's.

    The seed is noted first: a run that is killed in between notes the same again. A run that has trained a teacher of
    its own keeps it.
    """
    run.note(students=shared.num_students)
    donor = shared.teacher
    if donor is None:
        return state.teacher_seed
    own = any(run.weights(stage).exists() for stage in donor.files)
    if own and state.teacher_seed is None:
        return None
    seed = donor.seed if state.teacher_seed is None else state.teacher_seed
    run.note(teacher_of_seed=seed)
    for stage, file in donor.files.items():
        run.copy_weights(stage, file)
    return seed


def _check_images(run: RunDir, state: ResumeState, experiment: Experiment) -> None:
    """Refuse to resume with other images."""
    old, new = state.fingerprint, experiment.data.fingerprint
    if old is not None and old != new:
        raise ImagesChanged(folder=run.folder, old=old[:12], new=new[:12])


def _recorder(run: RunDir) -> Callable[[CacheDecision, str | None], None]:
    """Writes the decision between a live and a cached teacher to run.json."""

    def record(decision: CacheDecision, folder: str | None) -> None:
        run.note(answers=asdict(decision) | ({"cache": folder} if folder else {}))

    return record


@contextmanager
def _recorded(run: RunDir, state: ResumeState, failures: list[StillroomError]) -> Iterator[None]:
    """How the block ended, in run.json: status, exit code, and whether the same command would continue from there.

    `failures` holds what went wrong without stopping the line.
    """
    clock = time.monotonic()
    started = state.started or time.strftime("%Y-%m-%dT%H:%M:%S%z")
    run.note(status="running", started=started, exit_code=None)

    def end(status: str, exit: Exit, resumable: bool) -> None:
        seconds = round(state.seconds + time.monotonic() - clock, 3)
        run.note(status=status, exit_code=int(exit), resumable=resumable, seconds=seconds)

    try:
        yield
    except Stopped as stopped:
        end("stopped", stopped.exit, True)
        raise
    except StillroomError as failure:
        end("failed", failure.exit, True)
        raise
    except (torch.OutOfMemoryError, MemoryError) as problem:
        end("failed", Exit.RESOURCES, True)
        raise OutOfMemory(problem=problem) from problem
    except BaseException:
        log.debug("%s", traceback.format_exc())
        end("failed", Exit.FAILED, True)
        raise
    else:
        exit = failures[0].exit if failures else Exit.DONE
        end(ENDS[exit] if failures else "done", exit, exit == Exit.DIVERGED)
    finally:
        run.close()
