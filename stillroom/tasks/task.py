"""The contract of a task: the loss of the labels, the last step of a prediction, and the metrics.

Only tasks, metrics and a few methods read `batch.target`. Code outside `tasks/`, `metrics/`, `data/` and `models/`
names no task: it uses the task object's methods and attributes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output, OutputKind, TargetKind, Terms


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """What tables, report and model card print about a task.

    Attributes:
        headline: name of the leading figure, a share in 0..1; higher is better.
        title: heading of that figure: "Accuracy", "mAP".
        by_class: name of the figure with one value per class; "" where there is none.
        by_class_title: heading of that figure: "Recall by class".
        by_class_note: what that figure means, in one sentence.
        noun: what the student is: "image classifier".
        tag: the task's name on the model hub: "image-classification".
        use: what the network is for, in one sentence; `{classes}` is replaced by the number of classes.
        caution: what a prediction does not tell, in one sentence.
        truth: what predictions are compared with: the labels, or the teacher's predictions where no image has a label.
    """

    headline: str
    title: str
    by_class: str = ""
    by_class_title: str = ""
    by_class_note: str = ""
    noun: str
    tag: str
    use: str
    caution: str = ""
    truth: Literal["labels", "teacher"] = "labels"


class Task(Protocol):
    """An object without parameters.

    A **prediction** below is a network's output after `postprocess`, which is what an exported file returns. Metrics,
    sample images and the export check see predictions only.

    Attributes:
        output_kind: the kind of predictions that a network must make.
        target_kind: the kind of labels that the data must have.
        info: what tables, report and card print about the task.
        finetune: which part of a teacher with pretrained weights is fitted to the data, unless the recipe says.
        min_agreement: bits of an exported file -> least agreement with the network it was made from, unless the recipe
            says.
        tolerance: greatest `max_difference` of a float file.
        has_label_loss: whether `loss` has terms. If not, the baseline is the student before training.
        supports_mixing: whether two images may be mixed into one: `loss` uses both targets, or none.
        gallery_splits: splits that the metrics compare test images with; they are run through the networks too.
        any_size: whether an exported file takes images of any height and width.
    """

    output_kind: ClassVar[OutputKind]
    target_kind: ClassVar[TargetKind]
    info: ClassVar[TaskInfo]
    finetune: ClassVar[Literal["none", "head", "all"]]
    min_agreement: ClassVar[Mapping[int, float]]
    tolerance: ClassVar[float]
    has_label_loss: ClassVar[bool]
    supports_mixing: ClassVar[bool]
    gallery_splits: ClassVar[tuple[str, ...]]
    any_size: ClassVar[bool]

    def num_outputs(self, classes: int) -> int | None:
        """Outputs of the network's head per image, pixel or box location; None: the width of the backbone."""

    def loss(self, output: Output, batch: Batch) -> Terms:
        """The loss of the labels: raw, named scalars; none where `has_label_loss` is False."""

    def postprocess(self, output: Output, images: Tensor) -> Output:
        """A network's output -> the prediction. This step is exported with the network.

        Args:
            output: of the network.
            images: [B, C, H, W], for their height and width.
        """

    def decode(self, prediction: Output) -> Tensor:
        """The prediction in readable form, [B, ...]: class indices, boxes or vectors. Kept for a whole split."""

    def score_per_image(self, prediction: Output, batch: Batch) -> Tensor:
        """How correct the prediction is for each image, [B] in 0..1; higher is better."""

    def agreement_per_image(self, prediction: Output, other: Output) -> Tensor:
        """How similar two predictions of the same images are, [B] in 0..1; 1 where they look the same."""

    def metrics(self, classes: tuple[str, ...], gallery_keys: Collection[int] = ()) -> list[Metric]:
        """New metrics; the first one computes the headline figure.

        Args:
            classes: class names in label order.
            gallery_keys: keys of the gallery images, which are searched but not scored.
        """

    def agreement_metric(self, classes: tuple[str, ...], gallery_keys: Collection[int] = ()) -> Metric:
        """A new metric of the agreement with reference predictions; its figure is called `agreement`."""

    def chance_level(self, classes: int) -> float:
        """The headline figure of random guessing; 0 where no warning about it is needed."""

    def drawable(self, prediction: Output, row: int) -> Mapping[str, Any]:
        """One image's prediction for drawing: any of `logits` [K], `boxes` [n][6], `mask` uint8 [H, W], `vector` [D].

        A box is left, top, right, bottom in pixels of the images, class, score. 255 in a mask is void.
        """

    def drawable_target(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """One image's target for drawing: `class`, `mask` as above, or `boxes` with sides as fractions of the image."""
