"""What a run ends with: files, each proved on its own runtime, and every figure of everybody, taken in one sitting."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor, nn

from stillroom.benchmark import device, remote, target, tradeoff
from stillroom.benchmark.networks import cost as cost_of
from stillroom.benchmark.networks import time_all
from stillroom.config.schema import Target
from stillroom.data import sampling
from stillroom.errors import StillroomError
from stillroom.export import artifact
from stillroom.metrics.measurement import Measurement
from stillroom.models.network import Network
from stillroom.stages import build, compress, verify
from stillroom.stages.train import Stages
from stillroom.tasks.predictor import Predictor
from stillroom.teachers.frozen import FrozenTeacher

log = logging.getLogger("stillroom")

ALONE = 1.0  # seconds that a file is run for in a process of its own, for its memory and energy


def run_final_test(
    stages: Stages,
    teacher: FrozenTeacher,
    baseline: Network | None,
    student: Network,
    files: list[artifact.ExportedFile],
) -> list[StillroomError]:
    """Look at the test images, once; hold files against the student; take times; write all of it down.

    Returns what files failed their check, and the target if it was missed.
    """
    recipe, data, task, run, engine = stages.recipe, stages.data, stages.task, stages.run, stages.engine
    between = compress.intermediate_networks(stages)
    networks: dict[str, nn.Module] = {"teacher": teacher.network, "student": student}
    networks |= ({"baseline": baseline} if baseline else {}) | between
    log.info("proof: %d networks and %d files on the test images", len(networks), len(files))
    speakers = {"teacher": Predictor(teacher.alone.speak, task)} | {
        name: Predictor(network.to(engine.device), task) for name, network in networks.items() if name != "teacher"
    }
    result, verdicts = verify.evaluate_all(
        speakers, files, data, task, device=engine.device, samples=run.folder / "samples"
    )
    files = verify.rename_unverified(files, verdicts)
    timed = {name: Predictor(network.cpu(), task) for name, network in networks.items() if name != "baseline"}
    example = sampling.sample_images(data.splits["train"], 1)
    times = time_all(timed, files, example)
    shape, teachers = (data.channels, data.size, data.size), {"teacher": build.teacher_sections(recipe.teacher)}
    found: dict[str, Any] = {}
    for name, network in networks.items():
        cost = cost_of(network, shape, [run.weights(stage) for stage in teachers.get(name, (name,))])
        found[name] = verify.as_dicts(result.figures[name] | cost | times.get(name, {}))
    rows = [
        verify.export_row(
            made,
            run.folder,
            verdicts[made.name],
            result.figures[made.name],
            times[made.name] | measure_alone(made, example, recipe.target),
        )
        for made in files
    ]
    run.save_tensors("samples/predictions", verify.per_image_tensors(result))
    what = compress.stage_descriptions(recipe)
    metrics: dict[str, Any] = {name: found[name] for name in ("teacher", "student", "baseline") if name in found}
    metrics |= {"stages": [{"stage": name, "what": what[name]} | found[name] for name in between]} if between else {}
    metrics = tradeoff.attach(metrics | {"exports": rows}, task.info.headline)
    failures = [verdicts[made.name].failure(made.path) for made in files if not verdicts[made.name].passed]
    if recipe.target:
        metrics["target"], missed = target.check_files(recipe.target, files, rows, example, task.info.headline)
        failures += [missed] if missed else []
    run.write_metrics(metrics)
    return failures


def measure_alone(made: artifact.ExportedFile, example: Tensor, target: Target | None) -> dict[str, Measurement]:
    """What only a process of its own can tell of a file: the memory it takes, how long it loads, its energy."""
    if made.target not in device.RUNTIMES:  # a target of one's own
        return {}
    watts = target.watts if target else None
    measured = remote.measure(made.path, runtime=made.target, images=example, threads=1, seconds=ALONE, watts=watts)
    return {name: figure for name, figure in measured.figures().items() if name in ("peak_mb", "load_ms", "energy_j")}
