"""Several networks as one: what is averaged, whose taps are whose, and what can't be one."""

from __future__ import annotations

import copy

import pytest
import torch

from stillroom.config import recipe
from stillroom.config.plugins import pick
from stillroom.data import sampling
from stillroom.errors import StillroomError
from stillroom.matching.feature_info import feature_info
from stillroom.matching.method_setup import bind_taps, teacher_features
from stillroom.methods.ca_mkd import CAMKD
from stillroom.methods.fitnet import FitNet
from stillroom.models import create_model, flops
from stillroom.models._taps import split_tap
from stillroom.models.network import Network
from stillroom.stages import build
from stillroom.teachers.ensemble import Ensemble
from stillroom.teachers.frozen import FrozenTeacher


def network(name="resnet8", seed=0, **more):
    torch.manual_seed(seed)
    return create_model(name, **{"classes": 5, "channels": 3, "size": 16} | more).eval()


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def alike(a, b):
    return torch.allclose(a, b, atol=1e-6)


def test_the_formulas(images):
    """Three members with pixels, sizes and classes of their own."""
    members = [
        network(),
        network("resnet14", 1, channels=1, mean=(0.3,), std=(0.2,)),
        network("timm/test_resnet", 2, size=24, classes=7),
    ]
    maps = [None, None, (6, 1, 0, 3, 2)]
    z = [one(images).pred for one in members[:2]]
    z.append(members[2](images).pred[:, [6, 1, 0, 3, 2]])
    geometric = Ensemble(members, maps=maps)(images).pred
    assert alike(geometric, (z[0] + z[1] + z[2]) / 3)
    arithmetic = Ensemble(members, maps=maps, combine="probabilities")(images).pred
    assert alike(arithmetic.softmax(1), (z[0].softmax(1) + z[1].softmax(1) + z[2].softmax(1)) / 3)
    assert not alike(arithmetic.softmax(1), geometric.softmax(1))


def test_a_class_that_only_one_believes_in_has_a_finite_logit(images):
    one, sure = network(), network()
    with torch.no_grad():
        sure.heads()[0].bias[2] = 500.0
    assert Ensemble([sure, sure, one], combine="probabilities")(images).pred.isfinite().all()
    assert Ensemble([one, sure], combine="probabilities")(images).pred.softmax(1)[:, 2].min() >= 0.5


def test_pixels_are_averaged_place_by_place(images):
    members = [
        network("timm/test_resnet", output_kind="pixels"),
        network("timm/test_efficientnet", 1, output_kind="pixels", size=32),
    ]
    said = Ensemble(members, combine="probabilities")(images).pred
    expected = (members[0](images).pred.softmax(1) + members[1](images).pred.softmax(1)) / 2
    assert said.shape == (4, 5, 16, 16) and alike(said.softmax(1), expected)


def test_vectors_of_length_one_are_averaged(images):
    members = [network(seed=seed, output_kind="vector", classes=None) for seed in (0, 1)]
    a, b = (one(images).pred for one in members)
    expected = (a / a.norm(dim=1, keepdim=True) + b / b.norm(dim=1, keepdim=True)) / 2
    assert alike(Ensemble(members)(images).pred, expected)


def test_taps(images):
    one, two = network(), network("resnet14", 1)
    both = Ensemble([one, two], maps=[None, (1, 0, 2, 3, 4)])
    said = both(images, ("2/layer3", "layer1", "1/layer1", "2/pred", "1/pred"))
    assert list(said.taps) == ["2/layer3", "layer1", "1/layer1", "2/pred", "1/pred"]
    assert torch.equal(said.taps["2/layer3"], two(images, ("layer3",)).taps["layer3"])
    assert torch.equal(said.taps["layer1"], one(images, ("layer1",)).taps["layer1"])
    assert torch.equal(said.taps["1/layer1"], said.taps["layer1"])
    assert torch.equal(said.taps["1/pred"], one(images).pred)
    assert torch.equal(said.taps["2/pred"], two(images).pred[:, [1, 0, 2, 3, 4]])
    assert alike(said.pred, (said.taps["1/pred"] + said.taps["2/pred"]) / 2)


