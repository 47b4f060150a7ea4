"""The straight line: data, teacher, untaught student, taught student, files, figures, report."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from stillroom import report
from stillroom.config.schema import Recipe, Teacher
from stillroom.data.dataset import Dataset
from stillroom.data.inspect import inspect, inspect_labels, refuse
from stillroom.distributed.engine import Engine
from stillroom.distributed.precision import precision_for
from stillroom.distributed.signals import Signals
from stillroom.errors import Exit, StillroomError, Stopped
from stillroom.io import environment
from stillroom.io.run_dir import RunDir
from stillroom.pipeline.errors import ImagesChanged, OutOfMemory
from stillroom.search import compression
from stillroom.stages import build, compress, export, final_test
from stillroom.stages.train import Stages
from stillroom.tasks.task import Task
from stillroom.training.fit import Progress

log = logging.getLogger("stillroom")


def run(
    recipe: Recipe,
    folder: Path,
    *,
    engine: Engine,
    signals: Signals,
    progress: Progress,
    students: int = 1,
    teacher_of: Path | None = None,
) -> RunDir:
    """Do what a recipe says, in a folder of its own. A folder that holds the same recipe is taken up where it stands.

    Args:
        recipe: with one seed.
        folder: where to write.
        engine: the processes that do it.
        signals: who may ask it to end.
        progress: told after every training step.
        students: runs of this recipe that share the teacher's answers, this one among them.
        teacher_of: the folder of another of them, whose trained teacher is taken; None trains one here.

    Raises:
        StillroomError: whatever went wrong; SR-X701 when everything is done but a file failed its check, SR-B930 when
            no file keeps within the target's budget.
        Stopped: somebody asked for it; the same call resumes.
    """
    engine.share(recipe.trainings)
    run = RunDir.open(folder, recipe.as_dict(), recipe.toml(), writes=engine.first)
    if run.info.get("status") == "done":
        log.info("%s is done already; another name=... begins anew", folder)
        run.close()
        return run
    failures: list[StillroomError] = []
    with recorded(run, failures):
        run.note(students=students)
        if teacher_of is not None:
            run.adopt(teacher_of)
        engine.barrier()  # nobody looks for a teacher before it is there
        recipe, data, task = build.build_data_and_task(recipe, report=run.folder if run.writes else None)
        record_provenance(run, recipe, data, task, engine)
        check_labels(run, data)
        stages = Stages(recipe, data, task, run, engine, signals, progress, students)
        recipe = compression.resolve_target(stages)
        export.check_available(recipe)
        stages = replace(stages, recipe=recipe)
        teacher = stages.teacher()
        baseline = stages.student("baseline", None) if recipe.baseline else None
        student = compress.compress(stages, teacher)
        if engine.first:
            files = export.export_files(recipe.export, student, data, task, run)
            failures += final_test.run_final_test(stages, teacher, baseline, student, files)
        engine.barrier()
    if engine.first:
        report.write(run.folder)
        report.card(run.folder)
    for failure in failures:
        raise failure
    return run


def record_provenance(run: RunDir, recipe: Recipe, data: Dataset, task: Task, engine: Engine) -> None:
    """Write down what the figures depend on, and refuse to go on with other images than the run began with."""
    known = run.info.get("data", {}).get("fingerprint", data.fingerprint)
    if known != data.fingerprint:
        raise ImagesChanged(folder=run.folder, old=known[:12], new=data.fingerprint[:12])
    hardware = environment.hardware(engine.device, engine.world)
    precision = str(precision_for(engine.device, recipe.train.precision)).removeprefix("torch.")
    other, home = run.info.get("teacher_of_seed"), run.folder.parent if run.info["students"] > 1 else run.folder
    images = {name: len(split.listed) for name, split in data.splits.items()}
    summary = data.summary()
    run.note(
        name=recipe.name,
        seeds=list(recipe.seeds),
        command=f"stillroom run {home / 'recipe.toml'}",
        directory=str(Path.cwd()),
        versions=environment.versions(),
        hardware=hardware | {"precision": precision},
        task={"name": recipe.task.name, "answers": task.answers} | asdict(task.about),
        data={"source": recipe.data.source} | images | {k: summary[k] for k in DATA_FACTS},
        networks={
            "teacher": _teacher_facts(recipe.teacher, task, "here" if other is None else f"by the run of seed {other}"),
            "student": _network_facts(recipe.student, "all", "here"),
        },
    )


def check_labels(run: RunDir, data: Dataset) -> None:
    """Refuse labels that make training senseless; tell what else is odd about the images.

    A set too large for memory is not read through for this: `stillroom check` does that.
    """
    small = data.splits["train"].memory
    findings = inspect(data.source, data) if small else inspect_labels(data.source, data)
    refuse(findings)
    for finding in findings:
        run.warn(str(finding.failure).partition("\n")[0])


DATA_FACTS = ("classes", "channels", "size", "bad", "unlabelled", "fingerprint")


def _network_facts(section: Any, fit: str, by: str) -> dict[str, Any]:
    fitted = {"head": f", its head fitted {by}", "all": f", trained further {by}"}.get(fit, "")
    weights = f"trained {by}" if section.weights == "none" else f"{section.weights}{fitted}"
    return {"network": section.network, "arguments": dict(section.arguments), "weights": weights}


def _teacher_facts(section: Teacher, task: Task, by: str) -> dict[str, Any]:
    """Of several teachers what they are together, and each by itself."""
    each = [_network_facts(one, one.fit or "", by) for one in build.teacher_sections(section).values()]
    if len(each) == 1:
        return each[0]
    joined = {
        "network": " + ".join(one["network"] for one in each),
        "weights": "; ".join(one["weights"] for one in each),
    }
    return joined | {"arguments": {}, "combine": build.combine_mode(section, task), "members": each}


@contextmanager
def recorded(run: RunDir, failures: Sequence[StillroomError]) -> Iterator[None]:
    """How the block ended, in `run.json`: status, exit code, and whether the same command would go on from there.

    `failures` holds what went wrong without stopping the line.
    """
    started, before = time.monotonic(), run.info.get("seconds", 0.0)
    run.note(status="running", started=run.info.get("started", time.strftime("%Y-%m-%dT%H:%M:%S%z")), exit_code=None)

    def end(status: str, exit: Exit, resumable: bool) -> None:
        seconds = round(before + time.monotonic() - started, 3)
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
        ends = {Exit.UNVERIFIED: "unverified", Exit.TARGET_MISSED: "missed"}
        end(ends[failures[0].exit] if failures else "done", failures[0].exit if failures else Exit.DONE, False)
    finally:
        run.close()
