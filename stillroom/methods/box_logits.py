"""Score every class of every place as the teacher does. Yang et al. 2023, https://arxiv.org/abs/2308.14286."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._checks import at_least
from stillroom.methods._places import alike, confidence, shared
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32


def box_logits_loss(student: Tensor, teacher: Tensor, focus: float = 1.0) -> Tensor:
    """Sum |p_t - p_s|^focus KL(p_t, p_s) / max(1, sum_places max_k p_t), p the sigmoid of a class's logit.

    KL(p, q) = p log(p / q) + (1 - p) log((1 - p) / (1 - q)): binary cross-entropy less the teacher's entropy, so that
    its gradient is cross-entropy's and equal networks pay nothing. Sums are over all places of all images of all
    processes. Classes are charged one by one: a place that the teacher takes for background teaches too.

    Args:
        student: [B, A, 4 + K], see `types.OutputKind`.
        teacher: the same shape.
        focus: how much more a large difference counts; 0 counts all alike.

    Returns:
        Scalar in nats, at least 0; 0 where all scores are equal, and for an empty batch.
    """
    s, t = at_least_float32(student)[..., 4:], at_least_float32(teacher)
    p = t[..., 4:].sigmoid()
    entropy = F.binary_cross_entropy_with_logits(t[..., 4:], p, reduction="none")
    apart = F.binary_cross_entropy_with_logits(s, p, reduction="none") - entropy
    # Where the two are equal the power's slope may be without bound, and there is nothing to learn.
    gap = (p - s.sigmoid()).abs().clamp_min(1e-12).pow(focus) if focus else 1.0
    return shared((gap * apart.clamp_min(0)).sum(), confidence(t))


class BoxLogits(Method):
    """Binary-classification distillation: each place's scores are regressed, class by class, as a detector's are.

    Differs: the sum is divided by how much the teacher sees, which needs no label. The teacher's entropy is taken off,
    so that equal networks pay nothing. A score is the final one, with centre-ness or softmax in it.

    Use: two dense detectors with the same anchors or points, beside `ld`.

    Avoid: detectors whose places are not the same: queries of a transformer come in no order, and of two of them the
    i-th of one is not the i-th of the other, even if there are equally many. `pseudo_labels` needs no places.

    Args:
        focus: exponent of the difference of scores, at least 0; the authors' 1. 2 is the quality focal loss's.

    Raises:
        ValueError: `focus` is below 0.
        BoxLocationsMismatch: SR-M336, in `setup`, where the two have unequal numbers of places.
    """

    weight = 1.0
    output_kind = ("boxes",)

    def __init__(self, *, focus: float = 1.0):
        super().__init__()
        at_least(0, focus=focus)
        self.focus = focus

    def setup(self, student: Output, teacher: Output) -> None:
        """Refuse detectors of unlike places."""
        alike(self, student, teacher)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"scores": ...}`, see `box_logits_loss`."""
        return {"scores": box_logits_loss(student.pred, teacher.pred, self.focus)}
