"""COCO's average precision of boxes.

Lin et al. 2014, https://arxiv.org/abs/1405.0312. The figures are those of faster-coco-eval
(https://github.com/MiXaiLL76/faster_coco_eval), an optional package: the extra `detect`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stillroom.metrics import _matches
from stillroom.metrics._bootstrap import RESAMPLES, percentile_interval, resample_counts
from stillroom.metrics._errors import MetricPackageMissing
from stillroom.metrics._paired import paired_bootstrap
from stillroom.metrics.measurement import Measurement
from stillroom.metrics.metric import Metric
from stillroom.types import Batch, Output, OutputKind, TargetKind

SIZES = {"small": "below 32 x 32", "medium": "32 x 32 to 96 x 96", "large": "above 96 x 96"}
HOW = "COCO's average precision, IoU {iou}, by faster-coco-eval"
BOOTSTRAP = f"95 % interval from {RESAMPLES} resamples of the images"

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Boxes:
    """All boxes of N images, which are in the order of their keys, in pixels of the image as stored.

    Attributes:
        keys: [N] int64.
        sizes: [N, 2] height and width.
        found: detections [D, 7] image, left, top, right, bottom, score, class; images in ascending order.
        truth: true boxes [G, 7] image, left, top, right, bottom, crowd, class; images in ascending order.
    """

    keys: NDArray[np.int64]
    sizes: NDArray[np.int64]
    found: Floats
    truth: Floats


class AveragePrecision(Metric):
    """Precision averaged over recall, over ten IoU thresholds (0.50, 0.55 .. 0.95) and over classes: `map`, in 0..1.

    Boxes are compared in pixels of the image as stored, not of the network's input, so that small, medium and large
    mean the same as on COCO; an object's area is that of its box. True corners are rounded to a thousandth of a pixel,
    which removes the rounding of their float32 fractions. Crowds, classes without true boxes, and images that were not
    annotated with boxes are left out. At most 100 detections per class and image count; one that is not finite is
    ignored.

    The interval comes from resampling images: each is matched once, and a resample weights its boxes. Of simulated test
    sets of 30 and of 100 images, 93 % of the intervals contained the figure of all 6000 images.

    Args:
        classes: names in label order.

    Raises:
        MetricPackageMissing: SR-X710 faster-coco-eval is not installed.
    """

    output_kind: ClassVar[OutputKind] = "boxes"
    target_kind: ClassVar[TargetKind | None] = "boxes"

    def __init__(self, *, classes: tuple[str, ...]):
        if find_spec("faster_coco_eval") is None:
            raise MetricPackageMissing(metric="average precision", package="faster-coco-eval", extra="detect")
        # The number of boxes varies, so the rows of "images" hold how many rows of "found" and "truth" are theirs.
        super().__init__(classes, rows=("images", "found", "truth"))

    def update(self, output: Output, batch: Batch, reference: Output | None = None) -> None:
        """Keep the detections and the true boxes.

        Args:
            output: [B, M, 6] left, top, right, bottom in pixels of `batch.images`, score, class; class -1 is an unused
                row.
            batch: with boxes as target.
            reference: not used.
        """
        target = {name: value.cpu() for name, value in batch.target.items()}
        annotated = target["known"]
        pred, size = output.pred.detach().cpu().double(), target["size"].double()
        sides = size.flip(1).repeat(1, 2)[:, None]  # width, height, width, height
        input_sides = pred.new_tensor(batch.images.shape[-2:]).flip(0).repeat(2)
        corners = pred[..., :4] / input_sides * sides
        # A box whose right is left of its left is empty; inverted in both directions, its area would be positive.
        corners = torch.cat((corners[..., :2], torch.maximum(corners[..., :2], corners[..., 2:])), 2)
        found = torch.cat((corners, pred[..., 4:]), 2)
        valid = pred.isfinite().all(2) & (pred[..., 5] >= 0) & (pred[..., 5] < len(self.classes)) & annotated[:, None]
        label, crowd = target["labels"], target["crowd"].double()
        boxes = ((target["boxes"].double() * sides) * 1000).round() / 1000
        truth = torch.cat((boxes, crowd[..., None], label[..., None].double()), 2)
        real = (label >= 0) & annotated[:, None]
        counts = torch.stack((valid.sum(1), real.sum(1)), 1)
        images = torch.cat((batch.keys.cpu()[:, None], counts, target["size"], annotated[:, None].long()), 1)
        self._add_rows(images=images, found=found[valid], truth=truth[real])

    def compute(self) -> dict[str, Measurement]:
        """`map`, `map50`, `map75`, `ap` by class, and of objects by size: `map_small`, `map_medium`, `map_large`.

        Classes and sizes without true boxes are left out; empty where no image has a true box.
        """
        boxes = self._boxes()
        if boxes is None:
            return {}
        coco, resampled = _coco(boxes, len(self.classes)), self._resampled(boxes)
        figures = {}
        for name, at, iou, chosen in (
            ("map", 0, "0.50 to 0.95", slice(None)),
            ("map50", 1, "0.50", slice(0, 1)),
            ("map75", 2, "0.75", slice(5, 6)),
        ):
            value = float(coco.stats[at])
            figures[name] = _figure(boxes, value, HOW.format(iou=iou), _mean(resampled[:, :, chosen], (1, 2)))
        figures["ap"] = self._by_class(boxes, coco, _mean(resampled, 2))
        for at, (name, pixels) in enumerate(SIZES.items(), start=3):
            if coco.stats[at] >= 0:
                how = f"{HOW.format(iou='0.50 to 0.95')}, of objects {pixels} pixels"
                figures[f"map_{name}"] = Measurement(value=float(coco.stats[at]), how=how, n=len(boxes.sizes))
        return figures

    def value(self) -> float:
        """`map` without its interval; 0 where no image has a box."""
        boxes = self._boxes()
        return 0.0 if boxes is None else float(_coco(boxes, len(self.classes)).stats[0])

    def paired(self, other: Metric) -> Measurement | None:
        """The difference of the mAPs, by a paired bootstrap."""
        assert isinstance(other, AveragePrecision)
        ours, theirs = self._boxes(), other._boxes()
        if ours is None or theirs is None:
            return None
        means = [
            lambda weights, boxes=boxes: _mean(
                weighted_average_precision(boxes.found, boxes.truth, weights, len(self.classes)), (1, 2)
            )
            for boxes in (ours, theirs)
        ]
        return paired_bootstrap(means[0], means[1], ours.keys)

    def _boxes(self) -> _Boxes | None:
        """All boxes of annotated images, in the order of the images' keys; None where there is no true box."""
        images, found, truth = self._all_rows("images"), self._all_rows("found"), self._all_rows("truth")
        if images is None or found is None or truth is None or not (truth[:, 4] == 0).any():
            return None
        annotated = images[images[:, 5] > 0]
        order = annotated[:, 0].argsort(stable=True)
        number = torch.empty_like(order)
        number[order] = torch.arange(len(order))
        found_rows, true_rows = (_numbered(rows, annotated[:, i], number) for i, rows in ((1, found), (2, truth)))
        return _Boxes(annotated[order][:, 0].numpy(), annotated[order][:, 3:5].numpy(), found_rows, true_rows)

    def _resampled(self, boxes: _Boxes) -> Floats:
        """Average precision of each resample, [R, K, T]."""
        content = boxes.found.tobytes() + boxes.truth.tobytes() + boxes.sizes.tobytes()
        weights = resample_counts(len(boxes.sizes), content)
        return weighted_average_precision(boxes.found, boxes.truth, weights, len(self.classes))

    def _by_class(self, boxes: _Boxes, coco: Any, resampled: Floats) -> Measurement:
        precision = coco.eval["precision"][:, :, :, 0, -1]
        counts = np.bincount(boxes.truth[boxes.truth[:, 5] == 0, 6].astype(int), minlength=len(self.classes)).tolist()
        found = {k: float(precision[:, :, k].mean()) for k, count in enumerate(counts) if count}
        several = len(boxes.sizes) > 1
        ends = {k: percentile_interval(resampled[:, k], value) for k, value in found.items()} if several else {}
        how = f"{HOW.format(iou='0.50 to 0.95')}, of each class with true boxes; {BOOTSTRAP}"
        extra = {
            "ci95_by_class": {self.classes[k]: list(both) for k, both in ends.items() if both},
            "n_by_class": {self.classes[k]: counts[k] for k in found},
        }
        value = {self.classes[k]: value for k, value in found.items()}
        return Measurement(value=value, how=how, n=len(boxes.sizes), extra=extra)


