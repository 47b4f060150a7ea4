"""One vector per image, close for similar images. Labels, if there are any, are used for evaluation only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from stillroom.metrics.metric import Metric
from stillroom.metrics.neighbours import Neighbours
from stillroom.metrics.probe import Probe
from stillroom.metrics.retrieval import Retrieval
from stillroom.tasks.task import TaskInfo
from stillroom.types import Batch, Output, OutputKind, TargetKind, Terms


class Embedding:
    """Vectors [B, D] of length 1, so that the dot product of two is their cosine.

    The student is trained by methods alone, and its width may differ from the teacher's. Test images are compared with
    the training images: by their k nearest neighbours (the headline figure) and by a linear probe. Only these two
    metrics use labels; an image with label -1 has none. Without any label there is still the figure `agreement`.

    `min_agreement` of int8 files is low because the nearest of several similar images changes easily. For MobileNetV2's
    1280 features of 120 photos of flowers, each compared with 350 other photos, 85 % had the same nearest photo in int8
    (87 % with ranges by percentiles), while `knn` fell from 0.80 to 0.78 (0.79). In float32 all had the same.

    Args:
        k: neighbours that vote in `knn`, at least 1.

    Raises:
        ValueError: `k` is below 1.
    """

    output_kind: ClassVar[OutputKind] = "vector"
    target_kind: ClassVar[TargetKind] = "labels"
    finetune: ClassVar[Literal["none", "head", "all"]] = "none"
    min_agreement: ClassVar[Mapping[int, float]] = {32: 0.99, 8: 0.75}
    tolerance: ClassVar[float] = 0.01
    has_label_loss: ClassVar[bool] = False
    supports_mixing: ClassVar[bool] = True
    gallery_splits: ClassVar[tuple[str, ...]] = ("train",)
    any_size: ClassVar[bool] = False
    info: ClassVar[TaskInfo] = TaskInfo(
        headline="knn",
        title="k-NN accuracy",
        noun="image embedder",
        tag="image-feature-extraction",
        use="Mapping an image to a vector that is close to those of similar images",
        caution="It tells how similar two images are, by its teacher's measure, not what they show.",
    )

    def __init__(self, *, k: int = 5):
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.k = k

    def num_outputs(self, classes: int) -> None:
        """None: the width of the backbone."""
        return None

    def loss(self, output: Output, batch: Batch) -> Terms:
        """Empty: labels are not used in training."""
        return {}

    def postprocess(self, output: Output, images: Tensor) -> Output:
        """The vector divided by its length, in float32; a vector of zeros is unchanged."""
        return Output(pred=F.normalize(output.pred.float(), dim=1))

    def decode(self, prediction: Output) -> Tensor:
        """The vector, [B, D]."""
        return prediction.pred

    def score_per_image(self, prediction: Output, batch: Batch) -> Tensor:
        """Zeros: a single vector is neither right nor wrong."""
        return prediction.pred.new_zeros(len(prediction.pred))

    def agreement_per_image(self, prediction: Output, other: Output) -> Tensor:
        """1 - |a - b|² / 2 clamped to 0..1, which is the cosine; 0 for vectors that are not finite or differ in width.

        Computed from the distance, so that equal vectors have exactly 1 in spite of rounded lengths.
        """
        if prediction.pred.shape != other.pred.shape:
            return prediction.pred.new_zeros(len(prediction.pred))
        distance = (prediction.pred - other.pred.to(prediction.pred.device)).square().sum(1)
        return (1 - distance / 2).clamp(0, 1).nan_to_num(nan=0.0)

    def metrics(self, classes: tuple[str, ...], gallery_keys: Collection[int] = ()) -> list[Metric]:
        """k-NN accuracy and recall@k, and the linear probe."""
        return [
            Retrieval(classes=classes, gallery_keys=gallery_keys, k=self.k),
            Probe(classes=classes, gallery_keys=gallery_keys),
        ]

    def agreement_metric(self, classes: tuple[str, ...], gallery_keys: Collection[int] = ()) -> Metric:
        """Share of images that have the same nearest image in both."""
        return Neighbours(classes=classes, gallery_keys=gallery_keys)

    def chance_level(self, classes: int) -> float:
        """1 / K; 0 without classes."""
        return 1 / classes if classes else 0.0

    def drawable(self, prediction: Output, row: int) -> Mapping[str, Any]:
        """The vector."""
        return {"vector": prediction.pred[row].tolist()}

    def drawable_target(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """The label; empty where it is unknown."""
        label = int(batch.target[row])
        return {"class": label} if label >= 0 else {}
