"""Images that can't be used, their list in bad_files.csv, and the limit on their number."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from io import StringIO
from pathlib import Path

from stillroom.data.errors import TooManyBadImages
from stillroom.errors import SecurityError, StillroomError
from stillroom.io.files import write_file


@dataclass(frozen=True, kw_only=True)
class BadImage:
    """An image that can't be used: where it is and why."""

    split: str
    item: int
    path: str
    code: str
    why: str


class BadImageLog:
    """The bad images of a data set.

    Args:
        total: number of images in the data set.
        max_bad: largest fraction of them that may be bad.
        report: folder for bad_files.csv, or None.

    Attributes:
        bad: item index -> the bad image.
    """

    def __init__(self, *, total: int, max_bad: float, report: Path | None):
        self.total, self.max_bad = total, max_bad
        self.path = None if report is None else Path(report) / "bad_files.csv"
        self.bad: dict[int, BadImage] = {}
        self._lock = threading.Lock()

    def add(self, split: str, failures: Iterable[tuple[int, StillroomError]]) -> None:
        """Record bad images of a split and write the list.

        Raises:
            TooManyBadImages: SR-D107, their number now exceeds the limit.
        """
        with self._lock:
            before = len(self.bad)
            for item, failure in failures:
                path = str(failure.values.get("path", item))
                why = f"{failure.what.split('   ')[0]}: {failure.why}"
                self.bad.setdefault(item, BadImage(split=split, item=item, path=path, code=failure.code, why=why))
            if len(self.bad) == before:
                return
            self._write()
        if len(self.bad) > self.max_bad * self.total:
            first = "\n         ".join(f"{bad.code} {bad.path}: {bad.why}" for bad in list(self.bad.values())[:3])
            listed = "the files named above" if self.path is None else str(self.path)
            raise TooManyBadImages(count=len(self.bad), total=self.total, limit=self.max_bad, first=first, csv=listed)

    def _write(self) -> None:
        if self.path is None:
            return
        text = StringIO(newline="")
        table = csv.writer(text)
        table.writerow(field.name for field in fields(BadImage))
        table.writerows(astuple(self.bad[item]) for item in sorted(self.bad))
        write_file(self.path, text.getvalue())


def raise_if_unsafe(failure: StillroomError) -> None:
    """Raise security errors: a suspected attack is never skipped like a bad image."""
    if isinstance(failure, SecurityError):
        raise failure