@pytest.mark.parametrize("tap", ["3/layer1", "0/pred"])
def test_a_teacher_that_is_not_there(images, tap):
    with pytest.raises(StillroomError, match="there are 2") as refused:
        Ensemble([network(), network()])(images, (tap,))
    assert refused.value.code == "SR-M372"


def test_a_part_that_a_member_has_not(images):
    with pytest.raises(StillroomError) as refused:
        Ensemble([network(), network()])(images, ("2/layer9",))
    assert refused.value.code == "SR-M306"


def test_names():
    assert (
        split_tap("2/layer3.0") == (2, "layer3.0")
        and split_tap("layer3") == (1, "layer3")
        and split_tap("12/pred") == (12, "pred")
    )
    assert split_tap("/conv1/Conv") == (1, "/conv1/Conv") and split_tap("2/") == (1, "2/")


def test_detectors_are_refused():
    with pytest.raises(StillroomError, match="2 detectors") as refused:
        Ensemble([network("timm/test_resnet", output_kind="boxes", size=32)] * 2)
    assert refused.value.code == "SR-M370"


def test_what_is_not_of_one_kind_is_refused():
    for other in (network(classes=6), network("timm/test_resnet", output_kind="pixels")):
        with pytest.raises(StillroomError, match="classes of 5") as refused:
            Ensemble([network(), other])
        assert refused.value.code == "SR-M371"
    assert Ensemble([network(), network(classes=6)], maps=[None, (5, 4, 3, 2, 1)]).classes == 5


def test_it_costs_what_its_members_cost():
    one, two = network(), network("resnet14", size=32)
    both = Ensemble([one, two], maps=[None, (0, 1, 2, 3, 4)])
    shape = (3, 16, 16)
    assert flops.macs(both, shape) == flops.macs(one, shape) + flops.macs(two, shape)
    assert flops.parameters(both) == flops.parameters(one) + flops.parameters(two)


def test_frozen_it_is_a_teacher_like_any(images):
    both = Ensemble([network(), network("resnet14", 1)]).train()
    before = copy.deepcopy(both.state_dict())
    said = FrozenTeacher(both)((images, images[:1]), torch.arange(4), ("2/layer1",))
    assert said.pred.shape == (5, 5) and said.taps["2/layer1"].shape[0] == 5 and not said.pred.requires_grad
    assert not any(part.training for part in both.modules())
    assert all(torch.equal(value, before[name]) for name, value in both.state_dict().items())


def test_places_are_found_in_the_first_and_may_be_named_in_any(images):
    student, teachers = network(), Ensemble([network("resnet14", width=2.0), network("timm/test_resnet", size=32)])
    sides = feature_info(student, images), teacher_features(teachers, images)
    found = FitNet()
    assert str(bind_taps(found, *sides, name="fitnet")[0]) == "layer2 [32, 8, 8] ~ 1/layer2 [64, 8, 8]"
    assert found.teacher_taps == ("1/layer2",)
    for named, whole, partner in (("2/layer4", "2/layer4", "layer3"), ("layer3", "1/layer3", "layer3")):
        method = FitNet(teacher_taps=(named,))
        (pair,) = bind_taps(method, *sides, name="fitnet")
        assert (
            (pair.student.tap, pair.teacher.tap) == (partner, whole) and pair.teacher.shape and pair.teacher.depth == 1
        )
        assert method.teacher_taps == (whole,)
        teachers(images, method.teacher_taps)
    taken = bind_taps(FitNet(student_taps=("layer1",), teacher_taps=("2/layer2",)), *sides, name="fitnet")
    assert [str(pair) for pair in taken] == ["layer1 [16, 16, 16] ~ 2/layer2 [48, 2, 2]"]


