"""The files of `[[export]]`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from stillroom.compress._errors import CompressionPackageMissing
from stillroom.config.plugins import module, pick
from stillroom.config.schema import Export, Recipe
from stillroom.data import sampling
from stillroom.data.dataset import Dataset
from stillroom.export import artifact
from stillroom.io.run_dir import RunDir
from stillroom.models.network import Network
from stillroom.tasks.predictor import Predictor
from stillroom.tasks.task import Task

log = logging.getLogger("stillroom")


CALIBRATION = 256  # training images that set the ranges of an int8 file


def check_available(recipe: Recipe) -> None:
    """Say before anything is trained what would be missing in the end: a runtime, a converter, a library that prunes.

    Raises:
        StillroomError: SR-X702, SR-X732, SR-M380.
    """
    asked = {section.target for section in recipe.export} | ({recipe.target.runtime} if recipe.target else set())
    for target in sorted(asked):
        module("export", target).ready()
    for section in recipe.compress:
        for name in pick("compress", section.name).needs:
            if find_spec(name) is None:
                raise CompressionPackageMissing(name=section.name, package=name, extra=section.name)


def export_files(
    sections: Sequence[Export], student: Network, data: Dataset, task: Task, run: RunDir
) -> list[artifact.ExportedFile]:
    """The files of `[[export]]`, not yet verified."""
    images = sampling.sample_images(data.splits["train"], CALIBRATION)
    made, floats = [], dict[str, Path]()
    for section in sections:
        path = run.export_path(module("export", section.target).SUFFIXES, section.bits)
        log.info("export: %s", path.name)
        write = pick("export", section.target)
        write(
            Predictor(student, task),
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
        usual = task.min_agreement[32 if section.bits == 32 else 8]
        gate = usual if section.agreement is None else section.agreement
        made.append(artifact.ExportedFile(target=section.target, bits=section.bits, path=path, gate=gate))
    return made
