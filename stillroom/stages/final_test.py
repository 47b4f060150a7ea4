"""The end of a run: all networks and files on the test images, timed in turns, and written to metrics.json."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from stillroom.benchmark import remote, tradeoff
from stillroom.benchmark.networks import cost, time_all
from stillroom.benchmark.target import check_files
from stillroom.config.schema import Deploy
from stillroom.data.sampling import sample_images
from stillroom.errors import StillroomError
from stillroom.export.artifact import ExportedFile
from stillroom.export.runtime import find
from stillroom.io.run_dir import RunDir
from stillroom.metrics.measurement import Measurement
from stillroom.models.network import Network
from stillroom.stages.experiment import Experiment
from stillroom.stages.verify import as_dicts, evaluate_all, export_row, per_image_tensors, rename_unverified
from stillroom.tasks.predictor import Predictor
from stillroom.teachers.frozen import FrozenTeacher

log = logging.getLogger("stillroom")

ALONE = 1 / 3  # of the seconds of timing, that a file runs in a process of its own, for its memory and energy

Figures = Mapping[str, Measurement]


@dataclass(frozen=True, kw_only=True)
class FinalNetworks:
    """What a run has trained.

    Attributes:
        teacher: frozen.
        student: as exported.
        baseline: the student trained without the teacher; None where the recipe wants none.
        intermediate: stage -> the student before each compression.
        descriptions: stage -> its compression in words.
    """

    teacher: FrozenTeacher
    student: Network
    baseline: Network | None
    intermediate: Mapping[str, Network]
    descriptions: Mapping[str, str]

    def named(self) -> dict[str, nn.Module]:
        """Name -> network, in the order of the tables."""
        found: dict[str, nn.Module] = {"teacher": self.teacher.network, "student": self.student}
        return found | ({"baseline": self.baseline} if self.baseline else {}) | dict(self.intermediate)


def run_final_test(
    experiment: Experiment,
    run: RunDir,
    trained: FinalNetworks,
    files: list[ExportedFile],
    target: Deploy | None,
    *,
    seconds: float,
) -> list[StillroomError]:
    """Read the test images once; verify files against the student; measure times; write metrics.json.

    Args:
        experiment: what networks are tested by.
        run: where to write.
        trained: the networks.
        files: of the student.
        target: limits that the files are held to; None: none.
        seconds: of timing, see `time_all`.

    Returns:
        the files that failed verification, and the target if it was missed.
    """
    data, task, device = experiment.data, experiment.task, experiment.engine.device
    networks = trained.named()
    log.info("final test: %d networks and %d files on the test images", len(networks), len(files))
    predictors = {
        name: Predictor(trained.teacher.alone.predict if name == "teacher" else network.to(device), task)
        for name, network in networks.items()
    }
    result, verdicts = evaluate_all(predictors, files, data, task, device=device, samples=run.folder / "samples")
    files = rename_unverified(files, verdicts)
    example = sample_images(data.splits["train"], 1)
    timed = {name: Predictor(network.cpu(), task) for name, network in networks.items() if name != "baseline"}
    times = time_all(timed, files, example, seconds=seconds)
    figures = _network_figures(experiment, run, networks, result.figures, times)
    alone = {file.name: measure_alone(file, example, target, seconds=ALONE * seconds) for file in files}
    rows = [
        export_row(file, run.folder, verdicts[name], result.figures[name], times[name] | alone[name])
        for name, file in ((file.name, file) for file in files)
    ]
    run.save_tensors("samples/predictions", per_image_tensors(result))
    metrics: dict[str, Any] = {name: figures[name] for name in ("teacher", "student", "baseline") if name in figures}
    if trained.intermediate:
        metrics["stages"] = [
            {"stage": name, "what": trained.descriptions[name]} | figures[name] for name in trained.intermediate
        ]
    metrics = tradeoff.attach(metrics | {"exports": rows}, task.info.headline)
    failures = [verdicts[file.name].failure(file.path) for file in files if not verdicts[file.name].passed]
    if target:
        metrics["target"], missed = check_files(target, files, rows, example, task.info.headline)
        failures += [missed] if missed else []
    run.write_metrics(metrics)
    return failures


def measure_alone(
    file: ExportedFile, example: Tensor, target: Deploy | None, *, seconds: float = 1.0
) -> dict[str, Measurement]:
    """What only a process of its own can measure of a file: peak memory, loading time, energy."""
    if not find(file.runtime).measurable:
        return {}
    watts = target.watts if target else None
    measured = remote.measure(file.path, runtime=file.runtime, images=example, threads=1, seconds=seconds, watts=watts)
    return {name: figure for name, figure in measured.figures().items() if name in ("peak_mb", "load_ms", "energy_j")}


def _network_figures(
    experiment: Experiment,
    run: RunDir,
    networks: Mapping[str, nn.Module],
    found: Mapping[str, Figures],
    times: Mapping[str, Figures],
) -> dict[str, dict[str, Any]]:
    """Metrics, cost and times of every network, ready for JSON."""
    files = {"teacher": tuple(experiment.teachers)}
    return {
        name: as_dicts(
            {
                **found[name],
                **cost(network, experiment.image_shape, [run.weights(stage) for stage in files.get(name, (name,))]),
                **times.get(name, {}),
            }
        )
        for name, network in networks.items()
    }
