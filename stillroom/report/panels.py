"""An image with one model's prediction drawn on it: boxes, a class map, or its nearest neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from markupsafe import Markup

from stillroom.report import svg
from stillroom.report.embedded_images import EmbeddedImage, css_colour, embed_image, embed_mask
from stillroom.report.format import percent
from stillroom.report.run_data import ModelResult, RunData
from stillroom.report.samples import SampleImage, boxes, vector

MIN_SCORE = 0.3  # of a box that is drawn
NUM_NEIGHBOURS = 4
MAX_SIDE = 240  # pixels, of an image with something drawn on it
DASHES = (None, "5 3", "1.5 3")  # so that colour is not the only difference


@dataclass(frozen=True)
class Panel:
    """A drawn prediction; `classes` are the labels in it."""

    role: str
    label: str
    note: str
    drawing: Markup
    classes: frozenset[int] = frozenset()


@dataclass
class PanelRenderer:
    """Draws panels. Each image enters the page once, in `definitions`; panels refer to it.

    Args:
        run: whose samples are drawn.
        samples: all sample images of the run.
        images: file -> its image, of those used so far.
        unit_vectors: model -> index of a sample -> its normalised embedding.
    """

    run: RunData
    samples: Sequence[SampleImage]
    images: dict[str, EmbeddedImage | None] = field(default_factory=dict)
    unit_vectors: dict[str, dict[int, list[float]]] = field(default_factory=dict)

    def definitions(self) -> Markup:
        """All images that panels refer to, as an invisible element."""
        drawn = [
            svg.element("image", id=f"picture-{index}", href=image.source, width=image.width, height=image.height)
            for index, image in enumerate(self.images.values())
            if image is not None
        ]
        shared = svg.element("defs", *drawn)
        return svg.element("svg", shared, class_="shared", width=0, height=0, aria_hidden="true")

    def panel(self, sample: SampleImage, model: ModelResult | None) -> Panel | None:
        """A model's prediction for an image; without a model, the ground truth. None if nothing can be drawn."""
        image = self._image(sample)
        prediction = sample.predictions.get(model.key, {}) if model else sample.truth
        role, label = (model.role, model.label) if model else ("truth", "ground truth")
        score = percent(sample.scores[model.key], 0) if model and model.key in sample.scores else ""
        if image is None:
            return None
        if isinstance(prediction.get("boxes"), list):
            return self._boxes(image, prediction["boxes"], role, label, score)
        if isinstance(prediction.get("mask"), str):
            return self._mask(image, prediction["mask"], role, label, score)
        return self._neighbours(sample, model) if model and "vector" in prediction else None

    def class_name(self, label: int) -> str:
        """The name of a class."""
        classes = self.run.classes
        return classes[label] if 0 <= label < len(classes) else f"class {label}"

    def image(self, sample: SampleImage, title: str) -> Markup:
        """The image alone."""
        image = self._image(sample)
        return self._drawing(image, title) if image else Markup("")

    def _image(self, sample: SampleImage) -> EmbeddedImage | None:
        if sample.file not in self.images:
            folder = self.run.path / "samples"
            self.images[sample.file] = embed_image(folder, sample.file, max_side=MAX_SIDE, exact=False)
        return self.images[sample.file]

    def _drawing(self, image: EmbeddedImage, title: str, *parts: Markup) -> Markup:
        index = next(index for index, other in enumerate(self.images.values()) if other is image)
        use = svg.element("use", href=f"#picture-{index}")
        view = f"0 0 {image.width} {image.height}"
        return svg.element("svg", svg.element("title", title), use, *parts, viewBox=view, role="img", aria_label=title)

    def _boxes(self, image: EmbeddedImage, rows: list[Any], role: str, label: str, score: str) -> Panel:
        found = boxes(rows, min_score=MIN_SCORE)
        counts = Counter(box.label for box in found)
        summary = ", ".join(f"{self.class_name(one)} {count}" for one, count in sorted(counts.items())) or "no box"
        parts = []
        for box in reversed(found):  # the highest score on top
            title = self.class_name(box.label) + (f", {percent(box.score, 0)}" if role != "truth" else "")
            place = {"x": round(box.left * image.width, 1), "y": round(box.top * image.height, 1)}
            place |= {"width": round((box.right - box.left) * image.width, 1)}
            place |= {"height": round((box.bottom - box.top) * image.height, 1)}
            parts.append(svg.element("rect", **place, class_="under"))
            dash = DASHES[box.label % len(DASHES)]
            stroke = {"stroke": css_colour(box.label), "stroke_dasharray": dash, "class_": "box"}
            parts.append(svg.element("rect", svg.element("title", title), **place, **stroke))
        drawing = self._drawing(image, f"{label}: {summary}", *parts)
        return Panel(role, label, " · ".join(part for part in (score, summary) if part), drawing, frozenset(counts))

    def _mask(self, image: EmbeddedImage, file: str, role: str, label: str, score: str) -> Panel | None:
        found = embed_mask(self.run.path / "samples", file, max_side=MAX_SIDE)
        if found is None:
            return None
        mask, counts = found
        area = mask.width * mask.height
        largest = sorted(counts.items(), key=lambda item: -item[1])
        summary = ", ".join(f"{self.class_name(one)} {percent(count / area, 0)}" for one, count in largest) or "void"
        place = {"width": image.width, "height": image.height, "preserveAspectRatio": "none"}
        overlay = svg.element("image", href=mask.source, class_="mask", **place)
        drawing = self._drawing(image, f"{label}: {summary}", overlay)
        return Panel(role, label, score, drawing, frozenset(counts))

    def _neighbours(self, sample: SampleImage, model: ModelResult) -> Panel | None:
        vectors = self._unit_vectors(model.key)
        index = next((index for index, other in enumerate(self.samples) if other is sample), -1)
        if index not in vectors or len(vectors) <= NUM_NEIGHBOURS:
            return None
        own = vectors[index]
        cosines = {
            other: sum(a * b for a, b in zip(own, theirs, strict=True))
            for other, theirs in vectors.items()
            if other != index and len(theirs) == len(own)
        }
        nearest = sorted(cosines, key=lambda other: (-cosines[other], other))[:NUM_NEIGHBOURS]
        drawn = [self._neighbour(sample, self.samples[other], cosines[other]) for other in nearest]
        return Panel(model.role, model.label, "", Markup("").join(drawn))

    def _neighbour(self, sample: SampleImage, other: SampleImage, cosine: float) -> Markup:
        name = self.class_name(other.label) if other.label is not None else other.name
        same = other.label is not None and other.label == sample.label
        title = f"{name}, cosine {cosine:.2f}" + (", same class" if same else "")
        style = "neighbour same" if same else "neighbour"
        tick = Markup("✓ ") if same else ""
        return svg.element("span", self.image(other, title), svg.element("small", tick, name), class_=style)

    def _unit_vectors(self, key: str) -> dict[int, list[float]]:
        """Index of a sample -> its normalised embedding from that model."""
        if key not in self.unit_vectors:
            found = {
                index: vector(sample.predictions.get(key, {}).get("vector"))
                for index, sample in enumerate(self.samples)
            }
            norms = {index: sqrt(sum(x * x for x in one)) for index, one in found.items() if one}
            self.unit_vectors[key] = {
                index: [x / norms[index] for x in one] for index, one in found.items() if one and norms[index] > 0
            }
        return self.unit_vectors[key]
