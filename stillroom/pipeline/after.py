"""What commands do with a finished run: export one more file, evaluate it on other images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stillroom.benchmark import tradeoff
from stillroom.benchmark.networks import time_all
from stillroom.config.schema import Data, Export
from stillroom.data.dataset import Dataset
from stillroom.data.sampling import sample_images
from stillroom.evaluation.evaluate import Evaluation
from stillroom.export._verify import Verification
from stillroom.export.artifact import ExportedFile
from stillroom.io.run_dir import RunDir
from stillroom.pipeline.errors import EvaluationClassesMismatch, NotInRun
from stillroom.stages import build
from stillroom.stages.export import export_files
from stillroom.stages.final_test import measure_alone
from stillroom.stages.verify import as_dicts, evaluate_all, export_row, rename_unverified
from stillroom.tasks.predictor import Predictor
from stillroom.types import PredictFn

if TYPE_CHECKING:
    from stillroom.pipeline.finished import FinishedRun


def export(finished: FinishedRun, runtime: str, *, bits: int, agreement: float | None) -> Path:
    """Write one more file of the student, verify it on the test images, and add its figures to metrics.json.

    Args:
        finished: the run.
        runtime: a name of `stillroom list runtimes`.
        bits: 32 for float, 8 or 4 for integers.
        agreement: least agreement with the student, 0..1; None: the task's.

    Raises:
        VerificationError: SR-X701, SR-X741 its outputs are not the student's; the file is named `*.unverified.*`.
        ExportError: SR-X702, SR-X730 to SR-X732 the runtime can't do it.
    """
    section = Export(runtime=runtime, bits=bits, agreement=agreement)  # type: ignore[arg-type]
    with _locked(finished):
        (file,) = export_files([section], finished.student, finished.data, finished.task, finished.run)
        student = {"student": Predictor(finished.student, finished.task)}
        teacher = {} if finished.data.labelled else {"teacher": finished.predictors()["teacher"]}
        result, verdicts = _evaluate(finished, student | teacher, [file])
        verdict = verdicts[file.name]
        (file,) = rename_unverified([file], verdicts)
        example = sample_images(finished.data.splits["train"], 1)
        times = time_all(student, [file], example)[file.name] | measure_alone(file, example, finished.target)
        row = export_row(file, finished.folder, verdict, result.figures[file.name], times)
        others = [r for r in finished.metrics.get("exports", []) if (r["target"], r["bits"]) != (runtime, bits)]
        metrics = finished.metrics | {"exports": [*others, row]}
        finished.run.write_metrics(tradeoff.attach(metrics, finished.task.info.headline))
        finished.report()
    if not verdict.passed:
        raise verdict.failure(file.path)
    return file.path


def evaluate(finished: FinishedRun, path: str | None, *, split: str | None) -> dict[str, Any]:
    """Networks and files on images, in the shape of `metrics`.

    Args:
        finished: the run.
        path: of images with the same classes; None: the run's own.
        split: "train", "val" or "test"; None: the test split of the run's own images, all images of others.

    Raises:
        EvaluationClassesMismatch: SR-M312 the classes at `path` are others.
        NotInRun: SR-C463 the images have no such split.
    """
    data = finished.data if path is None else other_data(finished, path)
    files, predictors = finished.files(), finished.predictors()
    if split and split not in data.splits:
        raise NotInRun(kind="split", name=split, folder=path or finished.folder, known=", ".join(data.splits))
    splits = [split] if split else ["test"] if path is None else list(data.splits)
    result, verdicts = _evaluate(finished, predictors, files, data, splits)
    rows = [
        {"target": file.runtime, "bits": file.bits, "path": str(file.path)}
        | as_dicts(result.figures[file.name] | verdicts[file.name].figures())
        | {"verified": verdicts[file.name].passed}
        for file in files
    ]
    return {name: as_dicts(result.figures[name]) for name in predictors} | {"exports": rows}


def other_data(finished: FinishedRun, path: str) -> Dataset:
    """Images elsewhere, at the run's size and channels."""
    # Labels may come from any kind of source; boxes and masks are looked for where the run's own were.
    source = "auto" if finished.data.kind == "labels" else finished.recipe.data.source
    section = Data(source=source, size=finished.data.size, arguments={"path": path})
    data = build.build_data(section, channels=finished.data.channels)
    if not data.labelled:
        data = replace(data, classes=finished.data.classes)
    if data.classes != finished.data.classes:
        raise EvaluationClassesMismatch(path=path, theirs=len(data.classes), classes=len(finished.data.classes))
    return data


def _evaluate(
    finished: FinishedRun,
    networks: Mapping[str, PredictFn],
    files: list[ExportedFile],
    data: Dataset | None = None,
    splits: Sequence[str] = ("test",),
) -> tuple[Evaluation, dict[str, Verification]]:
    data = data or finished.data
    comparable = data.labelled or not finished.data.labelled
    task = build.build_task(finished.recipe.task, data, finished.recipe.metrics if comparable else ())
    return evaluate_all(networks, files, data, task, device=torch.device("cpu"), samples=None, splits=splits)


@contextmanager
def _locked(finished: FinishedRun) -> Iterator[None]:
    """No other process writes to the run's folder meanwhile."""
    run = RunDir.open(finished.folder, finished.recipe.as_dict(), finished.recipe.toml())
    try:
        yield
    finally:
        run.close()