def weighted_average_precision(found: Floats, truth: Floats, weights: NDArray[np.int64], classes: int) -> Floats:
    """Average precision when image i of N occurs weights[., i] times.

    Args:
        found: [D, 7], see `_Boxes`.
        truth: [G, 7].
        weights: [R, N].
        classes: K.

    Returns:
        [R, K, T] in 0..1; NaN for classes without true boxes. With all weights 1 it equals faster-coco-eval's.
    """
    parts = []
    for k in range(classes):
        ours, theirs = (rows[rows[:, 6] == k, :6] for rows in (found, truth))
        parts.append(_matches.average_precision(_matches.match_boxes(ours, theirs, weights.shape[1]), weights))
    return np.stack(parts, 1)


def _numbered(rows: Tensor, counts: Tensor, number: Tensor) -> Floats:
    """Rows [n, 6] of images that have `counts` of them -> [n, 7] with the image's number in front, sorted by it."""
    at = number.repeat_interleave(counts)
    return torch.cat((at[:, None].double(), rows.double()), 1)[at.argsort(stable=True)].numpy()


def _figure(boxes: _Boxes, value: float, how: str, resampled: Floats) -> Measurement:
    """With an interval if there are at least two images."""
    ends = percentile_interval(resampled, value) if len(boxes.sizes) > 1 else None
    count = int((boxes.truth[:, 5] == 0).sum())
    how = f"{how}; {BOOTSTRAP}" if ends else how
    return Measurement(value=value, ci95=ends, n=len(boxes.sizes), how=how, extra={"boxes": count})


