"""The task of a run as report and card present it: `task` in `run.json`. No task is known here by name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class TaskDescription:
    """The fields of `tasks.task.TaskInfo`, and the kind of output. The defaults describe image classification.

    Attributes:
        name: as in a recipe.
        output_kind: "classes", "pixels", "boxes" or "vector"; outputs of any other kind are shown as metrics only.
        headline: the main metric, by its name in `metrics.json`.
        by_class: the metric with a value for each class; "" if there is none.
        truth: the reference of the metrics: "labels" or "teacher".
    """

    name: str = "classification"
    output_kind: str = "classes"
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
    def metric_name(self) -> str:
        """The title of the headline metric inside a sentence: "accuracy", "mAP"."""
        return in_sentence(self.title)

    @property
    def teacher_is_reference(self) -> bool:
        """Whether outputs are compared with the teacher's, because no image has a label."""
        return self.truth == "teacher"

    @property
    def predicts_classes(self) -> bool:
        """Whether a prediction is one class, and therefore either correct or wrong."""
        return self.output_kind == "classes"


def read(record: Any) -> TaskDescription:
    """`task` of `run.json`. A missing field is empty; a missing record is image classification."""
    if not isinstance(record, dict) or not record.get("headline"):
        return TaskDescription()
    record = record | {"output_kind": record.get("answers")}  # its name in run.json
    values = {field.name: str(record.get(field.name) or "") for field in fields(TaskDescription)}
    return TaskDescription(**values | {"title": values["title"] or metric_title(values["headline"])})


def in_sentence(title: str) -> str:
    """A title inside a sentence: "Pixel accuracy" -> "pixel accuracy"; "mAP" and "IoU by class" stay."""
    first = title.split(" ", 1)[0]
    return title[:1].lower() + title[1:] if first.istitle() and first.isalpha() else title


def metric_title(name: str, task: TaskDescription | None = None) -> str:
    """The name of a metric as a heading: "pixel_accuracy" -> "Pixel accuracy", "boundary_f" -> "Boundary F".

    A leading name of the headline metric is written as the task writes it: "map50" -> "mAP50".
    """
    words = [word.upper() if len(word) == 1 and word.isalpha() else word for word in name.split("_")]
    if task and words[0].startswith(task.headline):
        return " ".join([task.title + words[0].removeprefix(task.headline), *words[1:]])
    title = " ".join(words)
    return title[:1].upper() + title[1:]
