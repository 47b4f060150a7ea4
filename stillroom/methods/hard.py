"""Learn the teacher's first choice as a label. Touvron et al. 2021, https://arxiv.org/abs/2012.12877, eq. 3."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._logits import paired_rows, rows
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def hard_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """-log softmax(student)[argmax teacher]: cross-entropy with the teacher's choice, a mean over all but the classes.

    Only the teacher's largest logit counts: any change that keeps it the largest changes nothing.

    Args:
        student: logits [B, K] or [B, K, ...]; classes on axis 1.
        teacher: logits of the same shape.

    Returns:
        Scalar in nats, at least 0, which it nears when the student is sure of every choice of the teacher; two equal
        networks that are not sure pay. An empty batch costs 0.
    """
    s, t = rows(student), rows(teacher)
    return F.cross_entropy(s, t.argmax(1)) if s.numel() else s.sum()


class Hard(Method):
    """The teacher's choices as labels, for any prediction with classes on axis 1.

    Differs: the authors train a second head, fed by a token of its own, on this loss. Here it acts on the one
    prediction that there is. Their weight of it is 0.5, and that of the labels' cross-entropy the other 0.5.

    Use: where the augmentation may hide or change what an image shows, since the teacher names what is left of it; and
    for images without labels. It has nothing to tune.

    Avoid: for few images or for classes that are absent from them: a choice says nothing of the other classes, and
    what the teacher thinks of those is most of what `hinton` teaches.

    Args:
        standardised: standardise the student's logits first. The teacher's choices stay the same; the loss then
            cannot come near 0, since the student's certainty is bounded.
    """

    weight = 0.5

    def __init__(self, *, standardised: bool = False):
        super().__init__()
        self.standardised = standardised

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"ce": ...}`, see `hard_loss`."""
        return {"ce": hard_loss(*paired_rows(student.pred, teacher.pred, standardised=self.standardised))}
