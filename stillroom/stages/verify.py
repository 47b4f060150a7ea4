"""Networks and exported files on the test images, in one pass; each file is verified against its student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stillroom.data.dataset import Dataset
from stillroom.data.hash_rng import evenly_spaced
from stillroom.data.loader import in_order
from stillroom.evaluation.evaluate import Evaluation, evaluate
from stillroom.evaluation.gallery import SampleGallery
from stillroom.export._diagnosis import diagnose
from stillroom.export._verify import Verification, mark_unverified
from stillroom.export.artifact import ExportedFile
from stillroom.export.runtime import kept_info
from stillroom.metrics.measurement import Measurement
from stillroom.tasks.task import Task
from stillroom.types import Output, PredictFn

BATCH = 32
NUM_DIAGNOSED = 64  # images on which the cause of a failed verification is looked for
MAX_GALLERY = 10_000  # images of a split, at most, that others are compared with


def evaluate_all(
    networks: Mapping[str, PredictFn],
    files: Sequence[ExportedFile],
    data: Dataset,
    task: Task,
    *,
    device: torch.device,
    samples: Path | None,
    splits: Sequence[str] = ("test",),
) -> tuple[Evaluation, dict[str, Verification]]:
    """Run all networks and files once on the test images; verify each file against the student it was exported from.

    Args:
        networks: "student", and where they exist "teacher", "baseline" and others, with the task's last step.
        files: exported from the student.
        data: whose images are read.
        task: whose metrics count.
        device: where the networks are.
        samples: folder for thumbnails of selected images; None keeps none.
        splits: read one after the other.

    Returns:
        the evaluation, and the verification of each file by its name.
    """
    predictors = dict(networks) | {made.name: made.load() for made in files}
    collected = SampleGallery(predictors, task)
    compared = [name for name in task.gallery_splits if name not in splits]
    rows = {name: evenly_spaced(len(data.splits[name]), MAX_GALLERY) for name in compared}
    result = evaluate(
        predictors,
        chain(
            chain.from_iterable(in_order(data.splits[name], BATCH, rows=rows[name]) for name in compared),
            chain.from_iterable(in_order(data.splits[name], BATCH) for name in splits),
        ),
        task,
        data.classes,
        against={name: "teacher" for name in networks if name != "teacher" and "teacher" in networks}
        | {made.name: "student" for made in files},
        reference=None if data.labelled or "teacher" not in networks else "teacher",
        baseline="baseline",
        gallery={int(item) for name in compared for item in data.splits[name].items[rows[name]]},
        keep=collected.keep,
        device=device,
    )
    verdicts = {made.name: verify(made, result.figures[made.name], task) for made in files}
    for made in files:
        if not verdicts[made.name].passed:
            cause = explain_failure(made, networks["student"], data, task, device)
            verdicts[made.name] = replace(verdicts[made.name], cause=cause)
    if samples:
        collected.write(samples, data.classes, data.source.name)
    return result, verdicts


def verify(made: ExportedFile, figures: Mapping[str, Measurement], task: Task) -> Verification:
    """The file's outputs against the student's. Where both are empty, as detectors without any box, they agree."""
    nothing = Measurement(value=1.0, how="neither file nor network found anything", n=0)
    tolerance = task.tolerance if made.bits == 32 else 1.0
    return Verification(figure=figures.get("agreement", nothing), gate=made.gate, tolerance=tolerance)


def explain_failure(made: ExportedFile, network: PredictFn, data: Dataset, task: Task, device: torch.device) -> str:
    """The fault in the preprocessing of a file that failed; empty where the fault is elsewhere.

    Found on training images: test images are read once.
    """
    split = data.splits.get("train") or next(iter(data.splits.values()))
    images = next(in_order(split, NUM_DIAGNOSED, rows=evenly_spaced(len(split), NUM_DIAGNOSED))).images.to(device)

    def agree(answer: Output, other: Output) -> float:
        return float(task.agreement_per_image(answer, Output(pred=other.pred.to(answer.pred.device))).mean())

    return diagnose(made.load(), network, images, agree, gate=made.gate) or ""


def per_image_tensors(result: Evaluation) -> dict[str, Tensor]:
    """The arrays of an evaluation that are saved: predictions, scores, targets and keys, image by image."""
    scores = {f"{name}.score": score for name, score in result.scores.items()}
    target = {} if result.targets is None else {"target": result.targets}
    return result.predictions | scores | target | {"key": result.keys}


def rename_unverified(files: Sequence[ExportedFile], verdicts: Mapping[str, Verification]) -> list[ExportedFile]:
    """The files, renamed to `*.unverified.*` where they failed."""
    return [replace(made, path=mark_unverified(made.path, verdicts[made.name], made.companions)) for made in files]


def as_dicts(figures: Mapping[str, Measurement]) -> dict[str, Any]:
    """Figures as `metrics.json` holds them."""
    return {name: figure.as_dict() for name, figure in figures.items()}


def export_row(
    made: ExportedFile,
    folder: Path,
    verdict: Verification,
    found: Mapping[str, Measurement],
    times: Mapping[str, Measurement],
) -> dict[str, Any]:
    """One element of `exports` in `metrics.json`."""
    whole = ", ".join((made.path.suffix, *made.companions))
    size = Measurement(value=made.bytes, how=f"size of the files {whole}" if made.companions else "size of the file")
    figures = dict(found) | verdict.figures() | {"bytes": size} | dict(times)
    return (
        {
            "target": made.runtime,
            "bits": made.bits,
            "path": str(made.path.relative_to(folder)),
            "verified": verdict.passed,
            "gate": verdict.gate,
        }
        | as_dicts(figures)
        | kept_info(made.runtime)
    )
