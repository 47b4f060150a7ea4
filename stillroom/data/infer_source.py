"""The kind of source that a path belongs to, so that `data=photos/` is enough."""

from __future__ import annotations

from inspect import signature

from stillroom.config import plugins
from stillroom.data.errors import UnknownLayout
from stillroom.data.sources._paths import existing_path, printable


def infer_source(path: str) -> str:
    """The name of the source for `path`: the path itself if it names a source without arguments, else by `matches`.

    Raises:
        StillroomError: SR-D101 no such path, SR-D109 no source matches, or more than one.
    """
    sources = {name: plugins.pick("data/sources", name) for name in plugins.choices("data/sources")}
    if path in sources and not signature(sources[path]).parameters:
        return path
    found = existing_path(path)
    matching = [name for name, source in sources.items() if hasattr(source, "matches") and source.matches(found)]
    # A data set with boxes or masks also consists of image folders, so its annotations decide.
    annotated = [name for name in matching if getattr(sources[name], "kind", "labels") != "labels"]
    matching = annotated or matching
    if len(matching) == 1:
        return matching[0]
    why = (
        f"it could be {' or '.join(matching)}"
        if matching
        else "it holds neither class folders with images, nor parquet, idx, COCO or VOC files, nor any images"
    )
    raise UnknownLayout(path=printable(path), why=why)
