"""What a recipe means: short forms, defaults, and the one file that gives it back."""

from __future__ import annotations

import dataclasses
import sys
import tomllib
from types import SimpleNamespace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillroom.config import recipe, schema
from stillroom.config.schema import Augment, Export, Method, Recipe, Training
from stillroom.errors import StillroomError

LEAST = {"data": "digits", "teacher": "resnet20", "student": "resnet8"}


def test_three_strings_are_a_whole_recipe():
    found = recipe.check(LEAST)
    assert found.data.source == "digits" and found.teacher.network == "resnet20" and found.student.network == "resnet8"
    assert found.methods == (Method(name="auto"),) and found.baseline and found.seeds == (0,)
    assert [one.bits for one in found.export] == [32, 8] and [one.agreement for one in found.export] == [None, None]


@pytest.mark.parametrize(
    ("teacher", "weights", "fit"),
    [
        ({"network": "resnet20"}, "none", "all"),
        ({"network": "timm/convnext_base"}, "pretrained", "head"),
        ({"network": "torchvision/resnet18", "weights": "none"}, "none", "all"),
        ({"network": "mine.nets:Net"}, "none", "all"),
        ({"network": "resnet20", "weights": "mine.safetensors"}, "mine.safetensors", "none"),
        ({"network": "timm/convnext_base", "finetune": "all"}, "pretrained", "all"),
    ],
)
def test_a_teacher_s_weights_and_fit_follow_from_what_is_said(teacher, weights, fit):
    found = recipe.check(LEAST | {"teacher": teacher}).teacher
    assert (found.weights, found.finetune) == (weights, fit)


def test_a_path_is_data():
    found = recipe.check(LEAST | {"data": "photos/"})
    assert found.data.source == "auto" and found.data.arguments == {"path": "photos/"}


def test_the_teacher_trains_as_the_student_unless_it_is_said():
    teacher = {"network": "resnet20", "train": {"epochs": 9}}
    found = recipe.check(LEAST | {"train": {"lr": 0.5, "steps": 3}, "teacher": teacher}).teacher.train
    assert (found.lr, found.epochs, found.steps) == (0.5, 9.0, None)


def test_overrides_reach_everything():
    pairs = dict(map(recipe.parse_override, ["train.lr=3e-4", "methods.0.temperature=2", "teacher=resnet32", "name=x"]))
    found = recipe.read("digits", pairs)
    assert found.train.lr == 3e-4 and found.methods[0].arguments["temperature"] == 2 and found.name == "x"
    assert found.teacher.network == "resnet32"
    assert recipe.read(None, LEAST | {"teacher.width": 2.0}).teacher.arguments == {"width": 2.0}


@pytest.mark.parametrize(("text", "value"), [("a=1", 1), ("a=x/y", "x/y"), ("a=[1, 2]", [1, 2]), ("a=true", True)])
def test_an_override_is_toml_where_it_can_be(text, value):
    assert recipe.parse_override(text) == ("a", value)


def test_a_spoken_recipe_gets_the_same_folder_name_again():
    spoken = {"data": "photos/cats/", "teacher": "timm/convnext_base", "student": "timm/mobilenetv4_conv_small"}
    assert recipe.read(None, spoken).name == "cats-mobilenetv4_conv_small-from-convnext_base"


def test_problems_name_their_place_and_come_together():
    with pytest.raises(StillroomError) as caught:
        recipe.check(
            LEAST | {"train": {"lr": "1e-3", "warmup_fraction": 2}, "augment": {"flip": 1}, "methods": [{"nam": "rkd"}]}
        )
    text = str(caught.value)
    for line in (
        "train.lr: must be a valid number, got '1e-3'",
        "train.warmup_fraction: must be less than 1, got 2",
        "augment.flip: must be a valid boolean, got 1",
        "methods[0].name: missing",
    ):
        assert line in text


@pytest.mark.parametrize("name", recipe.built_in())
def test_built_in_recipes_are_right_and_say_what_they_are(name):
    assert recipe.read(name).name == name
    assert (recipe.BUILT_IN / f"{name}.toml").read_text().startswith("# ")


