"""Whatever is at a path, told apart by looking: class folders, parquet, idx, COCO or VOC files, masks, mere images."""

from __future__ import annotations

from typing import Any

from stillroom.config.errors import InvalidRecipe
from stillroom.config.plugins import pick
from stillroom.config.validation import call_problems
from stillroom.data.infer_source import infer_source
from stillroom.data.sources.source import Source


def auto(*, path: str, **arguments: Any) -> Source:
    """The source that fits `path`.

    Args:
        path: a folder or a file.
        **arguments: for that source.

    Raises:
        StillroomError: SR-D101 there is nothing, SR-D109 nothing that is known, SR-C400 it takes no such argument.
    """
    name = infer_source(path)
    kind = pick("data/sources", name)
    problems = call_problems(kind, arguments | {"path": path}, "data")
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise InvalidRecipe(count=f"{len(problems)} problems", source=f"the source {name!r}", problems=lines)
    source: Source = kind(path=path, **arguments)
    return source
