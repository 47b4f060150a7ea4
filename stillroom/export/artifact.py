"""An exported file with what it claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stillroom.export.runtime import RuntimeModel, find


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A file that was exported.

    Attributes:
        runtime: as the recipe names it.
        bits: of its weights.
        path: where it is.
        gate: least agreement with the student, for it to count as verified.
    """

    runtime: str
    bits: int
    path: Path
    gate: float

    @property
    def name(self) -> str:
        """What it is called beside the networks."""
        return f"{self.runtime}-{self.bits}"

    @property
    def companions(self) -> tuple[str, ...]:
        """Endings of the files beside it that it needs."""
        return tuple(suffix for suffix in find(self.runtime).suffixes if suffix != self.path.suffix)

    @property
    def bytes(self) -> int:
        """Of the file and its companions."""
        files = [self.path, *(self.path.with_suffix(suffix) for suffix in self.companions)]
        return sum(file.stat().st_size for file in files)

    def load(self, threads: int | None = None) -> RuntimeModel:
        """The file on its own runtime."""
        return find(self.runtime).open(self.path, threads)
