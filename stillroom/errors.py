"""What every refusal of this program is made of: a stable code, four lines of help and an exit code.

    class TooManyPixels(DataError):
        code = "SR-D105"
        what = "image {width}×{height} exceeds data.max_pixels={limit}   {path}"
        ...  # and why, effect, fix

    raise TooManyPixels(path=path, width=60000, height=60000, limit=89_000_000)

The classes are in `errors.py` of the folder that raises them (`_errors.py` where every other file is a plug-in);
`docs/errors.md` is written from all of them. The letter of a code is that of its base class here.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import partial
from typing import Any, ClassVar

LINES = ("what", "why", "effect", "fix")


class Exit(IntEnum):
    """The exit code of a process."""

    DONE = 0
    FAILED = 1  # a fault of this program, not of the user
    USAGE = 2
    DATA = 3
    MODEL = 4
    RESOURCES = 5
    DIVERGED = 6
    UNVERIFIED = 7
    TARGET_MISSED = 8
    INTERRUPTED = 130
    TERMINATED = 143


class StillroomError(Exception):
    """Something the user can act on. Its text is the four lines.

    A class with a `code` is one kind of error, and its lines are templates, filled in with an instance's `values`.
    `told` is set where another process prints the error. `kinds`: every class with a code that is imported so far.
    """

    kinds: ClassVar[dict[str, type[StillroomError]]] = {}
    exit: Exit = Exit.FAILED
    code = what = why = effect = fix = ""
    told = False

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "code" not in vars(cls):
            return
        if not re.fullmatch(r"SR-[A-Z]\d{3}", cls.code):
            raise TypeError(f"{cls.__name__}: a code has the form SR-A123, not {cls.code!r}")
        if empty := [line for line in LINES if not getattr(cls, line)]:
            raise TypeError(f"{cls.__name__} lacks {', '.join(empty)}")
        other = StillroomError.kinds.get(cls.code, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):  # equal where one is reloaded
            raise TypeError(f"{cls.code} is {other.__module__}.{other.__qualname__} already, not {cls.__name__}")
        StillroomError.kinds[cls.code] = cls

    def __init__(self, **values: Any):
        self.values = values
        self.what, self.why, self.effect, self.fix = (getattr(type(self), line).format_map(values) for line in LINES)
        super().__init__(str(self))

    def __str__(self) -> str:
        return f"{self.code} {self.what}\n  why    {self.why}\n  effect {self.effect}\n  fix    {self.fix}"

    @property
    def warning(self) -> str:
        """What is wrong and what helps, in one line: for what is said while the work goes on."""
        return f"{self.code} {self.what}; {self.fix}"

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), **self.values), ()

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        lines = {line: getattr(self, line) for line in LINES}
        return {"code": self.code} | lines | {"exit_code": int(self.exit)}


class RecipeError(StillroomError):
    """C: a recipe, a command line or a run folder that can't be used."""

    exit = Exit.USAGE


class DataError(StillroomError):
    """D: images or their annotations."""

    exit = Exit.DATA


class SecurityError(StillroomError):
    """S: refused, for it could run code or read other files."""

    exit = Exit.MODEL


class ModelError(StillroomError):
    """M: networks, their weights, and methods that don't fit them."""

    exit = Exit.MODEL


class TeacherError(StillroomError):
    """T: teachers and their cached answers."""

    exit = Exit.MODEL


class ResourceError(StillroomError):
    """R: memory, disk, processes, compilers."""

    exit = Exit.RESOURCES


class TrainingError(StillroomError):
    """E: training that can't go on."""

    exit = Exit.DIVERGED


class ExportError(StillroomError):
    """X: exported files, and the packages that write and measure them."""

    exit = Exit.UNVERIFIED


class VerificationError(ExportError):
    """An exported file that is there, and failed its check."""


class BenchmarkError(StillroomError):
    """B: measurements of time and energy."""

    exit = Exit.RESOURCES


class DeviceLimitError(BenchmarkError):
    """A device's limits on time, size or energy that no file keeps."""

    exit = Exit.TARGET_MISSED


class NetworkAccessError(StillroomError):
    """N: something that would have to be downloaded."""

    exit = Exit.MODEL


class Stopped(Exception):
    """The process was asked to end: Ctrl-C (130) or SIGTERM (143). `told` as of an error."""

    told = False

    def __init__(self, exit: Exit):
        self.exit = exit
        super().__init__(f"stopped with exit code {int(exit)}")
