"""The targets of a source, by its kind of annotation."""

from __future__ import annotations

from collections.abc import Callable

from stillroom.data.sources.source import Source
from stillroom.data.targets.boxes import BoxTargets
from stillroom.data.targets.labels import LabelTargets
from stillroom.data.targets.masks import MaskTargets
from stillroom.data.targets.target import Targets

KINDS: dict[str, Callable[[Source], Targets]] = {"labels": LabelTargets, "boxes": BoxTargets, "masks": MaskTargets}


def build_targets(source: Source) -> Targets:
    """The targets for `source.kind`, "labels" by default."""
    return KINDS[getattr(source, "kind", "labels")](source)
