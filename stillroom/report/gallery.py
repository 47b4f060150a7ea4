"""Sample images on which two models differ most, with the predictions of all models beside the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from stillroom.report.embedded_images import MAX_SIDE, css_colour, embed_image
from stillroom.report.format import number, percent
from stillroom.report.panels import MIN_SCORE, Panel, PanelRenderer
from stillroom.report.run_data import ModelResult, RunData
from stillroom.report.samples import SampleImage, read_samples, softmax

MAX_IMAGES = 6  # of a group
MAX_DRAWN = 4  # of a group in which each image is drawn several times
SMALL = 48  # pixels per side: images up to that size are shown without smoothing
MIN_GAP = 0.005  # a smaller difference counts as none: half a percent


@dataclass(frozen=True)
class ClassProbability:
    """The probability that a model gives a class."""

    name: str
    probability: float
    correct: bool

    @property
    def percent(self) -> str:
        """The probability as text."""
        return percent(self.probability, 0 if self.probability >= 0.0995 else 1)


@dataclass(frozen=True)
class Prediction:
    """A model's prediction for an image: the three most probable classes."""

    role: str
    label: str
    top: tuple[ClassProbability, ...]


@dataclass(frozen=True)
class GalleryImage:
    """One image of the gallery, with predictions or panels; `small`: pixels are shown without smoothing."""

    source: str
    name: str
    truth: str
    small: bool
    predictions: tuple[Prediction, ...] = ()
    panels: tuple[Panel, ...] = ()
    plain: Markup = field(default_factory=Markup)


@dataclass(frozen=True)
class GalleryGroup:
    """The images of one comparison; `total` counts those not shown, too."""

    title: str
    total: int
    images: tuple[GalleryImage, ...]


@dataclass(frozen=True)
class Gallery:
    """The content of the section.

    Attributes:
        groups: one for each comparison.
        note: how to read the images.
        legend: (class, its colour), of the classes that occur.
        definitions: the images that drawings share.
    """

    groups: tuple[GalleryGroup, ...]
    note: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    definitions: Markup = field(default_factory=Markup)


@dataclass(frozen=True)
class _Comparison:
    """Two models, and how far apart they are on an image."""

    title: str
    models: tuple[ModelResult, ModelResult]
    gap: Callable[[SampleImage], float | None]


def build(run: RunData) -> Gallery:
    """All comparisons of models that the run has; where predictions are drawn, the first images too."""
    samples = read_samples(run.probe)
    renderer = PanelRenderer(run, samples)
    found = [_group(run, renderer, comparison) for comparison in _comparisons(run, scored=_scored(samples))]
    groups = [group for group in found if group is not None]
    if samples and not run.task.predicts_classes:
        first = [_drawn(renderer, sample, run.models) for sample in samples[:MAX_DRAWN]]
        groups.append(GalleryGroup("The first test images", len(first), tuple(first)))
    panels = [panel for group in groups for image in group.images for panel in image.panels]
    labels = {label for panel in panels for label in panel.classes}
    return Gallery(
        groups=tuple(groups),
        note=_note(run),
        legend=tuple((renderer.class_name(label), css_colour(label)) for label in sorted(labels)),
        definitions=renderer.definitions() if renderer.images else Markup(""),
    )


def _comparisons(run: RunData, *, scored: bool) -> list[_Comparison]:
    teacher, baseline, student = (run.model(role) for role in ("teacher", "baseline", "student"))
    title = "{} correct, {} wrong" if run.task.predicts_classes else "{} better than {}"
    pairs = [
        (teacher, student, title.format("Teacher", "student")),
        (student, teacher, title.format("Student", "teacher")),
        (student, baseline, title.format("Student", "baseline")),
    ]
    if run.task.teacher_is_reference:  # and therefore never wrong
        pairs = [
            (teacher, student, "Student differs from its teacher"),
            (student, baseline, "Student closer to its teacher than the baseline"),
        ]
    found = []
    for better, worse, text in pairs:
        if better and worse and scored:
            found.append(_Comparison(text, (better, worse), _score_gap(better.key, worse.key)))
    for file in run.files:
        if student and (file.bits or 32) < 32:
            title = f"{file.label} file differs from the student"
            found.append(_Comparison(title, (student, file), _distance(file.key)))
    return found


