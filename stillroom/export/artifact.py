"""An exported file with what it claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stillroom.config.plugins import module
from stillroom.types import PredictFn


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A file that was exported."""

    target: str
    bits: int
    path: Path
    gate: float

    @property
    def name(self) -> str:
        """How it is called among the speakers."""
        return f"{self.target}-{self.bits}"

    @property
    def companions(self) -> tuple[str, ...]:
        """Endings of the files beside it that it is nothing without."""
        suffixes: tuple[str, ...] = module("export", self.target).SUFFIXES
        return tuple(suffix for suffix in suffixes if suffix != self.path.suffix)

    @property
    def bytes(self) -> int:
        """Of the file and its companions."""
        files = [self.path, *(self.path.with_suffix(suffix) for suffix in self.companions)]
        return sum(file.stat().st_size for file in files)

    def load(self, threads: int | None = None) -> PredictFn:
        """The file on its own runtime."""
        speaker: PredictFn = module("export", self.target).load(self.path, threads=threads)
        return speaker
