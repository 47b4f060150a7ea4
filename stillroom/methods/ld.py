"""Match the teacher's boxes, weighted by its scores. After Zheng et al. 2022, https://arxiv.org/abs/2102.12252."""

from __future__ import annotations

from torch import Tensor

from stillroom.methods._box_locations import check_locations, confidence, per_object
from stillroom.methods._checks import at_least
from stillroom.methods.method import Method
from stillroom.ops.boxes import giou
from stillroom.types import Batch, Output, Terms, at_least_float32


def ld_loss(student: Tensor, teacher: Tensor, power: float = 1.0, sides: float = 0.0) -> Tensor:
    """Sum c^power (1 - GIoU + sides * |student - teacher|_1) / max(1, sum c^power), sums over box locations.

    c is the teacher's largest class score at a location; |.|_1 is summed over the four sides, as fractions of the
    image. Sums are over all locations of all images of all processes.

    Args:
        student: [B, A, 4 + K], see `types.OutputKind`.
        teacher: the same shape.
        power: exponent of the teacher's score.
        sides: weight of the L1 distance of the sides.

    Returns:
        Scalar, at least 0, and at most 2 without `sides`; 0 when all boxes of a score above 0 are equal, and for an
        empty batch. For boxes of width 0 see `boxes.giou`.
    """
    s, t = at_least_float32(student)[..., :4], at_least_float32(teacher)
    weight = confidence(t).pow(power)
    error = 1 - giou(s, t[..., :4])
    if sides:
        error = error + sides * (s - t[..., :4]).abs().sum(2)
    return per_object((weight * error).sum(), weight)


class LD(Method):
    """Localisation distillation: regression of the teacher's boxes, weighted by the teacher's scores.

    Differs: the authors' detectors predict a distribution for each side, which is matched by KL. Here a box is four
    numbers, of any detector, and the loss is the overlap with the teacher's box, as in Yang et al. 2023,
    https://arxiv.org/abs/2308.14286. Locations are weighted by the teacher's score instead of being selected by labels,
    so that images without labels are used too.

    Use: together with `box_logits`, for two dense detectors with the same anchors or points. The weight 2 is that of
    the same term in the label loss.

    Avoid: detectors with different box locations, see `box_logits`; teachers whose boxes are worse than the labels.

    Args:
        power: at least 0; exponent of the teacher's score. The larger, the more only confident locations count.
        sides: at least 0; weight of the L1 distance of the sides.

    Raises:
        ValueError: an argument is below 0.
        BoxLocationsMismatch: SR-M336, in `setup`, where the two have different numbers of box locations.
    """

    weight = 2.0
    output_kinds = ("boxes",)

    def __init__(self, *, power: float = 1.0, sides: float = 0.0):
        super().__init__()
        at_least(0, power=power, sides=sides)
        self.power, self.sides = power, sides

    def setup(self, student: Output, teacher: Output) -> None:
        """Refuse detectors with different box locations."""
        check_locations(self, student, teacher)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"boxes": ...}`, see `ld_loss`."""
        return {"boxes": ld_loss(student.pred, teacher.pred, self.power, self.sides)}
