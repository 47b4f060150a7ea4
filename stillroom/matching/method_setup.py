"""From `[[methods]]` to methods that are ready: chosen, bound to layers of both networks, initialised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from stillroom.config.plugins import choices, pick
from stillroom.config.recipe import AUTO
from stillroom.config.schema import Method as Section
from stillroom.matching import layer_pairs
from stillroom.matching.auto import Choice, Facts, choose
from stillroom.matching.errors import UnsupportedMethod
from stillroom.matching.feature_info import FeatureInfo, feature_info, merge
from stillroom.matching.layer_pairs import Pair
from stillroom.methods.method import Method
from stillroom.models import _inference, flops
from stillroom.models.network import Network
from stillroom.teachers.ensemble import Ensemble
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.training.loss_weights import Weight
from stillroom.types import OutputKind

NUM_IMAGES = 2  # from which feature sizes are read


@dataclass(frozen=True)
class MethodSetup:
    """The methods of a distillation, initialised for a student and a teacher.

    Attributes:
        methods: label -> method. A label is a method's name, with a `+` for every earlier one of that name.
        weights: label -> weight.
        pairs: label -> which layer of the student is compared with which of the teacher.
        choice: the outcome of `methods = "auto"`; None where the recipe names methods.
    """

    methods: dict[str, Method] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    choice: Choice | None = None

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        pairs = {label: [str(pair) for pair in found] for label, found in self.pairs.items()}
        return {"pairs": pairs} | ({"auto": self.choice.situation, "why": self.choice.why} if self.choice else {})


def build_methods(
    sections: Sequence[Section],
    student: Network,
    teacher: FrozenTeacher,
    images: Tensor,
    *,
    seed: int,
    labels: bool = True,
) -> MethodSetup:
    """The methods of `[[methods]]`, initialised from the outputs of both networks for a few real images.

    Args:
        sections: of the methods; `auto` stands alone.
        student: as it will be trained.
        teacher: frozen.
        images: [B, C, H, W] in 0..1, B at least 1, on the device of the training.
        seed: of the methods' own initial weights.
        labels: whether labels are used in training, which `auto` depends on.

    Raises:
        StillroomError: SR-M330, SR-M333, SR-M334 what a method should compare can't be compared; SR-M335 it is not for
            networks of this kind.
    """
    if not sections:
        return MethodSetup()
    images = images[:NUM_IMAGES]
    sides = feature_info(student, images), teacher_features(teacher.network, images)
    choice = None
    if any(section.name == AUTO for section in sections):
        choice = choose(pair_facts(student, teacher, sides, images, labels=labels))
    made = MethodSetup(choice=choice)
    torch.manual_seed(seed)
    for section in choice.methods if choice else sections:
        label = section.name.rpartition(":")[2].lower()
        while label in made.methods:
            label += "+"
        kind = pick("methods", section.name)
        if not kind.supports(student.output_kind):
            raise UnsupportedMethod(
                method=section.name, output_kind=student.output_kind, able=_able(student.output_kind)
            )
        method: Method = kind(**section.arguments)
        made.pairs[label] = bind_taps(method, *sides, name=section.name)
        method.setup(
            _inference.infer(student, images, method.student_taps),
            teacher((images,), torch.arange(len(images)), method.teacher_taps),
        )
        made.methods[label], made.weights[label] = method, _weight(section, method)
    return made


def teacher_features(network: nn.Module, images: Tensor) -> FeatureInfo:
    """The layers of a teacher that can be compared; of an ensemble every member's, the first one's by default."""
    if isinstance(network, Ensemble):
        return merge([feature_info(member, images) for member in network.members])
    return feature_info(cast(Network, network), images)


def bind_taps(method: Method, student: FeatureInfo, teacher: FeatureInfo, *, name: str) -> list[Pair]:
    """Bind a method to the layers it needs, where the recipe does not name them; the pairs that it compares."""
    named = method.student_taps, tuple(map(teacher.full, method.teacher_taps))
    found = layer_pairs.find_pairs(method.default_taps, student, teacher, named=named, method=name)
    if found:
        method.bind_taps(tuple(pair.student.tap for pair in found), tuple(pair.teacher.tap for pair in found))
        # A method may have use for the predictions alone, and then takes none of the places.
        found = [
            pair
            for pair in found
            if {pair.student.tap, pair.teacher.tap} & {*method.student_taps, *method.teacher_taps}
        ]
    return found or layer_pairs.pairs_by_name(*named, student, teacher, method=name)


def pair_facts(
    student: Network, teacher: FrozenTeacher, sides: Sequence[FeatureInfo], images: Tensor, *, labels: bool
) -> Facts:
    """What the choice of methods depends on."""
    shape = (images.shape[1], images.shape[2], images.shape[3])
    ours, theirs = ("transformer" if side.blocks else "convolutional" if side.places else "sealed" for side in sides)
    ratio = flops.macs(student, shape) / flops.macs(teacher.network, shape)
    return Facts(student.output_kind, ours, theirs, ratio, labels, student.classes)


def _able(output_kind: OutputKind) -> str:
    """The methods of predictions that are made for networks of a kind."""
    kinds = {name: pick("methods", name) for name in choices("methods")}
    return (
        ", ".join(name for name, kind in kinds.items() if kind.default_taps == "pred" and kind.supports(output_kind))
        or "none"
    )


def _weight(section: Section, method: Method) -> Weight:
    value = method.weight if section.weight is None else section.weight
    return Weight(value, section.warmup_fraction, section.decay_start)
