"""Detects the kind of source at a path: class folders, parquet, idx, COCO or VOC files, masks, or images only."""

from __future__ import annotations

from typing import Any

from stillroom.config.errors import InvalidRecipe
from stillroom.config.plugins import pick
from stillroom.config.validation import call_problems
from stillroom.data.infer_source import infer_source
from stillroom.data.sources.source import Source


def auto(*, path: str, **arguments: Any) -> Source:
    """The source that matches `path`.

    Args:
        path: a folder or a file.
        **arguments: of that source.

    Raises:
        StillroomError: SR-D101 no such path, SR-D109 an unknown layout, SR-C400 the source has no such argument.
    """
    name = infer_source(path)
    kind = pick("data/sources", name)
    problems = call_problems(kind, arguments | {"path": path}, "data")
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise InvalidRecipe(count=f"{len(problems)} problems", source=f"the source {name!r}", problems=lines)
    source: Source = kind(path=path, **arguments)
    return source
