"""A finished run opened again: its recipe, its data and its networks, from the folder alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stillroom import report
from stillroom.benchmark import tradeoff
from stillroom.benchmark.networks import time_all
from stillroom.benchmark.target import measure_on_device
from stillroom.config import device_profile, recipe, schema
from stillroom.config.schema import Export, Recipe
from stillroom.data import sampling
from stillroom.data.dataset import Dataset
from stillroom.evaluation.evaluate import Evaluation
from stillroom.export import artifact
from stillroom.export._verify import Verification
from stillroom.io.run_dir import RunDir
from stillroom.models import load_into
from stillroom.models.network import Network
from stillroom.pipeline.errors import EvaluationClassesMismatch, MultiSeedFolder, RunNotFinished
from stillroom.report import seeds
from stillroom.report.errors import NotARunFolder
from stillroom.stages import build, verify
from stillroom.stages.export import export_files
from stillroom.stages.final_test import measure_alone
from stillroom.tasks.predictor import Predictor
from stillroom.tasks.task import Task
from stillroom.teachers.frozen import FrozenTeacher

STUDENTS = ("baseline", "student")


class FinishedRun:
    """What `stillroom.distill` returns, and what the commands that follow a run work on.

    Args:
        folder: a run's folder.

    Raises:
        StillroomError: SR-C460 it is none, SR-C433 it holds one for each of several seeds, SR-C462 it is not finished.
    """

    def __init__(self, folder: Path | str):
        self.run = RunDir(Path(folder))
        if seeds.there(self.folder):
            raise MultiSeedFolder(folder=folder, first=self.folder / f"seed-{self.recipe.seeds[0]}")
        if not (self.folder / "recipe.toml").is_file():
            raise NotARunFolder(folder=folder)
        if not self.run.weights("student").is_file():
            raise RunNotFinished(folder=folder, status=self.run.info.get("status", "unknown"))

    def __repr__(self) -> str:
        return f"Finished({str(self.folder)!r})"

    @property
    def folder(self) -> Path:
        """Where everything is."""
        return self.run.folder

    @property
    def metrics(self) -> dict[str, Any]:
        """Every figure, under `teacher`, `baseline`, `student` and `exports`; each has a `value` and a `how`."""
        return self.run.metrics

    @cached_property
    def recipe(self) -> Recipe:
        """What was done."""
        return recipe.read(self.folder / "recipe.toml")

    @cached_property
    def data(self) -> Dataset:
        """The images it was done with. A relative path begins where the run was started, wherever one is now."""
        section = self.recipe.data
        data = build.build_data(replace(section, arguments=self._meant(section.arguments)))
        named = tuple(self.run.info.get("data", {}).get("classes", data.classes))
        return data if data.labelled else replace(data, classes=named)

    @cached_property
    def task(self) -> Task:
        """What was asked of the networks."""
        return build.task_for(self.recipe.task, self.data)

    @cached_property
    def student(self) -> Network:
        """The student, ready to be asked: `finished.student(images).pred`."""
        return self.network("student")

    @cached_property
    def _pixels(self) -> sampling.PixelStatistics:
        return sampling.pixel_statistics(self.data.splits["train"])

    @cached_property
    def teacher(self) -> FrozenTeacher:
        """The teacher as it taught; several as one."""
        networks = [self.network(stage) for stage in build.teacher_sections(self.recipe.teacher)]
        whole = build.combine_teachers(self.recipe.teacher, networks)
        return build.freeze(self.recipe, whole, torch.device("cpu"))

    def network(self, name: str) -> Network:
        """The network of a stage: "teacher", "baseline", "student"; "teacher-2" and so on where there are more.

        Of a student that was made smaller also "distilled", as it was before, and what compressions left: "prune" ...
        """
        section: Any = build.teacher_sections(self.recipe.teacher).get(name, self.recipe.student)
        section = replace(section, weights=self._there(section.weights or "none"))
        network = build.build_network(section, self.data, self.task, self._pixels, seed=0)
        path = self.run.weights(name)
        if path.is_file():  # a teacher that was taken as it is has left no file
            load_into(network, path)
        return network.eval()

    def networks(self) -> dict[str, nn.Module]:
        """All that the run has; several teachers are one."""
        taught = {name: self.network(name) for name in STUDENTS if self.run.weights(name).is_file()}
        return {"teacher": self.teacher.network, **taught}

    def files(self) -> list[artifact.ExportedFile]:
        """The exported files that `metrics.json` lists."""
        return [
            artifact.ExportedFile(
                target=row["target"], bits=row["bits"], path=self.folder / row["path"], gate=row.get("gate", 0.0)
            )
            for row in self.metrics.get("exports", [])
            if (self.folder / row["path"]).is_file()
        ]

    def export(self, target: str = "onnx", *, bits: int = 32, agreement: float | None = None) -> Path:
        """Write one more file of the student, hold it against the student on the test images, and note its figures.

        Raises:
            StillroomError: SR-X701 it does not answer as the student does, SR-X741 for it wants its pixels otherwise;
                the file is then named `*.unverified.*`. SR-X702, SR-X730 to SR-X732: the target can't do it.
        """
        section = Export(target=target, bits=bits, agreement=agreement)  # type: ignore[arg-type]
        with self._locked():
            (made,) = export_files([section], self.student, self.data, self.task, self.run)
            student = {"student": Predictor(self.student, self.task)}
            known = {} if self.data.labelled else {"teacher": self.speakers()["teacher"]}
            result, verdicts = self.judged(student | known, [made])
            verdict = verdicts[made.name]
            (made,) = verify.rename_unverified([made], verdicts)
            example = sampling.sample_images(self.data.splits["train"], 1)
            times = time_all(student, [made], example)[made.name] | measure_alone(made, example, self._target)
            row = verify.export_row(made, self.folder, verdict, result.figures[made.name], times)
            rows = [r for r in self.metrics.get("exports", []) if (r["target"], r["bits"]) != (target, bits)]
            metrics = self.metrics | {"exports": [*rows, row]}
            self.run.write_metrics(tradeoff.attach(metrics, self.task.info.headline))
            self.report()
        if not verdict.passed:
            raise verdict.failure(made.path)
        return made.path

    def judged(
        self,
        networks: dict[str, Any],
        files: list[artifact.ExportedFile],
        data: Dataset | None = None,
        splits: Sequence[str] = ("test",),
    ) -> tuple[Evaluation, dict[str, Verification]]:
        """Networks and files on splits of the run's own data, unless other data is given."""
        shown = data or self.data
        task = build.task_for(self.recipe.task, shown)
        return verify.evaluate_all(
            networks, files, shown, task, device=torch.device("cpu"), samples=None, splits=splits
        )

    def speakers(self) -> dict[str, Any]:
        """The networks as they are judged: with their task's last step, the teacher through its map of classes."""
        found: dict[str, Any] = self.networks() | {"teacher": self.teacher.speak}
        return {name: Predictor(network, self.task) for name, network in found.items()}

    def evaluate(self, path: str | None = None, *, split: str | None = None) -> dict[str, Any]:
        """Networks and files on images, in the shape of `metrics`.

        Args:
            path: images of the same classes; the run's own where it is left out.
            split: "train", "val" or "test". Left out, it is the test split of the run's own images, and all of others.

        Raises:
            EvaluationClassesMismatch: SR-M312 the classes at `path` are others.
        """
        data = self.data if path is None else self._other(path)
        files = self.files()
        splits = [split] if split else ["test"] if path is None else list(data.splits)
        result, verdicts = self.judged(self.speakers(), files, data, splits)
        rows = [
            {"target": made.target, "bits": made.bits, "path": str(made.path), "verified": verdicts[made.name].passed}
            | verify.as_dicts(result.figures[made.name] | verdicts[made.name].figures())
            | {"verified": verdicts[made.name].passed}
            for made in files
        ]
        return {name: verify.as_dicts(result.figures[name]) for name in self.speakers()} | {"exports": rows}

    def bench(self, seconds: float = 3.0, device: schema.Target | None = None) -> dict[str, Any]:
        """Times of teacher, student and files on this machine, taken in turns; of the files alone on another device."""
        files = self.files()
        if device:
            example = sampling.sample_images(self.data.splits["train"], 1)
            measured = {
                made.name: measure_on_device(made.path, made.target, device, example, seconds) for made in files
            }
            return {name: verify.as_dicts(figures) for name, figures in measured.items()}
        networks = {n: Predictor(network, self.task) for n, network in self.networks().items() if n != "baseline"}
        example = sampling.sample_images(self.data.splits["train"], 1)
        times = time_all(networks, files, example, seconds=seconds)
        return {name: verify.as_dicts(figures) for name, figures in times.items()}

    @property
    def _target(self) -> schema.Target | None:
        return None if self.recipe.target is None else device_profile.with_profile(self.recipe.target)

    def _other(self, path: str) -> Dataset:
        """Images elsewhere, brought to the run's size and colours."""
        # Labels may come from any kind of source; boxes and masks are looked for where the run's own were.
        source = "auto" if self.data.kind == "labels" else self.recipe.data.source
        section = schema.Data(source=source, size=self.data.size, arguments={"path": path})
        data = build.build_data(section, channels=self.data.channels)
        if not data.labelled:
            data = replace(data, classes=self.data.classes)
        if data.classes != self.data.classes:
            raise EvaluationClassesMismatch(path=path, theirs=len(data.classes), classes=len(self.data.classes))
        return data

    def report(self) -> Path:
        """Write `report.html` and the model card again; the report's path."""
        report.card(self.folder)
        return report.write(self.folder)

    def _meant(self, value: Any) -> Any:
        """What a source is told, with every path in it as the run meant it."""
        if isinstance(value, dict):
            return {key: self._meant(one) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._meant(one) for one in value]
        return self._there(value) if isinstance(value, str) else value

    def _there(self, path: str) -> str:
        """A path as the run meant it, which may have begun elsewhere; a word that is no such path as it is."""
        meant = Path(self.run.info.get("directory") or ".") / path
        return str(meant) if not Path(path).exists() and meant.exists() else path

    @contextmanager
    def _locked(self) -> Iterator[None]:
        run = RunDir.open(self.folder, self.recipe.as_dict(), self.recipe.toml())
        try:
            yield
        finally:
            run.close()