def _mean(values: Floats, axes: int | tuple[int, ...]) -> Floats:
    """The mean without NaN; NaN where all are."""
    count = (~np.isnan(values)).sum(axes)
    return np.where(count > 0, np.nansum(values, axes) / np.maximum(count, 1), np.nan)


def _coco(boxes: _Boxes, classes: int) -> Any:
    """faster-coco-eval's evaluation, after `run`."""
    from faster_coco_eval import COCO, COCOeval_faster

    images = [{"id": i, "height": int(h), "width": int(w)} for i, (h, w) in enumerate(boxes.sizes)]
    sides = []
    for rows, last in ((boxes.truth, "iscrowd"), (boxes.found, "score")):
        one = COCO()
        one.dataset = {
            "images": images,
            "categories": [{"id": k, "name": str(k)} for k in range(classes)],
            "annotations": [_annotation(i, row, last) for i, row in enumerate(rows.tolist(), start=1)],
        }
        one.createIndex()
        sides.append(one)
    found = COCOeval_faster(*sides, iouType="bbox", print_function=lambda *_: None)
    found.run()
    return found


def _annotation(number: int, row: list[float], last: str) -> dict[str, Any]:
    image, left, top, right, bottom, other, label = row
    box = [left, top, right - left, bottom - top]
    fields = {"id": number, "image_id": int(image), "category_id": int(label), "bbox": box, "area": box[2] * box[3]}
    return {"iscrowd": 0} | fields | {last: int(other) if last == "iscrowd" else other}
