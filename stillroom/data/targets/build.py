"""From a source to what it knows."""

from __future__ import annotations

from collections.abc import Callable

from stillroom.data.sources.source import Source
from stillroom.data.targets.boxes import BoxTargets
from stillroom.data.targets.labels import LabelTargets
from stillroom.data.targets.masks import MaskTargets
from stillroom.data.targets.target import Targets

KINDS: dict[str, Callable[[Source], Targets]] = {"labels": LabelTargets, "boxes": BoxTargets, "masks": MaskTargets}


def build_targets(source: Source) -> Targets:
    """The targets of its kind; a source that doesn't say has labels."""
    return KINDS[getattr(source, "kind", "labels")](source)
