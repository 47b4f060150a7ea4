"""A vector an image: near for images that are alike. No label teaches it; labels, where there are some, only judge."""

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
    """Vectors [B, D] of length 1, so that the product of two is their cosine.

    Methods alone teach the student; it may be of another width than its teacher. Test images are compared with the
    training images: by their k nearest neighbours (the headline) and by a linear probe. Labels are read by these
    metrics and by nothing else: -1 stands for an image that has none, and images without any label at all still have
    the figure `agreement`.

    The gate of int8 files is loose because the nearest of several near images is a close call. Of MobileNetV2's 1280
    features of 120 photos of flowers, whose nearest of 350 others was sought, 85 % kept theirs in int8 (87 % with
    ranges by percentiles), while `knn` went from 0.80 to 0.78 (0.79). The float file kept all of them.

    Args:
        k: neighbours that vote in `knn`, at least 1.
    """

    output_kind: ClassVar[OutputKind] = "vector"
    needs: ClassVar[TargetKind] = "labels"
    finetune: ClassVar[Literal["none", "head", "all"]] = "none"
    gates: ClassVar[Mapping[int, float]] = {32: 0.99, 8: 0.75}
    tolerance: ClassVar[float] = 0.01
    taught: ClassVar[bool] = False
    mixes: ClassVar[bool] = True
    gallery: ClassVar[tuple[str, ...]] = ("train",)
    any_size: ClassVar[bool] = False
    about: ClassVar[TaskInfo] = TaskInfo(
        headline="knn",
        title="k-NN accuracy",
        noun="image embedder",
        tag="image-feature-extraction",
        use="Turning an image into a vector that lies near those of images like it",
        caution="It says how alike two images are, not what is in them, and only alike in the way of its teacher.",
    )

    def __init__(self, *, k: int = 5):
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.k = k

    def outputs(self, classes: int) -> None:
        """As many numbers as the backbone has."""
        return None

    def loss(self, output: Output, batch: Batch) -> Terms:
        """Nothing: labels do not teach."""
        return {}

    def answer(self, output: Output, images: Tensor) -> Output:
        """The vector divided by its length, in float32; a vector of zeros stays one."""
        return Output(pred=F.normalize(output.pred.float(), dim=1))

    def decode(self, answer: Output) -> Tensor:
        """The vector, [B, D]."""
        return answer.pred

    def score(self, answer: Output, batch: Batch) -> Tensor:
        """Zeros: a vector alone is neither right nor wrong, only its distances to other images' are."""
        return answer.pred.new_zeros(len(answer.pred))

    def same(self, answer: Output, other: Output) -> Tensor:
        """1 - |a - b|² / 2, which is the cosine, at least 0; 0 too for vectors that are not finite or of other widths.

        Written as a distance so that equal vectors have exactly 1, however their lengths are rounded.
        """
        if answer.pred.shape != other.pred.shape:
            return answer.pred.new_zeros(len(answer.pred))
        apart = (answer.pred - other.pred.to(answer.pred.device)).square().sum(1)
        return (1 - apart / 2).clamp(0, 1).nan_to_num(nan=0.0)

    def metrics(self, classes: tuple[str, ...], gallery: Collection[int] = ()) -> list[Metric]:
        """k-NN accuracy and recall@k, and the linear probe."""
        return [Retrieval(classes=classes, gallery=gallery, k=self.k), Probe(classes=classes, gallery=gallery)]

    def agreement(self, classes: tuple[str, ...], gallery: Collection[int] = ()) -> Metric:
        """Share of images for which both find the same image nearest."""
        return Neighbours(classes=classes, gallery=gallery)

    def chance(self, classes: int) -> float:
        """1 / K; 0 where there are no classes."""
        return 1 / classes if classes else 0.0

    def sketch(self, answer: Output, row: int) -> Mapping[str, Any]:
        """The vector."""
        return {"vector": answer.pred[row].tolist()}

    def truth(self, batch: Batch, row: int) -> Mapping[str, Any]:
        """The label; nothing where it is not known."""
        label = int(batch.target[row])
        return {"class": label} if label >= 0 else {}
