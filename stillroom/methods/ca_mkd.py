"""Weight teachers by accuracy, per image. Zhang et al. 2022 (CA-MKD), https://arxiv.org/abs/2201.00007, section 2."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._checks import above, at_least
from stillroom.methods._errors import NoTapFound
from stillroom.methods._features import to_vector
from stillroom.methods._logits import row_labels, rows
from stillroom.methods._target import mean_of_rows
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32

NO_FEATURE = "it has no feature that is a vector, a map or tokens; with features = 0 the predictions are enough"


def teacher_weights(ce: Tensor) -> Tensor:
    """w_p = (1 - softmax_p(ce)) / (P - 1) for each row: the lower a teacher's cross-entropy, the larger its weight.

    Args:
        ce: [P, M], cross-entropy of each of P teachers with each row's label, in nats; equal numbers, such as 0, for
            rows without a label.

    Returns:
        [P, M] in 0 .. 1 / (P - 1), summing to 1 over the teachers; 1 / P each for equal cross-entropies, and 1 for a
        single teacher.
    """
    teachers = len(ce)
    return torch.ones_like(ce) if teachers == 1 else (1 - ce.softmax(0)) / (teachers - 1)


def ca_mkd_loss(student: Tensor, teachers: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """mean_m sum_p w_pm T^2 KL(softmax(t_pm / T) || softmax(s_m / T)): Hinton's loss of each teacher, weighted by row.

    Args:
        student: logits [M, K].
        teachers: logits [P, M, K].
        weights: [P, M], from `teacher_weights`.
        temperature: T, above 0, in units of logits.

    Returns:
        Scalar in nats, at least 0; 0 when the student agrees with every teacher of weight above 0, and without rows.
    """
    log_q = F.log_softmax(student / temperature, dim=-1).expand_as(teachers)
    log_p = F.log_softmax(teachers / temperature, dim=-1)
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(2)
    return temperature**2 * mean_of_rows((weights * divergence).sum(0))


def members_loss(students: list[Tensor], teachers: list[Tensor], weights: Tensor) -> Tensor:
    """mean_b sum_p w_pb mean_d (s_pb - t_pb)^2.

    Args:
        students: P vectors [B, D_p], the student's, projected to the width of each teacher's.
        teachers: P vectors [B, D_p].
        weights: [P, B].

    Returns:
        Scalar, at least 0; 0 when all vectors of weight above 0 are equal, and without images.
    """
    errors = torch.stack([(s - t).square().mean(1) for s, t in zip(students, teachers, strict=True)])
    return mean_of_rows((weights * errors).sum(0))


class CAMKD(Method):
    """Several teachers, each weighted per image by its cross-entropy with the image's label.

    Differs: the authors weight features by the prediction of a teacher's classifier on the student's projected maps;
    here one weight is used for both parts, features are vectors, and the projection is linear, without batch norm and
    ReLU. Their code divides both sums by the number of teachers once more, leaves the features out in the first epoch,
    and has no images without a label; here these weight all teachers equally. For a mixed image the cross-entropies
    with both labels are weighted by their shares.

    Use: with several teachers (`[[teachers]]`) of different accuracy, or each accurate on different classes, and with
    labels. The mean of the teachers, from which every other method learns, gets worse with one inaccurate teacher.

    Avoid: with one teacher, where it equals `hinton`; with noisy labels, because they determine the weights.

    Args:
        temperature: above 0.
        features: at least 0; weight of the term of the pooled vectors, relative to that of the predictions; 0 leaves it
            out.

    Raises:
        ValueError: the temperature is not above 0, or the weight below 0.
        StillroomError: SR-M332, in `loss`, when there is not one class label for each prediction; SR-M333, in
            `bind_taps`, where features are used and a network has none.
    """

    weight = 1.0
    default_taps = "members"
    output_kinds = ("classes", "pixels")

    def __init__(self, *, temperature: float = 4.0, features: float = 0.0):
        super().__init__()
        above(0, temperature=temperature)
        at_least(0, features=features)
        self.temperature, self.features = temperature, features
        self.pred_taps: tuple[str, ...] = ()  # of each teacher's own predictions; () for one teacher
        self.projections = nn.ModuleList()

    def bind_taps(self, student: tuple[str, ...], teacher: tuple[str, ...]) -> None:
        """The taps of the vectors, if features are used, followed by the taps of each teacher's own predictions."""
        if self.features and not all((*student, *teacher)):
            side = "teacher" if all(student) else "student"
            raise NoTapFound(method="ca_mkd", side=side, network="an opaque network", why=NO_FEATURE)
        taps = (student, teacher) if self.features else ((), ())
        self.pred_taps = tuple(f"{number}/pred" for number in range(1, len(teacher) + 1)) if len(teacher) > 1 else ()
        super().bind_taps(taps[0], taps[1] + self.pred_taps)

    def setup(self, student: Output, teacher: Output) -> None:
        """Build a projection for each teacher."""
        found = [(to_vector(student.taps[s]), to_vector(teacher.taps[t])) for s, t in self._tap_pairs()]
        self.projections = nn.ModuleList(nn.Linear(s.shape[1], t.shape[1]).to(s.device) for s, t in found)

    def project(self, output: Output) -> Output:
        """The student's vector projected to the width of each teacher's, named after both taps."""
        named = zip(self._tap_pairs(), self.projections, strict=True)
        projected = {f"{s} ~ {t}": projection(to_vector(output.taps[s])) for (s, t), projection in named}
        return replace(output, taps=output.taps | projected)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"kl": ...}` and, with `features` above 0, `{"features": ...}`: see `ca_mkd_loss` and `members_loss`."""
        preds = [teacher.taps[name] for name in self.pred_taps] or [teacher.pred]
        z, s = torch.stack([rows(pred) for pred in preds]), rows(student.pred)
        weights = teacher_weights(_teachers_cross_entropy(z, batch))
        terms = {"kl": ca_mkd_loss(s, z, weights, self.temperature)}
        if self.features:
            ours = [at_least_float32(student.taps[f"{s} ~ {t}"]) for s, t in self._tap_pairs()]
            theirs = [to_vector(teacher.taps[t]) for _, t in self._tap_pairs()]
            image_weights = weights.unflatten(1, (len(student.pred), -1)).mean(2)  # the mean over an image's pixels
            terms["features"] = self.features * members_loss(ours, theirs, image_weights)
        return terms

    def _tap_pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.student_taps, self.teacher_taps, strict=False))  # the taps of predictions come last


def _teachers_cross_entropy(teachers: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of each teacher with each row's label, [P, M]; 0 for rows without a label."""
    ce = _cross_entropy(teachers, row_labels(batch.target, teachers[0]))
    if batch.mixed is None:
        return ce
    other = _cross_entropy(teachers, row_labels(batch.mixed.target, teachers[0]))
    return batch.mixed.share * ce + (1 - batch.mixed.share) * other


def _cross_entropy(teachers: Tensor, target: Tensor) -> Tensor:
    labels = target.clamp_min(0).expand(len(teachers), -1)
    ce = F.cross_entropy(teachers.movedim(2, 1), labels, reduction="none")
    return torch.where(target >= 0, ce, 0.0)
