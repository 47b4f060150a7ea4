"""Which source fits a path, so that `data=photos/` is enough."""

from __future__ import annotations

from inspect import signature

from stillroom.config import plugins
from stillroom.data.errors import UnknownLayout
from stillroom.data.sources.source import existing_path, printable


def infer_source(path: str) -> str:
    """The name of the source that fits: a source's own name where it takes no path, else the one whose `fits` says so.

    Raises:
        StillroomError: SR-D101 no such path, SR-D109 no source fits, or more than one.
    """
    sources = {name: plugins.pick("data/sources", name) for name in plugins.choices("data/sources")}
    if path in sources and not signature(sources[path]).parameters:
        return path
    found = existing_path(path)
    fitting = [name for name, source in sources.items() if hasattr(source, "matches") and source.matches(found)]
    # images with boxes or masks lie in folders too, so whoever finds those knows better than who sees folders
    placed = [name for name in fitting if getattr(sources[name], "kind", "labels") != "labels"]
    fitting = placed or fitting
    if len(fitting) == 1:
        return fitting[0]
    why = (
        f"it could be {' or '.join(fitting)}"
        if fitting
        else "neither class folders with images, nor parquet, idx, COCO or VOC files, nor images at all"
    )
    raise UnknownLayout(path=printable(path), why=why)