def _score_gap(better: str, worse: str) -> Callable[[SampleImage], float | None]:
    def gap(sample: SampleImage) -> float | None:
        scores = sample.scores
        return scores[better] - scores[worse] if better in scores and worse in scores else None

    return gap


def _distance(file: str) -> Callable[[SampleImage], float | None]:
    return lambda sample: sample.distances.get(file)


def _scored(samples: Sequence[SampleImage]) -> bool:
    """Whether the task scores single images: one that can't gives 0 to every model."""
    return any(score > 0 for sample in samples for score in sample.scores.values())


def _group(run: RunData, renderer: PanelRenderer, comparison: _Comparison) -> GalleryGroup | None:
    gaps = [(gap, sample) for sample in renderer.samples if (gap := comparison.gap(sample)) is not None]
    if not gaps:
        return None
    second = comparison.models[1].key
    # Equal gaps are ordered by the confidence of the second model; equal ones of these stay in the order of the file.
    large = [(gap, sample) for gap, sample in gaps if gap > MIN_GAP]
    found = [sample for _, sample in sorted(large, key=lambda one: (-one[0], -_confidence(one[1], second)))]
    if run.task.predicts_classes:
        images = [_classified(run, sample, comparison.models) for sample in found[:MAX_IMAGES]]
    else:
        shown = [model for model in run.models if model.role != "file" or model in comparison.models]
        images = [_drawn(renderer, sample, tuple(shown)) for sample in found[:MAX_DRAWN]]
    return GalleryGroup(comparison.title, len(found), tuple(images))


def _confidence(sample: SampleImage, key: str) -> float:
    probabilities = softmax(sample.predictions.get(key, {}).get("logits"))
    return max(probabilities) if probabilities else 0.0


def _classified(run: RunData, sample: SampleImage, compared: tuple[ModelResult, ModelResult]) -> GalleryImage:
    shown = {"teacher", "student", *(model.key for model in compared)}
    predictions = [_prediction(run, model, sample) for model in run.models if model.key in shown]
    image = embed_image(run.path / "samples", sample.file)
    small = (number(run.section("data").get("size")) or MAX_SIDE) <= SMALL
    truth, source = _class_name(run, sample.label), image.source if image else ""
    return GalleryImage(source, sample.name, truth, small, tuple(one for one in predictions if one))


def _prediction(run: RunData, model: ModelResult, sample: SampleImage) -> Prediction | None:
    probabilities = softmax(sample.predictions.get(model.key, {}).get("logits"))
    if probabilities is None:
        return None
    best = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])[:3]
    top = [ClassProbability(_class_name(run, index), probabilities[index], index == sample.label) for index in best]
    return Prediction(model.role, model.label, tuple(top))


def _drawn(renderer: PanelRenderer, sample: SampleImage, models: tuple[ModelResult, ...]) -> GalleryImage:
    found = [renderer.panel(sample, None), *(renderer.panel(sample, model) for model in models)]
    truth = "" if sample.label is None else renderer.class_name(sample.label)
    has_truth = any(panel and panel.role == "truth" for panel in found)
    plain = Markup("") if has_truth else renderer.image(sample, truth or sample.name)
    return GalleryImage("", sample.name, truth, False, panels=tuple(panel for panel in found if panel), plain=plain)


def _note(run: RunData) -> str:
    if run.task.predicts_classes and run.task.teacher_is_reference:
        return "Sorted by confidence. Bars: the three most probable classes; the true class is not known."
    if run.task.predicts_classes:
        return "Sorted by confidence of the wrong prediction. Bars: the three most probable classes; ✓: the true class."
    how = {
        "boxes": f"Boxes with a score of at least {MIN_SCORE:g}, in the colour of their class; scores on hover.",
        "pixels": "Each pixel has the colour of its class; void pixels have none.",
        "vector": "The nearest sample images by cosine similarity; ✓: the same class.",
    }.get(run.task.output_kind, "")
    score = "" if run.task.output_kind == "vector" else "Percentages: score of the single image. "
    return f"Sorted by difference. {score}{how}"


def _class_name(run: RunData, index: int | None) -> str:
    if index is None:
        return "unknown"
    return run.classes[index] if 0 <= index < len(run.classes) else f"class {index}"
