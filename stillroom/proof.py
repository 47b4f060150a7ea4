"""What a run ends with: files, each proved on its own runtime, and every figure of everybody, taken in one sitting."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stillroom import assemble, budget, chain, judge
from stillroom.answering import Answering
from stillroom.benchmark import device, remote, tradeoff
from stillroom.data.dataset import Dataset
from stillroom.errors import Failure
from stillroom.metrics._figure import Figure
from stillroom.models.network import Network
from stillroom.plugins import module, pick
from stillroom.run import Run
from stillroom.sections import Export, Recipe, Target
from stillroom.stages import Stages
from stillroom.tasks.task import Task
from stillroom.teachers.frozen import Frozen

log = logging.getLogger("stillroom")

CALIBRATION = 256  # training images that set the ranges of an int8 file
ALONE = 1.0  # seconds that a file is run for in a process of its own, for its memory and energy


def ready(recipe: Recipe) -> None:
    """Say before anything is trained what would be missing in the end: a runtime, a converter, a library that prunes.

    Raises:
        Failure: SR-X702, SR-X732, SR-M380.
    """
    asked = {section.target for section in recipe.export} | ({recipe.target.runtime} if recipe.target else set())
    for target in sorted(asked):
        module("export", target).ready()
    for section in recipe.compress:
        for name in pick("compress", section.name).needs:
            if find_spec(name) is None:
                raise Failure("SR-M380", name=section.name, package=name, extra=section.name)


def export(sections: Sequence[Export], student: Network, data: Dataset, task: Task, run: Run) -> list[judge.Made]:
    """The files of `[[export]]`, not yet verified."""
    images = assemble.spread(data.splits["train"], CALIBRATION)
    made, floats = [], dict[str, Path]()
    for section in sections:
        path = run.export_path(module("export", section.target).SUFFIXES, section.bits)
        log.info("export: %s", path.name)
        write = pick("export", section.target)
        write(
            Answering(student, task),
            path,
            example=images[:1],
            classes=data.classes,
            bits=section.bits,
            calibration=images.split(32) if section.bits == 8 else (),
            base=floats.get(getattr(module("export", section.target), "BASE", section.target)),
            task=task,
        )
        if section.bits == 32:
            floats[section.target] = path
        usual = task.gates[32 if section.bits == 32 else 8]
        gate = usual if section.agreement is None else section.agreement
        made.append(judge.Made(target=section.target, bits=section.bits, path=path, gate=gate))
    return made


def prove(
    stages: Stages, teacher: Frozen, baseline: Network | None, student: Network, files: list[judge.Made]
) -> list[Failure]:
    """Look at the test images, once; hold files against the student; take times; write all of it down.

    Returns what files failed their check, and the target if it was missed.
    """
    recipe, data, task, run, engine = stages.recipe, stages.data, stages.task, stages.run, stages.engine
    between = chain.between(stages)
    networks: dict[str, nn.Module] = {"teacher": teacher.network, "student": student}
    networks |= ({"baseline": baseline} if baseline else {}) | between
    log.info("proof: %d networks and %d files on the test images", len(networks), len(files))
    speakers = {"teacher": Answering(teacher.alone.speak, task)} | {
        name: Answering(network.to(engine.device), task) for name, network in networks.items() if name != "teacher"
    }
    result, verdicts = judge.judge(speakers, files, data, task, device=engine.device, samples=run.folder / "samples")
    files = judge.settled(files, verdicts)
    timed = {name: Answering(network.cpu(), task) for name, network in networks.items() if name != "baseline"}
    example = assemble.spread(data.splits["train"], 1)
    times = judge.time_all(timed, files, example)
    shape, teachers = (data.channels, data.size, data.size), {"teacher": assemble.stages_of(recipe.teacher)}
    found: dict[str, Any] = {}
    for name, network in networks.items():
        cost = judge.cost(network, shape, [run.weights(stage) for stage in teachers.get(name, (name,))])
        found[name] = judge.plain(result.figures[name] | cost | times.get(name, {}))
    rows = [
        judge.export_row(
            made,
            run.folder,
            verdicts[made.name],
            result.figures[made.name],
            times[made.name] | alone(made, example, recipe.target),
        )
        for made in files
    ]
    run.save_tensors("samples/predictions", judge.kept(result))
    what = chain.said(recipe)
    metrics: dict[str, Any] = {name: found[name] for name in ("teacher", "student", "baseline") if name in found}
    metrics |= {"stages": [{"stage": name, "what": what[name]} | found[name] for name in between]} if between else {}
    metrics = tradeoff.attach(metrics | {"exports": rows}, task.about.headline)
    failures = [verdicts[made.name].failure(made.path) for made in files if not verdicts[made.name].passed]
    if recipe.target:
        metrics["target"], missed = budget.verdict(recipe.target, files, rows, example, task.about.headline)
        failures += [missed] if missed else []
    run.write_metrics(metrics)
    return failures


def alone(made: judge.Made, example: Tensor, target: Target | None) -> dict[str, Figure]:
    """What only a process of its own can tell of a file: the memory it takes, how long it loads, its energy."""
    if made.target not in device.RUNTIMES:  # a target of one's own
        return {}
    watts = target.watts if target else None
    measured = remote.measure(made.path, runtime=made.target, images=example, threads=1, seconds=ALONE, watts=watts)
    return {name: figure for name, figure in measured.figures().items() if name in ("peak_mb", "load_ms", "energy_j")}