numbers = st.floats(0.001, 0.9)
recipes = st.builds(
    Recipe,
    data=st.just(schema.Data(source="digits")),
    student=st.builds(schema.Student, network=st.just("resnet8"), arguments=st.dictionaries(st.just("width"), numbers)),
    teacher=st.builds(
        schema.Teacher,
        network=st.just("resnet20"),
        weights=st.just("none"),
        finetune=st.just("all"),
        train=st.builds(Training, lr=numbers),
    ),
    name=st.text("abc-", min_size=1),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3).map(tuple),
    baseline=st.booleans(),
    augment=st.builds(Augment, flip=st.booleans(), shift=numbers, rotate=st.floats(0, 180)),
    methods=st.lists(
        st.builds(Method, name=st.just("hinton"), weight=st.none() | numbers, arguments=st.just({"temperature": 3.0})),
        max_size=2,
    ).map(tuple),
    train=st.builds(Training, steps=st.none() | st.integers(1, 50), precision=st.sampled_from(["auto", "float32"])),
    export=st.lists(st.builds(Export, bits=st.sampled_from([32, 8]), agreement=st.none() | numbers)).map(tuple),
)


@given(recipes)
@settings(max_examples=20, deadline=None)
def test_a_written_recipe_is_the_recipe(tmp_path_factory, one):
    path = tmp_path_factory.getbasetemp() / "one.toml"
    path.write_text(one.toml())
    assert recipe.read(path) == one


def test_recipes_can_be_compared_and_never_changed():
    one = recipe.check(LEAST)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "other"


def test_auto_stands_alone_and_takes_nothing():
    found = recipe.check(LEAST | {"methods": "auto"})
    assert [method.name for method in found.methods] == [recipe.AUTO]
    assert recipe.check(tomllib.loads(found.toml())) == found
    for methods, said in (
        (["auto", "hinton"], "'auto' stands alone"),
        ([{"name": "auto", "temperature": 2}], "methods[0].temperature: unknown with name = 'auto'"),
    ):
        with pytest.raises(StillroomError) as refused:
            recipe.check(LEAST | {"methods": methods})
        assert said in str(refused.value)


def test_a_weight_has_a_schedule():
    found = recipe.check(
        LEAST | {"methods": [{"name": "hinton", "weight": 2, "warmup_fraction": 0.1, "decay_start": 0.5}]}
    )
    assert (found.methods[0].weight, found.methods[0].warmup_fraction, found.methods[0].decay_start) == (2, 0.1, 0.5)
    with pytest.raises(StillroomError, match=r"methods\[0\].warmup_fraction"):
        recipe.check(LEAST | {"methods": [{"name": "hinton", "warmup_fraction": 1.5}]})


@pytest.mark.parametrize(
    ("task", "fit"), [("classification", "head"), ("segmentation", "all"), ("detection", "all"), ("embedding", "none")]
)
def test_the_task_says_how_far_a_pretrained_teacher_is_fitted(task, fit):
    found = recipe.check(LEAST | {"teacher": "timm/convnext_base", "task": task})
    assert (found.teacher.weights, found.teacher.finetune) == ("pretrained", fit)


def test_a_teacher_that_no_label_can_teach_needs_weights():
    with pytest.raises(
        StillroomError, match=r"teacher\.finetune: must be 'none', for labels teach nothing in embedding"
    ):
        recipe.check(LEAST | {"task": "embedding"})


def test_a_spread_teacher_is_not_asked_once():
    spread = {"teacher": {"network": "resnet8", "shard": True}, "augment": {"num_views": 2}}
    assert recipe.check(LEAST | spread).teacher.shard
    with pytest.raises(StillroomError, match=r"cache.use: can't be 'always' with teacher.shard = true"):
        recipe.check(LEAST | spread | {"cache": {"use": "always"}})


