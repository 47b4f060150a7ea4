"""Believe the teachers that are right. Zhang et al. 2022 (CA-MKD), https://arxiv.org/abs/2201.00007, section 2."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.methods._checks import above, at_least
from stillroom.methods._errors import NoTapFound
from stillroom.methods._features import to_vector
from stillroom.methods._logits import classes_of, rows
from stillroom.methods._target import mean
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32

ALONE = "no part gives out a vector, a map or tokens; with features = 0 the predictions are enough"


def confidence(wrong: Tensor) -> Tensor:
    """w_p = (1 - softmax_p(ce)) / (P - 1) for every row: the less a teacher is wrong, the more it counts.

    Args:
        wrong: ce [P, M], each of P teachers' cross-entropy with the label of each row, in nats; equal numbers, such as
            0, where nobody knows the label.

    Returns:
        [P, M]; the sum over teachers is 1, each is at most 1 / (P - 1). 1 / P each where all are equally wrong, and 1
        where there is one teacher.
    """
    teachers = len(wrong)
    return torch.ones_like(wrong) if teachers == 1 else (1 - wrong.softmax(0)) / (teachers - 1)


def ca_mkd_loss(student: Tensor, teachers: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """mean_m sum_p w_pm T^2 KL(softmax(t_pm / T) || softmax(s_m / T)): Hinton's loss of each teacher, weighted by rows.

    Args:
        student: logits [M, K].
        teachers: logits [P, M, K].
        weights: [P, M], of `confidence`.
        temperature: above 0, in units of logits.

    Returns:
        Scalar in nats, at least 0; 0 when the student agrees with every teacher that counts. No rows cost 0.
    """
    log_q = F.log_softmax(student / temperature, dim=-1).expand_as(teachers)
    log_p = F.log_softmax(teachers / temperature, dim=-1)
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(2)
    return temperature**2 * mean((weights * divergence).sum(0))


def members_loss(students: list[Tensor], teachers: list[Tensor], weights: Tensor) -> Tensor:
    """mean_b sum_p w_pb mean_d (s_pb - t_pb)^2.

    Args:
        students: P vectors [B, D_p], the student's as wide as each teacher's.
        teachers: P vectors [B, D_p].
        weights: [P, B].

    Returns:
        Scalar, at least 0; 0 when all vectors that count are equal. No images cost 0.
    """
    apart = torch.stack([(s - t).square().mean(1) for s, t in zip(students, teachers, strict=True)])
    return mean((weights * apart).sum(0))


class CAMKD(Method):
    """Several teachers, each weighted for each image by how well it knows the image's class.

    Differs: the authors weight features by what a teacher's classifier says of the student's projected maps; here one
    weight counts for both parts, the features are vectors, and the projection is linear, without batch norm and ReLU.
    Their code divides both sums by the number of teachers once more, leaves the features out in the first epoch, and
    knows no images without a label: those weight all teachers alike here. Of a mixed image the cross-entropy is that
    with both labels in their shares.

    Use: with several teachers (`[[teachers]]`) of unlike worth, or each good at other classes, and with labels. One
    teacher that is often wrong spoils the mean that every other method learns from.

    Avoid: with one teacher, where it is `hinton`; where labels are noisy, which it believes.

    Args:
        temperature: above 0.
        features: at least 0; weight of the vectors that the classifiers read, beside that of the predictions; 0 leaves
            them out.

    Raises:
        ValueError: the temperature is not above 0, or the weight below 0.
        StillroomError: SR-M332, in `loss`, when the labels are not one class for each prediction; SR-M333, in
            `connect`, where features count and a network has none.
    """

    weight = 1.0
    reads = "members"
    output_kind = ("classes", "pixels")

    def __init__(self, *, temperature: float = 4.0, features: float = 0.0):
        super().__init__()
        above(0, temperature=temperature)
        at_least(0, features=features)
        self.temperature, self.features = temperature, features
        self.own: tuple[str, ...] = ()  # taps of each teacher's own predictions; () of one teacher
        self.projections = nn.ModuleList()

    def connect(self, student: tuple[str, ...], teacher: tuple[str, ...]) -> None:
        """The places of the vectors, where they count; behind them every teacher's own predictions."""
        if self.features and not all((*student, *teacher)):
            side = "teacher" if all(student) else "student"
            raise NoTapFound(method="ca_mkd", side=side, network="whose parts can't be heard", why=ALONE)
        places = (student, teacher) if self.features else ((), ())
        self.own = tuple(f"{number}/pred" for number in range(1, len(teacher) + 1)) if len(teacher) > 1 else ()
        super().connect(places[0], places[1] + self.own)

    def setup(self, student: Output, teacher: Output) -> None:
        """Size a projection for each teacher."""
        found = [(to_vector(student.taps[s]), to_vector(teacher.taps[t])) for s, t in self._places()]
        self.projections = nn.ModuleList(nn.Linear(s.shape[1], t.shape[1]).to(s.device) for s, t in found)

    def project(self, output: Output) -> Output:
        """The student's vector as wide as each teacher's, under the names of both."""
        named = zip(self._places(), self.projections, strict=True)
        made = {f"{s} ~ {t}": projection(to_vector(output.taps[s])) for (s, t), projection in named}
        return replace(output, taps=output.taps | made)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{"kl": ...}` and, where they count, `{"features": ...}`: see `ca_mkd_loss` and `members_loss`."""
        said = [teacher.taps[name] for name in self.own] or [teacher.pred]
        z, s = torch.stack([rows(one) for one in said]), rows(student.pred)
        weights = confidence(_wrong(z, batch))
        terms = {"kl": ca_mkd_loss(s, z, weights, self.temperature)}
        if self.features:
            ours = [at_least_float32(student.taps[f"{s} ~ {t}"]) for s, t in self._places()]
            theirs = [to_vector(teacher.taps[t]) for _, t in self._places()]
            of_images = weights.unflatten(1, (len(student.pred), -1)).mean(2)  # of an image's pixels, the mean
            terms["features"] = self.features * members_loss(ours, theirs, of_images)
        return terms

    def _places(self) -> list[tuple[str, str]]:
        return list(zip(self.student_taps, self.teacher_taps, strict=False))  # own predictions come last


def _wrong(teachers: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of each teacher with each row's label, [P, M]; 0 without one."""
    wrong = _cross_entropy(teachers, classes_of(batch.target, teachers[0]))
    if batch.mixed is None:
        return wrong
    other = _cross_entropy(teachers, classes_of(batch.mixed.target, teachers[0]))
    return batch.mixed.share * wrong + (1 - batch.mixed.share) * other


def _cross_entropy(teachers: Tensor, target: Tensor) -> Tensor:
    known = target.clamp_min(0).expand(len(teachers), -1)
    charged = F.cross_entropy(teachers.movedim(2, 1), known, reduction="none")
    return torch.where(target >= 0, charged, 0.0)
