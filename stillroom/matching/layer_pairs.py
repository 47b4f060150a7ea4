"""Which feature of the student is compared with which of the teacher, where the recipe does not say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import log2

from stillroom.matching.feature_info import FeatureInfo, FeaturePoint
from stillroom.methods._errors import NoTapFound, TapCountMismatch

NOWHERE = FeaturePoint("", ())  # in a network without taps, such as an ONNX file

FURTHEST = 8  # stages of a network that pairs are looked for among


@dataclass(frozen=True)
class Pair:
    """One place of each network."""

    student: FeaturePoint
    teacher: FeaturePoint

    def __str__(self) -> str:
        return f"{self.student} ~ {self.teacher}"


def find_pairs(
    reads: str,
    student: FeatureInfo,
    teacher: FeatureInfo,
    *,
    named: tuple[Sequence[str], Sequence[str]] = ((), ()),
    method: str = "the method",
) -> list[Pair]:
    """The pairs for a method that compares `reads`, one of `methods.method.Reads`.

    Args:
        reads: what it compares.
        student: what of the student can be compared.
        teacher: what of the teacher can be.
        named: taps that the user named, of the student and of the teacher. One side alone is enough.
        method: for messages.

    Raises:
        NoTapFound: SR-M333 a network has nothing of that kind.
    """
    if reads == "pred" or all(named):
        return []
    if reads == "members":
        return [Pair(student.vector or NOWHERE, one.vector or NOWHERE) for one in teacher.members or (teacher,)]
    if any(named):
        return _completed(reads, student, teacher, named, method)
    ours, theirs = (_places(reads, side, who, method) for side, who in ((student, "student"), (teacher, "teacher")))
    if reads in ("stages", "edges", "middle"):
        pairs = aligned(ours, theirs)
        return [pairs[(len(pairs) - 1) // 2]] if reads == "middle" else pairs
    return [Pair(s, t) for s, t in zip(ours, theirs, strict=True)]


def pairs_by_name(
    student_taps: Sequence[str], teacher_taps: Sequence[str], student: FeatureInfo, teacher: FeatureInfo, *, method: str
) -> list[Pair]:
    """The pairs that the user named.

    Raises:
        TapCountMismatch: SR-M334 more on one side than on the other.
    """
    if student_taps and teacher_taps and len(student_taps) != len(teacher_taps):
        raise TapCountMismatch(method=method, student=len(student_taps), teacher=len(teacher_taps))
    ours, theirs = (
        [_named(t, side) for t in taps] for taps, side in ((student_taps, student), (teacher_taps, teacher))
    )
    return [Pair(s, t) for s, t in zip(ours, theirs, strict=False)]


def aligned(student: Sequence[FeaturePoint], teacher: Sequence[FeaturePoint]) -> list[Pair]:
    """Every place of the side that has fewer, with one of the other, in order: the least total `distance` of all ways.

    Strides are counted from each network's last stage, because what is known at the end is what a classifier is made
    of: three stages meet the last three of four. Of equally good ways the deepest is taken.
    """
    student, teacher = student[-FURTHEST:], teacher[-FURTHEST:]
    if len(student) > len(teacher):
        return [Pair(pair.teacher, pair.student) for pair in aligned(teacher, student)]
    shift = octaves(student[-1], teacher[-1])

    def cost(chosen: tuple[FeaturePoint, ...]) -> float:
        return round(sum(distance(s, t, shift) for s, t in zip(student, chosen, strict=True)), 6)

    ways = list(combinations(teacher, len(student)))
    best = min(reversed(ways), key=cost)
    return [Pair(s, t) for s, t in zip(student, best, strict=True)]


def octaves(student: FeaturePoint, teacher: FeaturePoint) -> float:
    """How many times the student's stride is halved to give the teacher's; 0 where one has none."""
    return log2(student.stride / teacher.stride) if student.stride and teacher.stride else 0.0


def distance(student: FeaturePoint, teacher: FeaturePoint, shift: float = 0.0) -> float:
    """How unlike two places are: octaves between their strides, less `shift`, plus the difference in depth."""
    apart = abs(octaves(student, teacher) - shift) if student.stride and teacher.stride else 0.0
    return apart + abs(student.depth - teacher.depth)


def _places(reads: str, of: FeatureInfo, side: str, method: str) -> Sequence[FeaturePoint]:
    found = _KINDS[reads](of)
    if not found:
        why = _WHY[reads] if of.places else "nothing inside it can be listened to, as in an ONNX file"
        raise NoTapFound(method=method, side=side, network=f"which has {_has(of)}", why=why)
    return found


_KINDS: dict[str, Callable[[FeatureInfo], Sequence[FeaturePoint]]] = {
    "vector": lambda of: (of.vector,) if of.vector else (),
    "last": lambda of: of.stages[-1:],
    "middle": lambda of: of.stages,
    "stages": lambda of: of.stages,
    "edges": lambda of: of.edges,
    "blocks": lambda of: (of.blocks[0], of.blocks[1], of.blocks[-1]) if len(of.blocks) > 2 else (),
    "attention": lambda of: (of.attention,) if of.attention else (),
}

_WHY = {
    "blocks": "it compares the first, the second and the last block of two ViTs",
    "attention": "it compares what one linear layer of the last attention gives out for q, k and v together",
} | dict.fromkeys(("vector", "last", "middle", "stages", "edges"), "no part gives out a map or tokens")


def _has(of: FeatureInfo) -> str:
    if not of.places:
        return "its answers and nothing else to show"
    return f"{len(of.blocks)} blocks" if of.blocks else f"{len(of.stages)} stages of maps"


def _completed(
    reads: str,
    student: FeatureInfo,
    teacher: FeatureInfo,
    named: tuple[Sequence[str], Sequence[str]],
    method: str,
) -> list[Pair]:
    """The side that was left out, found for the one that was named: for each tap the nearest place."""
    taps, own, other, side = (
        (named[0], student, teacher, "teacher") if named[0] else (named[1], teacher, student, "student")
    )
    candidates = _places(reads, other, side, method)
    pairs = []
    for tap in taps:
        place, ends = _named(tap, own), (own.member(tap).stages, other.stages)
        shift = octaves(ends[0][-1], ends[1][-1]) if all(ends) else 0.0
        partner = min(candidates, key=lambda one: distance(place, one, shift))
        pairs.append(Pair(place, partner) if named[0] else Pair(partner, place))
    return pairs


def _named(tap: str, of: FeatureInfo) -> FeaturePoint:
    """The place that a tap names, as deep as the stage that ends at or behind it."""
    of = of.member(tap)
    known = next((stage for stage in (*of.stages, *of.edges) if stage.tap == tap), None) or of.places.get(tap)
    if known is None:
        return FeaturePoint(tap, ())
    order = list(of.places)
    behind = [s.depth for s in of.stages if tap in order and order.index(s.tap) >= order.index(tap)]
    return FeaturePoint(known.tap, known.shape, known.stride, min(behind, default=known.depth))
