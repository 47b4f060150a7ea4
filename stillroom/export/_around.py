"""What every target does around its own work: images for calibration, silence, and errors in this program's words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from stillroom.errors import StillroomError
from stillroom.export.file import first_line, quiet, refusal
from stillroom.io.files import disk_full_errors
from stillroom.models._onnx_errors import ModelOpenFailed


def calibrating(bits: int, calibration: Iterable[Tensor]) -> list[Tensor]:
    """The batches that set the ranges of integers; none are read where there are no integers.

    Raises:
        ValueError: 8 bits, and nothing to calibrate them on.
    """
    batches = list(calibration) if bits == 8 else []
    if bits == 8 and not batches:
        raise ValueError("8 bits need calibration images, and there are none")
    return batches


@contextmanager
def writing(target: str, path: Path) -> Iterator[None]:
    """Around the tools that write a file.

    Raises:
        StillroomError: as it comes from inside; SR-R501, the disk is full; SR-X730 or SR-X703 for whatever else goes
            wrong.
    """
    try:
        with quiet(), disk_full_errors(path):
            yield
    except StillroomError:
        raise
    except Exception as problem:
        raise refusal(target, path, problem) from problem


@contextmanager
def opening(runtime: str, path: Path) -> Iterator[None]:
    """Around a runtime that opens a file.

    Raises:
        StillroomError: as it comes from inside; SR-X704 for whatever else goes wrong.
    """
    try:
        yield
    except StillroomError:
        raise
    except Exception as problem:
        raise ModelOpenFailed(runtime=runtime, path=path, problem=first_line(problem)) from problem