@pytest.mark.parametrize(("key", "value"), [("precision", "float16"), ("shard", True), ("combine", "probabilities")])
def test_what_holds_for_all_teachers_is_said_once(key, value):
    words = {"data": "digits", "student": "resnet8"}
    recipe.check(words | {"teacher": {"network": "resnet8", key: value}, "teachers": ["resnet14"]})
    with pytest.raises(StillroomError, match=rf"teachers\[0\].{key}: holds for all teachers"):
        recipe.check(words | {"teacher": "resnet8", "teachers": [{"network": "resnet14", key: value}]})


@pytest.mark.parametrize(("key", "value"), [("mixup", float("inf")), ("cutmix", 101.0), ("num_views", 2**23)])
def test_looks_that_can_not_be_are_refused(key, value):
    with pytest.raises(StillroomError, match=f"augment.{key}: must be less than"):
        recipe.read("digits", {f"augment.{key}": value})


def test_compressions_in_a_word_and_their_training():
    found = recipe.check(LEAST | {"compress": "prune, quantize", "train": {"epochs": 30, "lr": 3e-3, "batch": 64}})
    assert [one.name for one in found.compress] == ["prune", "quantize"] and all(one.distill for one in found.compress)
    for one in found.compress:
        assert (one.train.epochs, one.train.batch) == (10, 64) and one.train.lr == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("train", "own", "steps", "epochs"),
    [
        ({"steps": 90}, {}, 30, Training.epochs),
        ({"steps": 2}, {}, 1, Training.epochs),
        ({"steps": 90}, {"epochs": 4}, None, 4),
        ({"epochs": 12}, {"steps": 7}, 7, Training.epochs),
        ({}, {}, None, Training.epochs / 3),
    ],
)
def test_a_compression_s_training_is_a_third_unless_it_says_how_long(train, own, steps, epochs):
    (found,) = recipe.check(LEAST | {"train": train, "compress": [{"name": "prune", "train": own}]}).compress
    assert (found.train.steps, found.train.epochs) == (steps, epochs)


def test_a_recipe_with_compressions_and_a_target_gives_itself_back():
    said = {"compress": [{"name": "prune", "macs": 0.4}], "deploy": {"latency_ms": 5.0, "bits": [8]}}
    found = recipe.check(LEAST | said)
    assert recipe.check(tomllib.loads(found.toml())) == found
    assert found.compress[0].arguments == {"macs": 0.4} and found.deploy.bits == (8,)
    assert recipe.check(LEAST | {"deploy": "cpu"}).deploy.profile == "cpu"


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"compress": "prun"}, "compress[0].name: no compression called 'prun'; did you mean 'prune'?"),
        ({"compress": [{"name": "prune", "mac": 0.5}]}, "compress[0].mac: unknown; did you mean 'macs'?"),
        ({"compress": [{"name": "prune", "train": {"epoch": 1}}]}, "compress[0].train.epoch: unknown"),
        ({"compress": [{"name": "quantize", "bits": 9}]}, "compress[0].bits"),
        ({"deploy": {"runtime": "onx"}}, "deploy.runtime: no runtime called 'onx'; did you mean 'onnx'?"),
        ({"export": [{"runtime": "liter"}]}, "export[0].runtime: no runtime called 'liter'; did you mean 'litert'?"),
        ({"deploy": {"latency": 5}}, "deploy.latency: unknown; did you mean 'latency_ms'?"),
        ({"deploy": {"latency_ms": 0}}, "deploy.latency_ms: must be greater than 0"),
    ],
)
def test_what_is_wrong_with_a_compression_or_a_target(said, line):
    with pytest.raises(StillroomError) as caught:
        recipe.check(LEAST | said)
    assert line in str(caught.value)


# what inherits from [train] ------------------------------------------------------------------------------------------

HEIRS = {
    "data": "digits",
    "student": "resnet8",
    "teacher": ["resnet8", "resnet14"],
    "compress": "prune, quantize",
}


