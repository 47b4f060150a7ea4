"""A finished run opened again: its recipe, its data and its networks, from the folder alone."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from stillroom import report
from stillroom.benchmark.networks import time_all
from stillroom.benchmark.target import measure_on_device
from stillroom.config import recipe
from stillroom.config.device_profile import with_profile
from stillroom.config.schema import Deploy, Recipe
from stillroom.data.dataset import Dataset
from stillroom.data.sampling import sample_images
from stillroom.distributed.one_process import OneProcess
from stillroom.export.artifact import ExportedFile
from stillroom.io.run_dir import RunDir
from stillroom.models import load_weights
from stillroom.models.network import Network
from stillroom.pipeline import after
from stillroom.pipeline.errors import MultiSeedFolder, NotInRun, RunNotFinished
from stillroom.pipeline.prepare import prepare
from stillroom.pipeline.relocate import relocated
from stillroom.report import multi_seed
from stillroom.report.errors import NotARunFolder
from stillroom.stages import build
from stillroom.stages.experiment import Experiment
from stillroom.stages.verify import as_dicts
from stillroom.tasks.predictor import Predictor
from stillroom.tasks.task import Task
from stillroom.teachers.frozen import FrozenTeacher

STUDENTS = ("baseline", "student")


class FinishedRun:
    """The result of `stillroom.distill`, on which the commands that follow a run work.

    Args:
        folder: of the run.

    Raises:
        NotARunFolder: SR-C460. MultiSeedFolder: SR-C433 it holds a run for each of several seeds. RunNotFinished:
            SR-C462.
    """

    def __init__(self, folder: Path | str):
        self.run = RunDir(Path(folder))
        if multi_seed.is_multi_seed(self.folder):
            first = recipe.read(self.folder / "recipe.toml").seeds[0]
            raise MultiSeedFolder(folder=folder, first=self.folder / f"seed-{first}")
        if not (self.folder / "recipe.toml").is_file():
            raise NotARunFolder(folder=folder)
        if not self.run.weights("student").is_file():
            raise RunNotFinished(folder=folder, status=self.run.info.get("status", "unknown"))

    def __repr__(self) -> str:
        return f"FinishedRun({str(self.folder)!r})"

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.run.folder

    @property
    def metrics(self) -> dict[str, Any]:
        """Every figure, under `teacher`, `baseline`, `student` and `exports`; each has a `value` and a `how`."""
        return self.run.metrics

    @cached_property
    def recipe(self) -> Recipe:
        """Of the run."""
        return recipe.read(self.folder / "recipe.toml")

    @cached_property
    def experiment(self) -> Experiment:
        """What the run built its networks from, on the CPU; relative paths start where the run was started."""
        directory = Path(self.run.info.get("directory") or ".")
        return prepare(relocated(self.recipe, directory), OneProcess())

    @property
    def data(self) -> Dataset:
        """The images of the run."""
        return self.experiment.data

    @property
    def task(self) -> Task:
        """The task of the run."""
        return self.experiment.task

    @property
    def target(self) -> Deploy | None:
        """The device's limits, its profile applied; None where the recipe has none."""
        return self.recipe.deploy and with_profile(self.recipe.deploy)

    @cached_property
    def student(self) -> Network:
        """The student: `finished.student(images).pred`."""
        return self.network("student")

    @cached_property
    def teacher(self) -> FrozenTeacher:
        """The teacher as in training; several as an ensemble."""
        return self.experiment.freeze({stage: self.network(stage) for stage in self.experiment.teachers})

    def network(self, name: str) -> Network:
        """The network of a stage: "teacher", "baseline", "student"; "teacher-2" and so on where there are more.

        Of a compressed student also "distilled", as it was before, and the stages between: "prune" ...

        Raises:
            NotInRun: SR-C463 the run has no such network.
        """
        one = self.experiment
        trained = {path.stem for path in self.folder.glob("*.safetensors")}
        if name not in trained | one.teachers.keys():
            known = ", ".join(sorted(trained | one.teachers.keys()))
            raise NotInRun(kind="network", name=name, folder=self.folder, known=known)
        section = one.teachers.get(name, one.student)
        network = build.build_network(section, one.data, one.task, one.pixels, seed=0)
        path = self.run.weights(name)
        if path.is_file():  # a teacher that was not trained here has left none
            load_weights(network, path)
        return network.eval()

    def networks(self) -> dict[str, nn.Module]:
        """Name -> network; several teachers are one."""
        students = {name: self.network(name) for name in STUDENTS if self.run.weights(name).is_file()}
        return {"teacher": self.teacher.network, **students}

    def predictors(self) -> dict[str, Predictor]:
        """The networks with their task's last step, the teacher through its class map."""
        found: dict[str, Any] = self.networks() | {"teacher": self.teacher.predict}
        return {name: Predictor(network, self.task) for name, network in found.items()}

    def files(self) -> list[ExportedFile]:
        """The exported files that `metrics.json` lists."""
        return [
            ExportedFile(
                runtime=row["target"], bits=row["bits"], path=self.folder / row["path"], gate=row.get("gate", 0.0)
            )
            for row in self.metrics.get("exports", [])
            if (self.folder / row["path"]).is_file()
        ]

    def export(self, runtime: str = "onnx", *, bits: int = 32, agreement: float | None = None) -> Path:
        """Write one more file of the student, verify it on the test images, and add its figures; see `after.export`."""
        return after.export(self, runtime, bits=bits, agreement=agreement)

    def evaluate(self, path: str | None = None, *, split: str | None = None) -> dict[str, Any]:
        """Networks and files on images, in the shape of `metrics`; see `after.evaluate`."""
        return after.evaluate(self, path, split=split)

    def bench(self, seconds: float = 3.0, device: Deploy | None = None) -> dict[str, Any]:
        """Times of teacher, student and files on this machine, in turns; of the files alone on another device.

        Args:
            seconds: of all measurements together; on another device of each.
            device: where to measure; None: here.
        """
        files, example = self.files(), sample_images(self.data.splits["train"], 1)
        if device:
            measured = {
                file.name: measure_on_device(file.path, file.runtime, device, example, seconds) for file in files
            }
            return {name: as_dicts(figures) for name, figures in measured.items()}
        networks = {n: Predictor(network, self.task) for n, network in self.networks().items() if n != "baseline"}
        times = time_all(networks, files, example, seconds=seconds)
        return {name: as_dicts(figures) for name, figures in times.items()}

    def report(self) -> Path:
        """Write `report.html` and the model card again; the report's path."""
        report.card(self.folder)
        return report.write(self.folder)
