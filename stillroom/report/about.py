"""What a run's task is called and which figure leads: `task` in `run.json`. No task is known here by name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class About:
    """The words of `tasks.task.About`, and what the answers are; a run that says nothing sorts images into classes.

    Attributes:
        name: as a recipe writes it.
        answers: "classes", "pixels", "boxes" or "vector"; what else a file may say is shown as figures only.
        headline: the figure that leads everywhere, by its name in `metrics.json`.
        by_class: the figure with a value for each class; "" where there is none.
        truth: what answers are held against: "labels" or "teacher".
    """

    name: str = "classification"
    answers: str = "classes"
    headline: str = "accuracy"
    title: str = "Accuracy"
    by_class: str = "recall"
    by_class_title: str = "Recall by class"
    by_class_note: str = "Share of a class's test images that were recognised."
    noun: str = "image classifier"
    tag: str = "image-classification"
    use: str = "Sorting an image into one of {classes} classes"
    caution: str = "It always names one of its classes, also for an image that shows none of them."
    truth: str = "labels"

    @property
    def spoken(self) -> str:
        """The headline figure's title inside a sentence: "accuracy", "mAP"."""
        return spoken(self.title)

    @property
    def by_teacher(self) -> bool:
        """Whether answers are held against the teacher's, because no image has a label."""
        return self.truth == "teacher"

    @property
    def right(self) -> bool:
        """Whether an answer is right or wrong, and nothing between."""
        return self.answers == "classes"


def read(found: Any) -> About:
    """`task` of `run.json`; what is missing from it is empty, what is missing altogether is classification's."""
    if not isinstance(found, dict) or not found.get("headline"):
        return About()
    said = {field.name: str(found.get(field.name) or "") for field in fields(About)}
    return About(**said | {"title": said["title"] or titled(said["headline"])})


def spoken(title: str) -> str:
    """A title inside a sentence: "Pixel accuracy" -> "pixel accuracy"; "mAP" and "IoU by class" stay."""
    first = title.split(" ", 1)[0]
    return title[:1].lower() + title[1:] if first.istitle() and first.isalpha() else title


def titled(name: str, about: About | None = None) -> str:
    """A figure's name as a heading: "pixel_accuracy" -> "Pixel accuracy", "boundary_f" -> "Boundary F".

    The name of the headline figure inside it is written as the task writes it: "map50" -> "mAP50".
    """
    words = [word.upper() if len(word) == 1 and word.isalpha() else word for word in name.split("_")]
    if about and words[0].startswith(about.headline):
        return " ".join([about.title + words[0].removeprefix(about.headline), *words[1:]])
    said = " ".join(words)
    return said[:1].upper() + said[1:]