def problems(raw: dict, **more) -> list[str]:
    with pytest.raises(StillroomError) as caught:
        recipe.check(raw, **more)
    assert caught.value.code == "SR-C400"
    return [line.strip() for line in caught.value.values["problems"].splitlines()]


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Training)])
def test_a_wrong_value_in_train_is_reported_once_whatever_inherits_it(key):
    (line,) = problems(HEIRS | {"train": {key: {}}})
    assert line.startswith(f"train.{key}: must be ") and line.endswith(", got {}")


@pytest.mark.parametrize(
    ("train", "line"),
    [
        ({"lrr": 1}, "train.lrr: unknown; did you mean 'lr'?"),
        ({"batch": 7, "grad_accum_steps": 2}, "train.batch: must be a multiple of grad_accum_steps, got 7 and 2"),
        (3, "train: must be a table, got 3"),
        ({"clip": 1.0}, "train.clip: was renamed to max_grad_norm"),
    ],
)
def test_so_are_wrong_keys_and_broken_rules(train, line):
    assert problems(HEIRS | {"train": train}) == [line]


def test_what_is_wrong_where_it_is_inherited_is_reported_there():
    own = HEIRS | {
        "train": {"grad_accum_steps": 3, "batch": 96},
        "compress": [{"name": "prune", "train": {"batch": 64}}],
    }
    assert problems(own) == [
        "compress[0].train.batch: must be a multiple of grad_accum_steps, got 64 and 3 "
        "(what compress[0].train leaves out comes from [train])"
    ]
    own["teachers"] = [{"network": "resnet8", "train": {"grad_accum_steps": 2}}]
    assert recipe.check(own | {"compress": []}).teachers[1].train.grad_accum_steps == 2  # 3 alone would not divide 128


def test_values_that_do_not_come_from_the_file_say_so(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'data = "digits"\nstudent = "resnet8"\nteacher = "resnet8"\n[train]\nlr = -1\n[[methods]]\nname="rkd"\n'
    )
    with pytest.raises(StillroomError, match=r"3 problems in .*mine.toml") as caught:
        recipe.read(path, {"train.epoch": 3, "methods.0.angel": 1})
    lines = caught.value.values["problems"].splitlines()
    assert sorted(line.strip() for line in lines) == [
        "methods[0].angel: unknown; did you mean 'angle'? (override)",
        "train.epoch: unknown; did you mean 'epochs'? (override)",
        "train.lr: must be greater than 0, got -1",
    ]


@pytest.mark.parametrize("key", ["name.x", "train.lr.x", "methods.3.name", "seeds.0"])
def test_an_override_that_leads_nowhere_is_refused(key):
    with pytest.raises(StillroomError) as caught:
        recipe.read("digits", {"train.lr": 1e-3, "seeds": [0], key: 1})
    assert caught.value.code == "SR-C403"


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ({"student": 3}, "student: must be a table, got 3"),
        ({"methods": 3}, "methods: must be a list of tables, got 3"),
        ({"seeds": "all"}, "seeds: must be a list, got 'all'"),
        ({"deploy": {"bits": [8, 7]}}, "deploy.bits[1]: must be one of 32, 8, 4, got 7"),
        ({"train": {"batch": 1.5}}, "train.batch: must be a valid integer, got 1.5"),
        ({"methods": [{"name": "minilm", "heads": "many"}]}, "methods[0].heads: must be a valid integer, got 'many'"),
        (
            {"methods": [{"name": f"{__name__}:Picky", "on": []}]},
            "methods[0].on: must be a valid integer or one of 'a', 'b', got []",
        ),
        (
            {"methods": [{"name": f"{__name__}:Picky", "on": 1, "json": 1}]},
            "methods[0].json: must be a valid string, got 1",
        ),
        ({"methods": [{"name": f"{__name__}:Picky"}]}, "methods[0].on: missing"),
    ],
)
def test_one_line_says_what_was_expected_and_what_came(raw, line, monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Picky=Picky))
    assert problems(LEAST | raw) == [line]


class Picky:
    """A plug-in with a union, and with an argument whose name a schema library might want for itself."""

    def __init__(self, *, on: int | Literal["a", "b"], json: str = ""):
        raise AssertionError("nobody makes it")
