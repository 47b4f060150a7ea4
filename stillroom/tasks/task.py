"""The contract of a task: what the labels ask for, and how well it was done. The only reader of `batch.target`.

Nobody outside this folder, the metrics, the data and the families of models knows which tasks there are: whoever needs
to treat them apart asks the task for what it wants, or goes by `answers`.
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
    """The words by which tables, report and card speak of a task.

    Attributes:
        headline: the figure that leads everywhere; a share in 0..1, higher is better.
        title: that figure as a heading: "Accuracy", "mAP".
        by_class: the figure that has a value for each class; "" where there is none.
        by_class_title: as a heading: "Recall by class".
        by_class_note: what that figure is, in a sentence.
        noun: what the student is: "image classifier".
        tag: the hub's word for it: "image-classification".
        use: what it is for, in a sentence; `{classes}` becomes how many there are.
        caution: what its answer does not say, in a sentence.
        truth: what answers are held against: the labels, or, where no image has one, what the teacher says.
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

    An **answer** below is what comes out of an exported file: a network's output after `answer`. Metrics, samples and
    the export gate see answers only.

    Attributes:
        output_kind: what a network must say.
        needs: what must be known of the images.
        about: how to speak of it.
        finetune: how far a teacher with pretrained weights is fitted to the data, where the recipe does not say.
        gates: bits of an exported file -> least agreement with its network, where the recipe does not say.
        tolerance: greatest `max_difference` of a float file.
        taught: whether labels teach: without, the untaught baseline is the student as it was before training.
        mixes: whether two images may be mixed into one: `loss` charges for both targets, or reads none.
        gallery: splits that the metrics compare test images with, and that are therefore shown too.
        any_size: whether an exported file takes images of any height and width.
    """

    output_kind: ClassVar[OutputKind]
    needs: ClassVar[TargetKind]
    about: ClassVar[TaskInfo]
    finetune: ClassVar[Literal["none", "head", "all"]]
    gates: ClassVar[Mapping[int, float]]
    tolerance: ClassVar[float]
    taught: ClassVar[bool]
    mixes: ClassVar[bool]
    gallery: ClassVar[tuple[str, ...]]
    any_size: ClassVar[bool]

    def outputs(self, classes: int) -> int | None:
        """How many numbers a network must give for each place it speaks about; None: as many as it has."""

    def loss(self, output: Output, batch: Batch) -> Terms:
        """What the labels charge the student: raw, named scalars; none where they teach nothing."""

    def answer(self, output: Output, images: Tensor) -> Output:
        """What a user gets: the last step from a network's output, exported with it. `images` gives height, width."""

    def decode(self, answer: Output) -> Tensor:
        """The prediction a person would read, [B, ...], small enough to keep for every image."""

    def score(self, answer: Output, batch: Batch) -> Tensor:
        """How right each image is, [B] in 0..1, higher is better."""

    def same(self, answer: Output, other: Output) -> Tensor:
        """How alike two answers to the same image are, [B] in 0..1; 1 where nobody would see a difference."""

    def metrics(self, classes: tuple[str, ...], gallery: Collection[int] = ()) -> list[Metric]:
        """Fresh metrics, the one with the headline figure first.

        Args:
            classes: names in label order.
            gallery: keys of the images that are only compared with.
        """

    def agreement(self, classes: tuple[str, ...], gallery: Collection[int] = ()) -> Metric:
        """A fresh metric of how far answers agree with a reference's, whose figure is called `agreement`."""

    def chance(self, classes: int) -> float:
        """The headline figure of somebody who guesses; 0 where that is not worth a warning."""

    def sketch(self, answer: Output, row: int) -> Mapping[str, Any]:
        """One image's answer, to be drawn: any of `logits` [K], `boxes` [n][6], `mask` uint8 [H, W], `vector` [D].

        A box is left, top, right, bottom in pixels, as in the answer, class and score. 255 in a mask is void.
        """

    def truth(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """One image's target, to be drawn: `class`, or `mask` as above, or `boxes`, but in shares of the image."""
