"""Match relations between tokens in the last attention. Wang et al. 2020, https://arxiv.org/abs/2002.10957, sec. 3."""

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
"""Which products are compared: queries with keys (the attention map), or queries, keys or values with themselves."""

MAX_HEADS = 12  # relation heads by default: those of a ViT-B


def minilm_loss(student: Tensor, teacher: Tensor, relation: Relation = "vv", heads: int = 1) -> Tensor:
    """KL(R_t || R_s), R = softmax(a b^T / sqrt(d)) of each relation head: a mean over images, heads and tokens.

    a and b are the queries, keys or values of all tokens, split into `heads` slices of d = D / heads channels,
    independent of the network's own heads (MiniLMv2, Wang et al. 2021, https://arxiv.org/abs/2012.15828). With the
    network's own number of heads, "qk" is the attention map.

    Args:
        student: queries, keys and values concatenated, [B, N, 3 D].
        teacher: [B, N, 3 D'], of the same tokens; any width.
        relation: which two are multiplied.
        heads: divides D and D'.

    Returns:
        Scalar in nats, at least 0; 0 for equal relations, and for an empty batch. Products are computed in at least
        float32.
    """
    if student.numel() == 0:
        return student.sum()
    s, t = (_relations(x, relation, heads) for x in (student, teacher))
    return (t.exp() * (t - s)).sum(-1).mean()


def _relations(qkv: Tensor, relation: Relation, heads: int) -> Tensor:
    """Log softmax(a b^T / sqrt(d)), [B, N, 3 D] -> [B, heads, N, N]."""
    parts = dict(zip("qkv", at_least_float32(qkv).chunk(3, dim=2), strict=True))
    a, b = (parts[letter].unflatten(2, (heads, -1)).transpose(1, 2) for letter in relation)
    with torch.autocast(qkv.device.type, enabled=False):
        return (a * a.shape[3] ** -0.5 @ b.transpose(2, 3)).log_softmax(3)


def shared_heads(*widths: int) -> int:
    """The largest number, up to 12, that divides all widths."""
    common = gcd(*widths)
    return max(heads for heads in range(1, MAX_HEADS + 1) if common % heads == 0)


class MiniLM(Method):
    """Relations between tokens in the last attention of two ViTs. It has no trainable modules.

    Differs: proposed for language models; here tokens are patches. The default relations are the first paper's,
    attention and values; the second uses ("qq", "kk", "vv"), and for large teachers a layer before the last. Heads are
    the second paper's relation heads, at most 12 by default (48 and 64 there, for widths of 768 and 1024). Rotary
    positions and normalised queries, which some ViTs apply after the tapped layer, are not included.

    Use: from ViT to ViT of any width and depth, with or without labels. Where both networks have the same number of
    heads, set `heads` to it.

    Avoid: if one of the two is not a ViT, or has another number of patches. Memory grows with the square of the number
    of tokens.

    Args:
        relations: one or more of "qk", "qq", "kk", "vv", each a term.
        heads: relation heads; divides both widths. None: the largest number, up to 12, that does.
        student_taps: layers whose output is q, k and v concatenated, [B, N, 3 D]; if empty, that of the last attention.
        teacher_taps: layers of the teacher; the i-th is compared with the student's i-th.

    Raises:
        ValueError: a relation is unknown or named twice, or none is named; `heads` is below 1.
        IncomparableFeatures: SR-M330, in `setup`, when a tap is not q, k and v, the numbers of tokens differ, or the
            heads do not divide both widths.
    """

    weight = 1.0
    default_taps = "attention"

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
        """No trainable modules; taps that can't be compared are refused."""
        for name_s, name_t in zip(self.student_taps, self.teacher_taps, strict=True):
            s, t = student.taps[name_s], teacher.taps[name_t]
            if why := self._incomparable(s, t):
                raise IncomparableFeatures(student=name_s, teacher=name_t, s=list(s.shape), t=list(t.shape), why=why)

    def loss(self, student: Output, teacher: Output, batch: Batch, progress: float) -> Terms:
        """`{relation: ...}` for each, see `minilm_loss`; several pairs of taps are averaged."""
        taps = zip(self.student_taps, self.teacher_taps, strict=True)
        pairs = [_same_tokens(student.taps[s], teacher.taps[t]) for s, t in taps]
        return {name: torch.stack([self._loss(s, t, name) for s, t in pairs]).mean() for name in self.relations}

    def _loss(self, student: Tensor, teacher: Tensor, relation: Relation) -> Tensor:
        heads = self.heads or shared_heads(student.shape[2] // 3, teacher.shape[2] // 3)
        return minilm_loss(student, teacher, relation, heads)

    def _incomparable(self, student: Tensor, teacher: Tensor) -> str:
        """Why two taps can't be compared; "" if they can."""
        if any(tap.ndim != 3 or tap.shape[2] % 3 for tap in (student, teacher)):
            return "concatenated queries, keys and values are tokens whose width is a multiple of 3"
        s, t = _same_tokens(student, teacher)
        if s.shape[1] != t.shape[1]:
            return "relations are between tokens, and the two networks have different numbers of tokens"
        if any(tap.shape[2] // 3 % (self.heads or 1) for tap in (s, t)):
            return f"{self.heads} relation heads do not divide both widths"
        return ""


def _same_tokens(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both unchanged if they have equally many tokens; otherwise both without their prefix tokens."""
    if student.shape[1] == teacher.shape[1]:
        return student, teacher
    return to_tokens(student), to_tokens(teacher)
