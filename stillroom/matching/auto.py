"""`methods = "auto"`: what to imitate, from what is known before training, with the reason.

The rules and their order are the table that docs/choosing.md prints; the evidence is there too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stillroom.config.schema import Method
from stillroom.types import OutputKind

GAP = 0.1  # share of the teacher's MACs up to which a student counts as far behind it


@dataclass(frozen=True)
class Facts:
    """What the choice depends on.

    Attributes:
        output_kind: what both networks say.
        student: "convolutional" or "transformer".
        teacher: likewise; "sealed" where nothing inside it can be compared, as in an ONNX file.
        ratio: the student's MACs as a share of the teacher's.
        labels: whether labels are used in training.
        classes: K.
    """

    output_kind: OutputKind
    student: str
    teacher: str
    ratio: float
    labels: bool
    classes: int = 0

    @property
    def unlike(self) -> bool:
        """Whether both are known, and are of different families."""
        return self.teacher != "sealed" and self.student != self.teacher


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
        "boxes",
        lambda f: f.output_kind == "boxes",
        (Method(name="pkd", weight=0.5),),
        "detectors differ in size more than in meaning, and their places need not be the same: features of all levels "
        "are compared, without their mean and scale",
    ),
    Rule(
        "pixels",
        lambda f: f.output_kind == "pixels",
        (Method(name="hinton", arguments={"temperature": 1.0}), Method(name="cwd", arguments={"of": "logits"})),
        "pixels are many, so their predictions need no softening; beside each pixel's class, where in the image each "
        "class is likely",
    ),
    Rule(
        "vectors",
        lambda f: f.output_kind == "vector",
        (Method(name="cosine"), Method(name="rkd", weight=0.02)),
        "an embedding is used by its distances: the teacher's vectors are the targets, and relations between images "
        "hold whatever the widths",
    ),
    Rule(
        "two-classes",
        lambda f: f.classes == 2,
        (Method(name="hinton"),),
        "of two classes a standardised prediction, and the order of its classes, says only which one is larger: "
        "probabilities are compared as they are",
    ),
    Rule(
        "vit-to-vit",
        lambda f: f.student == f.teacher == "transformer" and f.labels,
        (Method(name="nkd"), Method(name="vitkd")),
        "two transformers have blocks of one kind, so their tokens can be compared",
    ),
    Rule(
        "cross-architecture",
        lambda f: f.unlike and f.labels,
        (Method(name="ofa"),),
        "a {teacher} teacher and a {student} student: features of unlike families mislead, so stages are compared "
        "as predictions",
    ),
    Rule(
        "strong-teacher",
        lambda f: f.ratio <= GAP or f.unlike,
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
