"""The files of `[[export]]`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from stillroom.compress._errors import CompressionPackageMissing
from stillroom.config.plugins import module, pick
from stillroom.config.schema import Compress, Export
from stillroom.data.dataset import Dataset
from stillroom.data.sampling import sample_images
from stillroom.export.artifact import ExportedFile
from stillroom.io.run_dir import RunDir
from stillroom.models.network import Network
from stillroom.tasks.predictor import Predictor
from stillroom.tasks.task import Task

log = logging.getLogger("stillroom")

NUM_CALIBRATION = 256  # training images that set the ranges of an int8 file


def check_available(runtimes: Iterable[str], compressions: Iterable[Compress]) -> None:
    """Report before anything is trained what would be missing in the end: a runtime, a converter, a pruning library.

    Raises:
        ExportPackagesMissing, LiteRTConverterMissing, CompressionPackageMissing: SR-X702, SR-X732, SR-M380.
    """
    for runtime in sorted(set(runtimes)):
        module("export", runtime).ready()
    for section in compressions:
        for name in pick("compress", section.name).needs:
            if find_spec(name) is None:
                raise CompressionPackageMissing(name=section.name, package=name, extra=section.name)


def export_files(
    sections: Sequence[Export], student: Network, data: Dataset, task: Task, run: RunDir
) -> list[ExportedFile]:
    """The files of `[[export]]`, not yet verified."""
    images = sample_images(data.splits["train"], NUM_CALIBRATION)
    made, floats = [], dict[str, Path]()
    for section in sections:
        path = run.export_path(module("export", section.runtime).SUFFIXES, section.bits)
        log.info("export: %s", path.name)
        write = pick("export", section.runtime)
        write(
            Predictor(student, task),
            path,
            example=images[:1],
            classes=data.classes,
            bits=section.bits,
            calibration=images.split(32) if section.bits == 8 else (),
            base=floats.get(getattr(module("export", section.runtime), "BASE", section.runtime)),
            task=task,
        )
        if section.bits == 32:
            floats[section.runtime] = path
        usual = task.gates[32 if section.bits == 32 else 8]
        gate = usual if section.agreement is None else section.agreement
        made.append(ExportedFile(target=section.runtime, bits=section.bits, path=path, gate=gate))
    return made
