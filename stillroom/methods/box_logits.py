"""Match the class scores of dense detectors. Yang et al. 2023, https://arxiv.org/abs/2308.14286."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._box_locations import check_locations, confidence, per_object
from stillroom.methods._checks import at_least
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def box_logits_loss(student: Tensor, teacher: Tensor, focus: float = 1.0) -> Tensor:
    """Sum |p_t - p_s|^focus KL(p_t, p_s) / max(1, sum_locations max_k p_t), p the sigmoid of a class's logit.

    KL(p, q) = p log(p / q) + (1 - p) log((1 - p) / (1 - q)): binary cross-entropy minus the teacher's entropy, so that
    its gradient is that of cross-entropy and equal scores give 0. Sums are over all box locations and classes of all
    images of all processes, so that locations which the teacher predicts as background contribute too.

    Args:
        student: [B, A, 4 + K], see `types.OutputKind`.
        teacher: the same shape.
        focus: exponent of the score difference, at least 0; 0 weights all differences equally.

    Returns:
        Scalar in nats, at least 0; 0 for equal scores, and for an empty batch.
    """
    s, t = at_least_float32(student)[..., 4:], at_least_float32(teacher)
    p = t[..., 4:].sigmoid()
    entropy = F.binary_cross_entropy_with_logits(t[..., 4:], p, reduction="none")
    divergence = F.binary_cross_entropy_with_logits(s, p, reduction="none") - entropy
    # Clamped, because the derivative of the power is infinite at 0 for focus < 1.
    difference = (p - s.sigmoid()).abs().clamp_min(1e-12).pow(focus) if focus else 1.0
    return per_object((difference * divergence.clamp_min(0)).sum(), confidence(t))


class BoxLogits(Method):
    """Binary-classification distillation: the class scores at each box location are regressed, class by class.

    Differs: the sum is divided by the teacher's total confidence, which needs no labels. The teacher's entropy is
    subtracted, so that the loss of equal networks is 0. Scores are the final ones, which include centre-ness or
    softmax.

    Use: two dense detectors with the same anchors or points, together with `ld`.

    Avoid: detectors with different box locations. The queries of a transformer have no fixed order, so that the i-th
    queries of two networks are unrelated even if there are equally many; take `pseudo_labels`, which needs no common
    locations.

    Args:
        focus: exponent of the score difference, at least 0. The authors use 1; 2 is that of quality focal loss.

    Raises:
        ValueError: `focus` is below 0.
        BoxLocationsMismatch: SR-M336, in `setup`, where the two have different numbers of box locations.
    """

    weight = 1.0
    output_kinds = ("boxes",)

    def __init__(self, *, focus: float = 1.0):
        super().__init__()
        at_least(0, focus=focus)
        self.focus = focus

    def setup(self, student: Output, teacher: Output) -> None:
        """Refuse detectors with different box locations."""
        check_locations(self, student, teacher)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"scores": ...}`, see `box_logits_loss`."""
        return {"scores": box_logits_loss(student.pred, teacher.pred, self.focus)}