def test_the_confident_method_reads_every_member(images):
    student, teachers = network(), Ensemble([network("resnet14", width=2.0), network("timm/test_resnet")])
    sides = feature_info(student, images), teacher_features(teachers, images)
    plain, rich = CAMKD(), CAMKD(features=1.0)
    assert bind_taps(plain, *sides, name="ca_mkd") == []
    assert plain.student_taps == () and plain.teacher_taps == ("1/pred", "2/pred")
    pairs = [(pair.student.tap, pair.teacher.tap) for pair in bind_taps(rich, *sides, name="ca_mkd")]
    assert pairs == [("linear:in", "1/linear:in"), ("linear:in", "2/fc:in")]
    assert rich.teacher_taps == ("1/linear:in", "2/fc:in", "1/pred", "2/pred")
    alone = CAMKD(features=1.0)
    bind_taps(alone, sides[0], feature_info(teachers.members[0], images), name="ca_mkd")
    assert alone.teacher_taps == ("linear:in",) and alone.pred_taps == ()


def test_of_sealed_teachers_the_predictions_are_enough(images):
    """One whose parts can't be heard, as a file's: it is a single layer."""
    sealed = Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 5)), classes=5)
    sealed.trunk = ("nothing",)
    student, teachers = network(), Ensemble([sealed, network()])
    sides = feature_info(student, images), teacher_features(teachers, images)
    assert sides[1].members[0].vector is None
    plain = CAMKD()
    assert bind_taps(plain, *sides, name="ca_mkd") == [] and plain.teacher_taps == ("1/pred", "2/pred")
    with pytest.raises(StillroomError, match="in the teacher") as refused:
        bind_taps(CAMKD(features=1.0), *sides, name="ca_mkd")
    assert refused.value.code == "SR-M333"


def made(task, *teachers):
    """The networks of a recipe's teachers, on digits of 32 pixels."""
    sections = [{"network": name, "weights": "none"} for name in teachers]
    asked = recipe.check(
        {
            "data": {"source": "digits", "size": 32},
            "student": "timm/test_resnet",
            "task": task,
            "teacher": sections[0],
            "teachers": sections[1:],
        }
    )
    data, sections = build.build_data(asked.data), build.teacher_sections(asked.all_teachers)
    task = pick("tasks", asked.task.name)()  # of any kind: the digits' labels are never read
    return build.build_teachers(sections, data, task, sampling.PLACEHOLDER_STATISTICS, seed=0)


def test_two_of_one_kind_begin_apart():
    found = made("classification", "resnet8", "resnet8", "resnet14")
    assert list(found) == ["teacher", "teacher-2", "teacher-3"]
    one, two = (found[stage].heads()[0].weight for stage in ("teacher", "teacher-2"))
    assert one.shape == two.shape and not torch.equal(one, two)
    assert torch.equal(one, made("classification", "resnet8")["teacher"].heads()[0].weight)


def test_what_can_not_be_one_is_refused_with_the_networks_still_untrained():
    with pytest.raises(StillroomError) as refused:
        made("detection", "timm/test_resnet", "timm/test_efficientnet")
    assert refused.value.code == "SR-M370"


def test_members_are_the_networks_themselves():
    one, two = network(), network("resnet14")
    both = Ensemble([one, two])
    assert both.members[0] is one and both.members[1] is two and isinstance(two, Network)
    assert (both.output_kind, both.classes) == ("classes", 5)


def test_what_changes_its_answers_changes_what_it_says_of_itself():
    one, two = network(), network("resnet14", 1)

    def facts(*members, **more):
        made = Ensemble(members, **more)
        return made.metadata(), {name: value.tolist() for name, value in made.state_dict().items()}

    plain, resized = facts(one, two), copy.deepcopy(two)
    resized.size = 24
    assert plain[0]["2/classes"] == "5" and plain == facts(one, two)
    changed = [
        facts(two, one),
        facts(one, two, combine="probabilities"),
        facts(one, two, maps=[None, (1, 0, 2, 3, 4)]),
        facts(one, resized),
    ]
    assert all(other != plain for other in changed)
