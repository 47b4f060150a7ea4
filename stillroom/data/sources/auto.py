"""Whatever is at a path: class folders, parquet files or the MNIST family's files, told apart by looking."""

from __future__ import annotations

from stillroom.data.guess import guess
from stillroom.data.sources.source import Source
from stillroom.plugins import pick


def auto(*, path: str) -> Source:
    """The source that fits `path`.

    Args:
        path: a folder or a file.

    Raises:
        Failure: SR-D101 there is nothing, SR-D109 nothing that is known.
    """
    source: Source = pick("data/sources", guess(path))(path=path)
    return source
