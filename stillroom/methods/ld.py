"""Put a box where the teacher puts it, if it is sure. After Zheng et al. 2022 (LD), https://arxiv.org/abs/2102.12252."""

from __future__ import annotations

from torch import Tensor

from stillroom.methods._checks import at_least
from stillroom.methods._places import alike, confidence, shared
from stillroom.methods.method import Method
from stillroom.ops.boxes import giou
from stillroom.types import Batch, Output, Terms, at_least_float32


def ld_loss(student: Tensor, teacher: Tensor, power: float = 1.0, sides: float = 0.0) -> Tensor:
    """sum_places c^power (1 - GIoU + sides * |student - teacher|_1) / max(1, sum_places c^power).

    c is the greatest score of a place, as the teacher has it; the length |.|_1 is in shares of the image, over the four
    sides. Sums are over all places of all images of all processes.

    Args:
        student: [B, A, 4 + K], see `types.OutputKind`.
        teacher: the same shape.
        power: of the teacher's score.
        sides: weight of the differences of the sides.

    Returns:
        Scalar in 0..2, with `sides` above; 0 where all boxes that the teacher believes in are equal, and for an empty
        batch. What a box of width 0 is worth see `boxes.giou`.
    """
    s, t = at_least_float32(student)[..., :4], at_least_float32(teacher)
    sure = confidence(t).pow(power)
    apart = 1 - giou(s, t[..., :4])
    if sides:
        apart = apart + sides * (s - t[..., :4]).abs().sum(2)
    return shared((sure * apart).sum(), sure)


class LD(Method):
    """Localisation distillation: boxes near the teacher's, each as important as the teacher is sure of it.

    Differs: the authors' detectors give a distribution for each side, which is matched by KL. A box here is four
    numbers, of any detector, so the overlap with the teacher's box is charged, as in Yang et al. 2023,
    https://arxiv.org/abs/2308.14286. The region where it is charged is not found by labels: the teacher's
    score is the weight, so that images without labels teach as well.

    Use: beside `box_logits`, two dense detectors with the same anchors or points. The weight 2 is that of the same term
    in the label loss.

    Avoid: detectors whose places are not the same, see `box_logits`; teachers with worse boxes than the labels.

    Args:
        power: of the teacher's score, at least 0; larger, and only sure places teach.
        sides: weight of L1 of the sides beside the overlap, at least 0.

    Raises:
        ValueError: an argument is below 0.
        BoxLocationsMismatch: SR-M336, in `setup`, where the two have unequal numbers of places.
    """

    weight = 2.0
    output_kind = ("boxes",)

    def __init__(self, *, power: float = 1.0, sides: float = 0.0):
        super().__init__()
        at_least(0, power=power, sides=sides)
        self.power, self.sides = power, sides

    def setup(self, student: Output, teacher: Output) -> None:
        """Refuse detectors of unlike places."""
        alike(self, student, teacher)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"boxes": ...}`, see `ld_loss`."""
        return {"boxes": ld_loss(student.pred, teacher.pred, self.power, self.sides)}
