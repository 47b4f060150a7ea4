"""What runtimes do around the tools they call: images for calibration, silence, and errors in this program's words."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom.errors import StillroomError
from stillroom.export._errors import ExportFailed, UnsupportedOperator
from stillroom.io.files import disk_full_errors

if TYPE_CHECKING:
    from torch import Tensor


def calibration_batches(bits: int, calibration: Iterable[Tensor]) -> list[Tensor]:
    """The batches that set the ranges of integers; none are read where there are no integers.

    Raises:
        ValueError: 8 bits, and nothing to calibrate them on.
    """
    batches = list(calibration) if bits == 8 else []
    if bits == 8 and not batches:
        raise ValueError("8 bits need calibration images, and there are none")
    return batches


@contextmanager
def writing(file: str, path: Path, missing_operator: Sequence[str] = ()) -> Iterator[None]:
    """Around the tools that write a file.

    Args:
        file: what is written, for messages: "onnx, 8 bits".
        path: where.
        missing_operator: see `Runtime`.

    Raises:
        StillroomError: as it comes from inside.
        DiskFull: SR-R501.
        UnsupportedOperator: SR-X730 an operator is missing.
        ExportFailed: SR-X703 whatever else goes wrong.
    """
    try:
        with quiet(), disk_full_errors(path):
            yield
    except StillroomError:
        raise
    except Exception as problem:
        raise export_error(file, path, problem, missing_operator) from problem


@contextmanager
def opening(runtime: str, path: Path) -> Iterator[None]:
    """Around a runtime that opens a file.

    Raises:
        StillroomError: as it comes from inside.
        ModelOpenFailed: SR-X704 whatever else goes wrong.
    """
    try:
        yield
    except StillroomError:
        raise
    except Exception as problem:
        from stillroom.models._onnx_errors import ModelOpenFailed

        raise ModelOpenFailed(runtime=runtime, path=path, problem=first_line(problem)) from problem


def export_error(file: str, path: Path, problem: Exception, missing_operator: Sequence[str]) -> StillroomError:
    """What to raise for an exporter's error: SR-X730 where an operator is missing, SR-X703 for all else."""
    operator = unsupported_operator(problem, missing_operator)
    if operator:
        return UnsupportedOperator(runtime=file, operator=operator, path=path)
    return ExportFailed(runtime=file, path=path, problem=first_line(problem))


def unsupported_operator(problem: BaseException, patterns: Sequence[str]) -> str | None:
    """The operator that a runtime does not have, if an exporter's error or one of its causes names one."""
    cause: BaseException | None = problem
    while cause is not None:
        for pattern in patterns:
            found = re.search(pattern, str(cause))
            if found:
                return found[1].removesuffix(".default")
        cause = cause.__cause__ or cause.__context__
    return None


def first_line(problem: Exception) -> str:
    """Exporters' messages fill screens; the first line is enough, and `from` keeps the rest."""
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0] if lines else ''}".strip()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence for tools that print while they work; what they raise still comes through.

    A handler is lent to the root logger, because the first `logging.info` of a tool would otherwise set up logging
    for the whole process.
    """
    root, level, silent = logging.getLogger(), logging.root.manager.disable, logging.NullHandler()
    root.addHandler(silent)
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        root.removeHandler(silent)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
