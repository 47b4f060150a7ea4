"""Match who attends to whom in the last attention. Wang et al. 2020, https://arxiv.org/abs/2002.10957, sec. 3."""

from __future__ import annotations

from math import gcd
from typing import Literal, get_args

import torch
from torch import Tensor

from stillroom.methods._errors import IncomparableFeatures
from stillroom.methods._features import to_tokens
from stillroom.methods.method import Method
from stillroom.types import Batch, Output, Terms, at_least_float32

Relation = Literal["qk", "qq", "kk", "vv"]
"""Whose products are compared: queries with keys (the attention map), or one of the three with itself."""

MOST = 12  # relation heads that are taken where the recipe does not say: a ViT-B's


def minilm_loss(student: Tensor, teacher: Tensor, relation: Relation = "vv", heads: int = 1) -> Tensor:
    """KL(R_t || R_s), R = softmax(a b^T / sqrt(d)) of each relation head: a mean over images, heads and tokens.

    a and b are the queries, keys or values of all tokens, cut into `heads` slices of d = D / heads channels, whatever
    the network's own heads (MiniLMv2, Wang et al. 2021, https://arxiv.org/abs/2012.15828). With the own
    number of heads, "qk" is the attention map itself.

    Args:
        student: queries, keys and values side by side, [B, N, 3 D].
        teacher: [B, N, 3 D'], of the same tokens; another width is welcome.
        relation: which two are multiplied.
        heads: divides D and D'.

    Returns:
        Scalar in nats, at least 0; 0 when all relations agree. An empty batch costs 0. Products are never in half
        precision.
    """
    if student.numel() == 0:
        return student.sum()
    s, t = (_relations(x, relation, heads) for x in (student, teacher))
    return (t.exp() * (t - s)).sum(-1).mean()


def _relations(qkv: Tensor, relation: Relation, heads: int) -> Tensor:
    """The log of softmax(a b^T / sqrt(d)), [B, N, 3 D] -> [B, heads, N, N]."""
    parts = dict(zip("qkv", at_least_float32(qkv).chunk(3, dim=2), strict=True))
    a, b = (parts[letter].unflatten(2, (heads, -1)).transpose(1, 2) for letter in relation)
    with torch.autocast(qkv.device.type, enabled=False):
        return (a * a.shape[3] ** -0.5 @ b.transpose(2, 3)).log_softmax(3)


def shared_heads(*widths: int) -> int:
    """The most heads, up to 12, that divide all widths."""
    common = gcd(*widths)
    return max(heads for heads in range(1, MOST + 1) if common % heads == 0)


class MiniLM(Method):
    """Relations between tokens in the last attention of two ViTs. Nothing to learn beside the student.

    Differs: written for language; here tokens are patches. Defaults are the first paper's, attention and values; the
    second takes ("qq", "kk", "vv"), and from large teachers a layer before the last. Heads are the second paper's
    relation heads, at most 12 unless named (48 and 64 there, for widths of 768 and 1024). Rotary positions and
    normalised queries, which some ViTs add after the layer that is tapped, are not in the relations.

    Use: from ViT to ViT of any width and depth, labels or not: it compares how tokens relate, not what they hold. Name
    the networks' own number of heads where both have the same.

    Avoid: where one of the two is no ViT, or cuts the image into another number of patches. Memory grows with the
    square of the tokens.

    Args:
        relations: one or more of "qk", "qq", "kk", "vv", each a term.
        heads: relation heads; divides both widths. None: the most, up to 12, that do.
        student_taps: what gives q, k and v together, [B, N, 3 D]. Left out on both sides: the last attention's.
        teacher_taps: the teacher's; the i-th is compared with the student's i-th.

    Raises:
        ValueError: a relation is unknown, or none is named, or one twice; heads below 1.
        IncomparableFeatures: SR-M330, in `setup`, when a tap is no q, k and v, the tokens differ in number, or the
            heads do not divide both widths.
    """

    weight = 1.0
    reads = "attention"

    def __init__(
        self,
        *,
        relations: tuple[Relation, ...] = ("qk", "vv"),
        heads: int | None = None,
        student_taps: tuple[str, ...] = (),
        teacher_taps: tuple[str, ...] = (),
    ):
        super().__init__()
        known = get_args(Relation)
        if not relations or len(set(relations)) < len(relations) or not set(relations) <= set(known):
            raise ValueError(f"relations must be different ones of {', '.join(known)}, got {relations}")
        if heads is not None and heads < 1:
            raise ValueError(f"heads must be at least 1, got {heads}")
        self.relations, self.heads = tuple(relations), heads
        self.student_taps, self.teacher_taps = tuple(student_taps), tuple(teacher_taps)

    def setup(self, student: Output, teacher: Output) -> None:
        """Nothing is built; what can't be compared is refused."""
        for name_s, name_t in zip(self.student_taps, self.teacher_taps, strict=True):
            s, t = student.taps[name_s], teacher.taps[name_t]
            if why := self._why_not(s, t):
                raise IncomparableFeatures(student=name_s, teacher=name_t, s=list(s.shape), t=list(t.shape), why=why)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{relation: ...}` for each, see `minilm_loss`; several pairs of taps are averaged."""
        taps = zip(self.student_taps, self.teacher_taps, strict=True)
        pairs = [_same_tokens(student.taps[s], teacher.taps[t]) for s, t in taps]
        return {name: torch.stack([self._charge(s, t, name) for s, t in pairs]).mean() for name in self.relations}

    def _charge(self, student: Tensor, teacher: Tensor, relation: Relation) -> Tensor:
        heads = self.heads or shared_heads(student.shape[2] // 3, teacher.shape[2] // 3)
        return minilm_loss(student, teacher, relation, heads)

    def _why_not(self, student: Tensor, teacher: Tensor) -> str:
        """What keeps two taps from being compared; "" when nothing does."""
        if any(tap.ndim != 3 or tap.shape[2] % 3 for tap in (student, teacher)):
            return "queries, keys and values side by side are tokens of a width that 3 divides"
        s, t = _same_tokens(student, teacher)
        if s.shape[1] != t.shape[1]:
            return "relations are between tokens, and the two networks have different numbers of patches"
        if any(tap.shape[2] // 3 % (self.heads or 1) for tap in (s, t)):
            return f"{self.heads} relation heads do not divide both widths"
        return ""


def _same_tokens(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both as they are where they have equally many tokens; else both without what stands before the patches."""
    if student.shape[1] == teacher.shape[1]:
        return student, teacher
    return to_tokens(student), to_tokens(teacher)
