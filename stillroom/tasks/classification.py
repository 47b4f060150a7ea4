"""One class per image."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from stillroom.metrics.accuracy import Accuracy
from stillroom.metrics.agreement import Agreement
from stillroom.metrics.metric import Metric, predicted_class
from stillroom.metrics.recall import Recall
from stillroom.tasks.task import TaskInfo
from stillroom.types import Batch, Output, OutputKind, TargetKind, Terms


class Classification:
    """Cross-entropy of logits [B, K] with labels [B].

        ce = -mean_b log softmax(logits_b)[label_b]

    The term of an image without a label (-1) is 0, but the image counts in the mean, so that the loss does not depend
    on how a batch is split. The loss of an image mixed from two is share_b times the term of its own label plus
    1 - share_b times that of the other, 0 where a label is unknown: the loss of mixup (Zhang et al. 2018,
    https://arxiv.org/abs/1710.09412, section 2) and cutmix (Yun et al. 2019, https://arxiv.org/abs/1905.04899, eq. 1).

    In nats, at least 0; 0 when every label has probability 1. With `smoothing` s the target distribution is
    (1 - s) one-hot + s / K (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, section 7), and the minimum of the
    loss is its entropy.

    Args:
        smoothing: label smoothing, 0 to below 1. A teacher trained with it gives a worse student (Müller et al. 2019,
            https://arxiv.org/abs/1906.02629).

    Raises:
        ValueError: `smoothing` is out of range.
    """

    output_kind: ClassVar[OutputKind] = "classes"
    target_kind: ClassVar[TargetKind] = "labels"
    finetune: ClassVar[Literal["none", "head", "all"]] = "head"
    min_agreement: ClassVar[Mapping[int, float]] = {32: 0.995, 8: 0.98}
    tolerance: ClassVar[float] = 0.01
    has_label_loss: ClassVar[bool] = True
    supports_mixing: ClassVar[bool] = True
    gallery_splits: ClassVar[tuple[str, ...]] = ()
    any_size: ClassVar[bool] = False
    info: ClassVar[TaskInfo] = TaskInfo(
        headline="accuracy",
        title="Accuracy",
        by_class="recall",
        by_class_title="Recall by class",
        by_class_note="Share of a class's test images that are classified correctly.",
        noun="image classifier",
        tag="image-classification",
        use="Classifying an image into one of {classes} classes",
        caution="It always predicts one of its classes, also for an image that shows none of them.",
    )

    def __init__(self, *, smoothing: float = 0.0):
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing must be at least 0 and below 1, got {smoothing}")
        self.smoothing = smoothing

    def num_outputs(self, classes: int) -> int:
        """One logit per class."""
        return classes

    def loss(self, output: Output, batch: Batch) -> Terms:
        """`{"ce": ...}`."""
        losses = self._cross_entropy(output.pred, batch.target)
        if batch.mixed is not None:
            share = batch.mixed.share
            losses = share * losses + (1 - share) * self._cross_entropy(output.pred, batch.mixed.target)
        return {"ce": losses.mean()}

    def postprocess(self, output: Output, images: Tensor) -> Output:
        """The logits, unchanged."""
        return output

    def decode(self, prediction: Output) -> Tensor:
        """The class of the largest logit, [B]; -1 where a logit is not finite."""
        return predicted_class(prediction.pred)

    def score_per_image(self, prediction: Output, batch: Batch) -> Tensor:
        """1 where the largest logit is the label's or the label is unknown, else 0."""
        labels = batch.target.to(prediction.pred.device)
        return ((self.decode(prediction) == labels) | (labels < 0)).float()

    def agreement_per_image(self, prediction: Output, other: Output) -> Tensor:
        """1 where both predict the same class, else 0."""
        return (self.decode(prediction) == self.decode(other)).float()

    def metrics(self, classes: tuple[str, ...], gallery_keys: Collection[int] = ()) -> list[Metric]:
        """Accuracy, and the recall of each class."""
        return [Accuracy(classes=classes), Recall(classes=classes)]

    def agreement_metric(self, classes: tuple[str, ...], gallery_keys: Collection[int] = ()) -> Metric:
        """Share of images for which both predict the same class."""
        return Agreement(classes=classes)

    def chance_level(self, classes: int) -> float:
        """1 / K."""
        return 1 / classes

    def drawable(self, prediction: Output, row: int) -> Mapping[str, Any]:
        """The logits."""
        return {"logits": prediction.pred[row].tolist()}

    def drawable_target(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """The label; empty where it is unknown."""
        label = int(batch.target[row])
        return {"class": label} if label >= 0 else {}

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """[B], 0 where the label is unknown."""
        return F.cross_entropy(
            logits.float(), labels, ignore_index=-1, reduction="none", label_smoothing=self.smoothing
        )
