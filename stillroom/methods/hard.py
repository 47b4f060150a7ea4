"""Use the teacher's predicted class as the label. Touvron et al. 2021, https://arxiv.org/abs/2012.12877, eq. 3."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from stillroom.methods._logits import paired_rows, rows
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms


def hard_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """-log softmax(student)[argmax teacher]: cross-entropy with the teacher's predicted class, a mean over all rows.

    Only the index of the teacher's largest logit counts.

    Args:
        student: logits [B, K] or [B, K, ...]; classes on axis 1.
        teacher: logits of the same shape.

    Returns:
        Scalar in nats, above 0; near 0 when the student's probability of the teacher's class is near 1. It is not 0 for
        equal networks. 0 for an empty batch.
    """
    s, t = rows(student), rows(teacher)
    return F.cross_entropy(s, t.argmax(1)) if s.numel() else s.sum()


class Hard(Method):
    """The teacher's predicted classes as labels, for any prediction with classes on axis 1.

    Differs: the authors train a second head, with its own token, by this loss; here it is applied to the student's
    prediction. Their weight is 0.5, with 0.5 for the cross-entropy of the labels.

    Use: where augmentation may hide or change what an image shows, because the teacher predicts what is left; and for
    images without labels. It has nothing to tune.

    Avoid: for few images, or with images that show none of the classes: the predicted class carries no information
    about the other classes, which is most of what `hinton` transfers.

    Args:
        standardised: standardise the student's logits first. The teacher's classes stay the same. The loss is then
            bounded away from 0, because the student's confidence is bounded.
    """

    weight = 0.5

    def __init__(self, *, standardised: bool = False):
        super().__init__()
        self.standardised = standardised

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"ce": ...}`, see `hard_loss`."""
        return {"ce": hard_loss(*paired_rows(student.pred, teacher.pred, standardised=self.standardised))}
