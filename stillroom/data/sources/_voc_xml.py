"""Validated reading of annotation files in Pascal VOC's XML format."""

from __future__ import annotations

from typing import NamedTuple
from xml.etree import ElementTree

from stillroom.data.sources._errors import InvalidVoc
from stillroom.data.sources._paths import printable, read_file

SIDES = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """One object of a file; `box` is left, top, right, bottom, as in `BoxAnnotations`."""

    name: str
    box: list[float]
    crowd: bool


def parse_file(file: str, *, difficult: str, inclusive: bool) -> tuple[list[VocObject], tuple[int, int] | None]:
    """The objects of an XML file, and the image's height and width if they are declared.

    Args:
        file: its path.
        difficult: see `Voc`.
        inclusive: whether coordinates count pixels from 1, the last one included.

    Raises:
        StillroomError: SR-D121 not a valid annotation file, SR-D102, SR-D104.
    """
    raw = read_file(file, name=printable(file))
    try:
        root = ElementTree.fromstring(raw, ElementTree.XMLParser(target=_WithoutDoctype()))
        objects = []
        for entry in root.iter("object"):
            is_difficult = (entry.findtext("difficult") or "0").strip() == "1"
            if is_difficult and difficult == "drop":
                continue
            name = (entry.findtext("name") or "").strip()
            if not name:
                raise ValueError("an object has no name")
            objects.append(VocObject(name, _box(entry, inclusive), is_difficult and difficult == "crowd"))
        return objects, _size(root)
    except (ElementTree.ParseError, ValueError, OverflowError) as problem:
        raise InvalidVoc(path=printable(file), why=str(problem)) from problem


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses document types, whose entities can expand to gigabytes."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type, which VOC files never need")


def _box(entry: ElementTree.Element, inclusive: bool) -> list[float]:
    values = []
    for side in SIDES:
        text = entry.findtext(f"bndbox/{side}")
        if text is None:
            raise ValueError(f"an object {(entry.findtext('name') or '').strip()!r} has no {side}")
        values.append(float(text))
    left, top, right, bottom = values
    if not inclusive:
        return values
    # Reversed sides stay degenerate, so that `inspect` reports them instead of a box of one pixel.
    return [left - 1, top - 1, right - (right <= left), bottom - (bottom <= top)]


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    height, width = (root.findtext(f"size/{side}") for side in ("height", "width"))
    if height is None or width is None:
        return None
    sides = (int(float(height)), int(float(width)))
    return sides if min(sides) > 0 else None
