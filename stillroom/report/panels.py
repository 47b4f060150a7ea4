"""An image with what one speaker says drawn on it: boxes, a class map, or the images it finds alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from markupsafe import Markup

from stillroom.report import pixels, svg
from stillroom.report.folder import Folder, Speaker
from stillroom.report.format import percent
from stillroom.report.probe import Shot, boxes, vector

LEAST = 0.3  # score of a box that is drawn
NEAREST = 4  # images
SIDE = 240  # pixels, of an image with something drawn on it
DASHES = (None, "5 3", "1.5 3")  # so that colour is not the only difference


@dataclass(frozen=True)
class Panel:
    """What one speaker says; `classes` are the labels that occur in it."""

    role: str
    label: str
    note: str
    drawing: Markup
    classes: frozenset[int] = frozenset()


@dataclass
class Album:
    """Draws panels. Each picture goes into the page once, in `definitions`; panels refer to it.

    Args:
        folder: whose samples are drawn.
        shots: all images that the run kept.
    """

    folder: Folder
    shots: Sequence[Shot]
    found: dict[str, pixels.Pixels | None] = field(default_factory=dict)
    directions: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def definitions(self) -> Markup:
        """All pictures that panels refer to, not drawn."""
        drawn = [
            svg.element("image", id=f"picture-{place}", href=seen.source, width=seen.width, height=seen.height)
            for place, seen in enumerate(self.found.values())
            if seen is not None
        ]
        shared = svg.element("defs", *drawn)
        return svg.element("svg", shared, class_="shared", width=0, height=0, aria_hidden="true")

    def panel(self, shot: Shot, speaker: Speaker | None) -> Panel | None:
        """What a speaker says of an image; without a speaker, what is true. None where nothing can be drawn."""
        seen = self._picture(shot)
        sketch = shot.answers.get(speaker.key, {}) if speaker else shot.truth
        role, label = (speaker.role, speaker.label) if speaker else ("truth", "truth")
        score = percent(shot.scores[speaker.key], 0) if speaker and speaker.key in shot.scores else ""
        if seen is None:
            return None
        if isinstance(sketch.get("boxes"), list):
            return self._boxes(seen, sketch["boxes"], role, label, score)
        if isinstance(sketch.get("mask"), str):
            return self._mask(seen, sketch["mask"], role, label, score)
        return self._nearest(shot, speaker) if speaker and "vector" in sketch else None

    def name(self, label: int) -> str:
        """What a class is called."""
        classes = self.folder.classes
        return classes[label] if 0 <= label < len(classes) else f"class {label}"

    def image(self, shot: Shot, said: str) -> Markup:
        """The image alone."""
        seen = self._picture(shot)
        return self._drawing(seen, said) if seen else Markup("")

    def _picture(self, shot: Shot) -> pixels.Pixels | None:
        if shot.file not in self.found:
            self.found[shot.file] = pixels.picture(self.folder.path / "samples", shot.file, most=SIDE, exact=False)
        return self.found[shot.file]

    def _drawing(self, seen: pixels.Pixels, said: str, *parts: Markup) -> Markup:
        place = next(place for place, other in enumerate(self.found.values()) if other is seen)
        use = svg.element("use", href=f"#picture-{place}")
        view = f"0 0 {seen.width} {seen.height}"
        return svg.element("svg", svg.element("title", said), use, *parts, viewBox=view, role="img", aria_label=said)

    def _boxes(self, seen: pixels.Pixels, found: list[Any], role: str, label: str, score: str) -> Panel:
        drawn = boxes(found, least=LEAST)
        counts = Counter(box.label for box in drawn)
        named = ", ".join(f"{self.name(one)} {count}" for one, count in sorted(counts.items())) or "no box"
        parts = []
        for box in reversed(drawn):  # the surest on top
            hint = self.name(box.label) + (f", {percent(box.score, 0)}" if role != "truth" else "")
            place = {"x": round(box.left * seen.width, 1), "y": round(box.top * seen.height, 1)}
            place |= {"width": round((box.right - box.left) * seen.width, 1)}
            place |= {"height": round((box.bottom - box.top) * seen.height, 1)}
            parts.append(svg.element("rect", **place, class_="under"))
            dash = DASHES[box.label % len(DASHES)]
            kind = {"stroke": pixels.colour(box.label), "stroke_dasharray": dash, "class_": "box"}
            parts.append(svg.element("rect", svg.element("title", hint), **place, **kind))
        drawing = self._drawing(seen, f"{label}: {named}", *parts)
        return Panel(role, label, _joined(score, named), drawing, frozenset(counts))

    def _mask(self, seen: pixels.Pixels, file: str, role: str, label: str, score: str) -> Panel | None:
        found = pixels.mask(self.folder.path / "samples", file, most=SIDE)
        if found is None:
            return None
        painted, counts = found
        whole = painted.width * painted.height
        most = sorted(counts.items(), key=lambda item: -item[1])
        named = ", ".join(f"{self.name(one)} {percent(count / whole, 0)}" for one, count in most) or "void"
        place = {"width": seen.width, "height": seen.height, "preserveAspectRatio": "none"}
        over = svg.element("image", href=painted.source, class_="mask", **place)
        return Panel(role, label, score, self._drawing(seen, f"{label}: {named}", over), frozenset(counts))

    def _nearest(self, shot: Shot, speaker: Speaker) -> Panel | None:
        found = self._directions(speaker.key)
        place = next((place for place, other in enumerate(self.shots) if other is shot), -1)
        if place not in found or len(found) <= NEAREST:
            return None
        own = found[place]
        alike = {
            other: sum(a * b for a, b in zip(own, theirs, strict=True))
            for other, theirs in found.items()
            if other != place and len(theirs) == len(own)
        }
        best = sorted(alike, key=lambda other: (-alike[other], other))[:NEAREST]
        drawn = [self._neighbour(shot, self.shots[other], alike[other]) for other in best]
        return Panel(speaker.role, speaker.label, "", Markup("").join(drawn))

    def _neighbour(self, shot: Shot, other: Shot, cosine: float) -> Markup:
        known = other.label is not None
        named = self.name(other.label) if other.label is not None else other.name
        same = known and other.label == shot.label
        said = f"{named}, cosine {cosine:.2f}" + (", same class" if same else "")
        style = "neighbour same" if same else "neighbour"
        tick = Markup("✓ ") if same else ""
        return svg.element("span", self.image(other, said), svg.element("small", tick, named), class_=style)

    def _directions(self, key: str) -> dict[int, list[float]]:
        """Place of an image -> the unit vector that a speaker gives it."""
        if key not in self.directions:
            read = {place: vector(shot.answers.get(key, {}).get("vector")) for place, shot in enumerate(self.shots)}
            norms = {place: sqrt(sum(x * x for x in found)) for place, found in read.items() if found}
            self.directions[key] = {
                place: [x / norms[place] for x in found] for place, found in read.items() if found and norms[place] > 0
            }
        return self.directions[key]


def _joined(*parts: str) -> str:
    return " · ".join(part for part in parts if part)
