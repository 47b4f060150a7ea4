"""One class an image."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from stillroom.metrics.accuracy import Accuracy
from stillroom.metrics.agreement import Agreement
from stillroom.metrics.metric import Metric, decide
from stillroom.metrics.recall import Recall
from stillroom.tasks.task import TaskInfo
from stillroom.types import Batch, Output, OutputKind, TargetKind, Terms


class Classification:
    """Cross-entropy of logits [B, K] with labels [B].

        ce = -mean_b log softmax(logits_b)[label_b]

    An image without a label (-1) charges nothing and counts as an image: the mean is the same however a batch is cut.
    One that is mixed of two charges share_b times its own label's term and 1 - share_b times the other's, each where it
    is known: for mixup the paper's loss (Zhang et al. 2018, https://arxiv.org/abs/1710.09412, section 2), for cutmix
    too (Yun et al. 2019, https://arxiv.org/abs/1905.04899, eq. 1).

    At least 0; 0 when every label has probability 1. With `smoothing` s the label's distribution is
    (1 - s) one-hot + s / K (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7), and the least
    possible value is that distribution's entropy.

    Args:
        smoothing: 0 to below 1. Smoothed teachers teach worse (Müller et al. 2019, https://arxiv.org/abs/1906.02629).
    """

    output_kind: ClassVar[OutputKind] = "classes"
    needs: ClassVar[TargetKind] = "labels"
    finetune: ClassVar[Literal["none", "head", "all"]] = "head"
    gates: ClassVar[Mapping[int, float]] = {32: 0.995, 8: 0.98}
    tolerance: ClassVar[float] = 0.01
    taught: ClassVar[bool] = True
    mixes: ClassVar[bool] = True
    gallery: ClassVar[tuple[str, ...]] = ()
    any_size: ClassVar[bool] = False
    about: ClassVar[TaskInfo] = TaskInfo(
        headline="accuracy",
        title="Accuracy",
        by_class="recall",
        by_class_title="Recall by class",
        by_class_note="Share of a class's test images that were recognised.",
        noun="image classifier",
        tag="image-classification",
        use="Sorting an image into one of {classes} classes",
        caution="It always names one of its classes, also for an image that shows none of them.",
    )

    def __init__(self, *, smoothing: float = 0.0):
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be at least 0 and below 1, got {smoothing}")
        self.smoothing = smoothing

    def outputs(self, classes: int) -> int:
        """One logit a class."""
        return classes

    def loss(self, output: Output, batch: Batch) -> Terms:
        """`{"ce": ...}`."""
        charged = self._charged(output.pred, batch.target)
        if batch.mixed is not None:
            share = batch.mixed.share
            charged = share * charged + (1 - share) * self._charged(output.pred, batch.mixed.target)
        return {"ce": charged.mean()}

    def answer(self, output: Output, images: Tensor) -> Output:
        """The logits as they are."""
        return output

    def decode(self, answer: Output) -> Tensor:
        """The class of the largest logit, [B]; -1 where a logit is not finite."""
        return decide(answer.pred)

    def score(self, answer: Output, batch: Batch) -> Tensor:
        """1 where the largest logit is the label's, or nobody knows the label, else 0."""
        labels = batch.target.to(answer.pred.device)
        return ((self.decode(answer) == labels) | (labels < 0)).float()

    def same(self, answer: Output, other: Output) -> Tensor:
        """1 where both name the same class, else 0."""
        return (self.decode(answer) == self.decode(other)).float()

    def metrics(self, classes: tuple[str, ...], gallery: Collection[int] = ()) -> list[Metric]:
        """Accuracy, and the recall of each class."""
        return [Accuracy(classes=classes), Recall(classes=classes)]

    def agreement(self, classes: tuple[str, ...], gallery: Collection[int] = ()) -> Metric:
        """Share of images where both name the same class."""
        return Agreement(classes=classes)

    def chance(self, classes: int) -> float:
        """1 / K."""
        return 1 / classes

    def sketch(self, answer: Output, row: int) -> Mapping[str, Any]:
        """The logits."""
        return {"logits": answer.pred[row].tolist()}

    def truth(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """The label; nothing where it is not known."""
        label = int(batch.target[row])
        return {"class": label} if label >= 0 else {}

    def _charged(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[B], 0 where the label is not known."""
        return F.cross_entropy(
            logits.float(), labels, ignore_index=-1, reduction="none", label_smoothing=self.smoothing
        )
