"""`methods = "auto"`: what to imitate, from what is known before training, with the reason.

The rules and their order are the table that docs/choosing.md prints; the evidence is there too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stillroom.recipe import Method

GAP = 0.1  # share of the teacher's MACs up to which a student counts as far behind it
DENSE = ("segmentation", "detection")


@dataclass(frozen=True)
class Facts:
    """What the choice depends on.

    Attributes:
        task: a name of `stillroom list tasks`.
        student: "convolutional" or "transformer".
        teacher: likewise.
        ratio: the student's MACs as a share of the teacher's.
        labels: whether labels are used in training.
    """

    task: str
    student: str
    teacher: str
    ratio: float
    labels: bool


@dataclass(frozen=True)
class Choice:
    """Methods for a situation, the situation's name, and why it is that one."""

    situation: str
    methods: tuple[Method, ...]
    why: str


def choose(facts: Facts) -> Choice:
    """The first of `RULES` that holds."""
    rule = next(rule for rule in RULES if rule.holds(facts))
    return Choice(rule.situation, rule.methods, rule.why.format(**vars(facts)))


@dataclass(frozen=True)
class Rule:
    """A situation, when it is there, and what to do then."""

    situation: str
    holds: Callable[[Facts], bool]
    methods: tuple[Method, ...]
    why: str


STANDARDISED = Method(name="hinton", weight=9.0, arguments={"temperature": 2.0, "standardised": True})

RULES = (
    Rule(
        "dense",
        lambda f: f.task in DENSE,
        (Method(name="hinton"), Method(name="mgd")),
        "{task} speaks of places, and a place's features say more than its class: predictions and masked features",
    ),
    Rule(
        "embedding",
        lambda f: f.task == "embedding" and f.labels,
        (Method(name="rkd"), Method(name="sp")),
        "an embedding is used by its distances, which relations keep whatever the widths",
    ),
    Rule(
        "no-labels",
        lambda f: f.task == "embedding" and not f.labels,
        (Method(name="vkd"),),
        "without labels the teacher's features are the lesson; an orthogonal projector leaves the work to the student",
    ),
    Rule(
        "vit-to-vit",
        lambda f: f.student == f.teacher == "transformer" and f.labels,
        (Method(name="nkd"), Method(name="vitkd")),
        "two transformers have blocks of one kind, so their tokens can be compared",
    ),
    Rule(
        "cross-architecture",
        lambda f: f.student != f.teacher and f.labels,
        (Method(name="ofa"),),
        "a {teacher} teacher and a {student} student: features of unlike families mislead, so stages are compared "
        "as predictions",
    ),
    Rule(
        "strong-teacher",
        lambda f: f.ratio <= GAP or f.student != f.teacher,
        (Method(name="dist"),),
        "the student has {ratio:.1%} of the teacher's MACs: too little to copy its probabilities, enough to keep how "
        "they are ordered",
    ),
    Rule(
        "standard",
        lambda f: True,
        (STANDARDISED,),
        "related networks of comparable size: standardised predictions, a long schedule, the same crop for both",
    ),
)
