"""The straight line: data, teacher, untaught student, taught student, files, figures, report."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch

from stillroom import assemble, judge, machine, report
from stillroom.answering import Answering
from stillroom.data.dataset import Dataset
from stillroom.data.inspect import inspect, inspect_labels, refuse
from stillroom.engine import Engine, Signals, precision_for
from stillroom.errors import Exit, Failure, Stopped
from stillroom.learn import Progress
from stillroom.models.network import Network
from stillroom.plugins import pick
from stillroom.run import Run
from stillroom.sections import Export, Recipe
from stillroom.stages import Stages
from stillroom.tasks.task import Task
from stillroom.teachers.frozen import Frozen

log = logging.getLogger("stillroom")

CALIBRATION = 256  # training images that set the ranges of an int8 file


def run(recipe: Recipe, folder: Path, *, engine: Engine, signals: Signals, progress: Progress) -> Run:
    """Do what a recipe says, in a folder of its own. A folder that holds the same recipe is taken up where it stands.

    Raises:
        Failure: whatever went wrong; SR-X701 when everything is done but a file failed its check.
        Stopped: somebody asked for it; the same call resumes.
    """
    run = Run.open(folder, recipe.as_dict(), recipe.toml(), writes=engine.first)
    if run.info.get("status") == "done":
        log.info("%s is done already; another name=... begins anew", folder)
        run.close()
        return run
    failures: list[Failure] = []
    with recorded(run, failures):
        data = assemble.load_data(recipe.data, report=run.folder if run.writes else None)
        task = assemble.matched(assemble.make_task(recipe.task), data)
        remember(run, recipe, data, task, engine)
        question(run, data)
        stages = Stages(recipe, data, task, run, engine, signals, progress)
        teacher = stages.teacher()
        baseline = stages.student("baseline", None) if recipe.baseline else None
        student = stages.student("student", teacher)
        if engine.first:
            files = export(recipe.export, student, data, task, run)
            failures += prove(teacher, baseline, student, files, data, task, run, engine)
        engine.barrier()
    if engine.first:
        report.write(run.folder)
        report.card(run.folder)
    for failure in failures:
        raise failure
    return run


def export(sections: Sequence[Export], student: Network, data: Dataset, task: Task, run: Run) -> list[judge.Made]:
    """The files of `[[export]]`, not yet verified."""
    images = assemble.spread(data.splits["train"], CALIBRATION)
    made, floats = [], dict[str, Path]()
    for section in sections:
        path = run.export_path(section.target, section.bits)
        log.info("export: %s", path.name)
        write = pick("export", section.target)
        write(
            Answering(student, task),
            path,
            example=images[:1],
            classes=data.classes,
            bits=section.bits,
            calibration=images.split(32) if section.bits == 8 else (),
            base=floats.get(section.target),
            task=task,
        )
        if section.bits == 32:
            floats[section.target] = path
        gate = section.agreement if section.agreement is not None else task.gates[section.bits]
        made.append(judge.Made(target=section.target, bits=section.bits, path=path, gate=gate))
    return made


def prove(
    teacher: Frozen,
    baseline: Network | None,
    student: Network,
    files: list[judge.Made],
    data: Dataset,
    task: Task,
    run: Run,
    engine: Engine,
) -> list[Failure]:
    """Look at the test images, once; hold files against the student; take times; write all of it down.

    Returns what files failed their check.
    """
    networks = {"teacher": cast(Network, teacher.network), "student": student}
    networks |= {"baseline": baseline} if baseline else {}
    log.info("proof: %d networks and %d files on the test images", len(networks), len(files))
    speakers = {name: Answering(network.to(engine.device), task) for name, network in networks.items()}
    speakers["teacher"] = Answering(teacher.speak, task)
    result, verdicts = judge.judge(speakers, files, data, task, device=engine.device, samples=run.folder / "samples")
    files = judge.settled(files, verdicts)
    timed = {name: Answering(network.cpu(), task) for name, network in networks.items() if name != "baseline"}
    times = judge.time_all(timed, files, assemble.spread(data.splits["train"], 1))
    shape = (data.channels, data.size, data.size)
    found: dict[str, Any] = {
        name: judge.plain(result.figures[name] | judge.cost(network, shape, run.weights(name)) | times.get(name, {}))
        for name, network in networks.items()
    }
    rows = [
        judge.export_row(made, run.folder, verdicts[made.name], result.figures[made.name], times[made.name])
        for made in files
    ]
    run.save_tensors("samples/predictions", judge.kept(result))
    run.write_metrics(found | {"exports": rows})
    return [verdicts[made.name].failure(made.path) for made in files if not verdicts[made.name].passed]


def remember(run: Run, recipe: Recipe, data: Dataset, task: Task, engine: Engine) -> None:
    """Write down what the figures depend on, and refuse to go on with other images than the run began with."""
    known = run.info.get("data", {}).get("fingerprint", data.fingerprint)
    if known != data.fingerprint:
        raise Failure("SR-C411", folder=run.folder, old=known[:12], new=data.fingerprint[:12])
    hardware = machine.hardware(engine.device, engine.world)
    precision = str(precision_for(engine.device, recipe.train.precision)).removeprefix("torch.")
    images = {name: len(split.listed) for name, split in data.splits.items()}
    summary = data.summary()
    run.note(
        name=recipe.name,
        seeds=list(recipe.seeds),
        command=f"stillroom run {run.folder / 'recipe.toml'}",
        directory=str(Path.cwd()),
        versions=machine.versions(),
        hardware=hardware | {"precision": precision},
        task={"name": recipe.task.name, "answers": task.answers} | asdict(task.about),
        data={"source": recipe.data.source} | images | {k: summary[k] for k in DATA_FACTS},
        networks={
            "teacher": _network_facts(recipe.teacher, recipe.teacher.fit or ""),
            "student": _network_facts(recipe.student, "all"),
        },
    )


def question(run: Run, data: Dataset) -> None:
    """Refuse labels that make training senseless; tell what else is odd about the images.

    A set too large for memory is not read through for this: `stillroom check` does that.
    """
    small = data.splits["train"].memory
    findings = inspect(data.source, data) if small else inspect_labels(data.source, data)
    refuse(findings)
    for finding in findings:
        run.warn(str(finding.failure).partition("\n")[0])


DATA_FACTS = ("classes", "channels", "size", "bad", "fingerprint")


def _network_facts(section: Any, fit: str) -> dict[str, Any]:
    fitted = {"head": ", its head fitted here", "all": ", trained on from there"}.get(fit, "")
    weights = "trained here" if section.weights == "none" else f"{section.weights}{fitted}"
    return {"network": section.network, "arguments": dict(section.arguments), "weights": weights}


@contextmanager
def recorded(run: Run, failures: Sequence[Failure]) -> Iterator[None]:
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
    except Failure as failure:
        end("failed", failure.exit, True)
        raise
    except (torch.OutOfMemoryError, MemoryError) as problem:
        end("failed", Exit.RESOURCES, True)
        raise Failure("SR-R503", problem=problem) from problem
    except BaseException:
        log.debug("%s", traceback.format_exc())
        end("failed", Exit.FAILED, True)
        raise
    else:
        end("unverified" if failures else "done", failures[0].exit if failures else Exit.DONE, False)
    finally:
        run.close()
