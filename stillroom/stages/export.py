"""The files of `[[export]]`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from stillroom.benchmark.target import check_device
from stillroom.compress._errors import CompressionPackageMissing
from stillroom.config.plugins import pick
from stillroom.config.schema import Compress, Deploy, Export
from stillroom.data.dataset import Dataset
from stillroom.data.sampling import sample_images
from stillroom.export.artifact import ExportedFile
from stillroom.export.runtime import find
from stillroom.io.run_dir import RunDir
from stillroom.models.network import Network
from stillroom.tasks.predictor import Predictor
from stillroom.tasks.task import Task

log = logging.getLogger("stillroom")

NUM_CALIBRATION = 256  # training images that set the ranges of an int8 file


def check_available(files: Iterable[Export], compressions: Iterable[Compress], target: Deploy | None = None) -> None:
    """Report before anything is trained what would be missing in the end: a runtime, a converter, a pruning library.

    Raises:
        ExportError: SR-X702, SR-X731, SR-X732, SR-X733.
        CompressionPackageMissing, UnsupportedRuntime: SR-M380, SR-B915.
    """
    for file in files:
        find(file.runtime).ready(file.bits)
    if target:
        check_device(target)
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
        runtime = find(section.runtime)
        runtime.ready(section.bits)
        path = run.export_path(runtime.suffixes, section.bits, own=section.runtime.partition(":")[2])
        log.info("export: %s", path.name)
        runtime.write(
            Predictor(student, task),
            path,
            example=images[:1],
            classes=data.classes,
            bits=section.bits,
            calibration=images.split(32) if section.bits == 8 else (),
            base=floats.get(runtime.base or section.runtime),
            task=task,
        )
        if section.bits == 32:
            floats[section.runtime] = path
        usual = task.gates[32 if section.bits == 32 else 8]
        gate = usual if section.agreement is None else section.agreement
        made.append(ExportedFile(runtime=section.runtime, bits=section.bits, path=path, gate=gate))
    return made
