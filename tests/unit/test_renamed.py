"""An old word in a recipe is answered with the new one, and a run's own recipe may still have it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from kit import training

from stillroom import cli
from stillroom.config import recipe
from stillroom.config.renamed import RENAMED, upgrade
from stillroom.errors import StillroomError
from stillroom.io.run_dir import RunDir
from stillroom.models import create_model
from stillroom.stages import build
from stillroom.teachers import source
from stillroom.teachers.frozen import FrozenTeacher

LEAST = {"data": "digits", "teacher": "resnet8", "student": "resnet8"}

OLD = (Path(__file__).parents[1] / "kit/recorded/before_the_renames.toml").read_text()
"""What a run wrote of itself before the renames."""

WORDS = [(section, old, new) for section, words in RENAMED.items() for old, new in words.items()]


def written(section: str, old: str) -> tuple[dict, str]:
    """A recipe with the old word in it, and where it stands."""
    base, _, name = section.partition(":")
    if section == "methods.name":
        return {"methods": [old]}, "methods[0].name: "
    if not section:
        return {old: {}}, f"{old}: "
    table = {old: 1} | ({"name": name} if name else {"network": "resnet8"} if base == "teacher" else {})
    if base in ("methods", "compress"):
        table = {"name": "hinton" if base == "methods" else "prune"} | table
    if base in ("methods", "compress", "export"):
        return {base: [table]}, f"{base}[0].{old}: "
    return {base: table}, f"{base}.{old}: "


@pytest.mark.parametrize(("section", "old", "new"), WORDS)
def test_an_old_word_is_answered_with_the_new_one(section, old, new):
    raw, place = written(section, old)
    with pytest.raises(StillroomError) as caught:
        recipe.check(LEAST | raw)
    said = f"{old!r} was renamed to {new!r}" if section == "methods.name" else f"was renamed to {new}"
    assert caught.value.code == "SR-C400" and caught.value.exit == 2
    assert str(caught.value).count("was renamed to") == 1 and f"  {place}{said}\n" in str(caught.value)
    assert f"{place}unknown" not in str(caught.value)


@pytest.mark.parametrize("path", ["train", "teacher.train", "teachers[0].train", "compress[0].train"])
def test_in_whatever_section_a_training_is(path):
    name = path.partition(".")[0].partition("[")[0]
    network = {"name": "prune"} if name == "compress" else {"network": "resnet8"}
    inner = {"train": {"clip": 2.0}} if name == "train" else {name: network | {"train": {"clip": 2.0}}}
    raw = {name: [inner[name]]} if "[" in path else inner
    with pytest.raises(StillroomError, match="1 problem in") as caught:
        recipe.check(LEAST | raw)
    assert f"{path}.clip: was renamed to max_grad_norm" in str(caught.value)


def test_an_old_word_on_the_command_line(tmp_path):
    done = CliRunner().invoke(cli.main, ["check", "teacher=resnet8", "student=resnet8", "data=digits", "train.clip=2"])
    assert done.exit_code == 2 and "train.clip: was renamed to max_grad_norm" in done.stderr
    done = CliRunner().invoke(cli.main, ["export", str(tmp_path), "--target", "onnx"])
    assert done.exit_code == 2 and "--target was renamed to --runtime" in done.stderr


def recorded(folder: Path) -> Path:
    folder.mkdir()
    (folder / "run.json").write_text("{}")
    (folder / "recipe.toml").write_text(OLD)
    return folder / "recipe.toml"


def test_a_runs_own_recipe_opens_and_means_the_same(tmp_path):
    found = recipe.read(recorded(tmp_path / "run"))
    assert [one.name for one in found.methods] == ["fgd", "ld", "simreg", "skd", "pseudo_labels"]
    assert (found.methods[0].warmup_fraction, found.methods[0].decay_start) == (0.1, 0.5)
    assert found.methods[4].arguments == {"score_threshold": 0.4, "nms_iou": 0.55, "max_detections": 30}
    assert found.task.arguments == {
        "nms_iou": 0.5,
        "max_detections": 50,
        "score_threshold": 0.02,
        "pre_nms_topk": 200,
    }
    assert (found.train.ema_decay, found.train.num_evals, found.train.grad_accum_steps) == (0.99, 7, 2)
    assert (found.train.max_grad_norm, found.train.warmup_fraction) == (2.0, 0.1)
    assert (found.teacher.finetune, found.teacher.class_map, found.teacher.combine) == (
        "none",
        (2, 0, 1),
        "probabilities",
    )
    assert [one.network for one in found.teachers] == ["resnet8", "resnet14"]
    assert found.teachers[1].arguments == {"depth": 3} and found.teachers[1].train.ema_decay == 0.5
    assert found.augment.num_views == 4 and found.cache.top_p == 0.9 and found.gradient_balancing
    assert [one.distill for one in found.compress] == [False, True] and found.compress[0].train.max_grad_norm == 3.0
    assert (found.deploy.runtime, found.deploy.latency_ms, found.export[0].runtime) == ("openvino", 5.0, "openvino")
    assert upgrade(tomllib.loads(found.toml())) == tomllib.loads(found.toml())


def test_a_run_that_began_under_old_words_goes_on(tmp_path):
    path = recorded(tmp_path / "run")
    what = recipe.read(path)
    RunDir.open(path.parent, what.as_dict(), what.toml()).close()
    with pytest.raises(StillroomError, match=r"train.max_grad_norm: 2.0 there, 3.0 here"):
        RunDir.open(path.parent, what.as_dict() | {"train": what.as_dict()["train"] | {"max_grad_norm": 3.0}}, "")


def test_elsewhere_the_same_file_is_a_persons_and_answered(tmp_path):
    (tmp_path / "recipe.toml").write_text(OLD)
    with pytest.raises(StillroomError, match=r"teacher.others: was renamed to \[\[teachers\]\]"):
        recipe.read(tmp_path / "recipe.toml")


def test_caches_made_before_the_renames_are_found():
    """The digest is of what the code before them computed."""
    network = create_model("resnet8", classes=1001, channels=1, size=8)
    for value in network.state_dict().values():
        value.fill_(1)
    teacher = {"network": "resnet14", "weights": "a.safetensors", "class_map": [1, 0], "combine": "probabilities"}
    raw = {
        "data": {"source": "digits", "size": 8},
        "student": "resnet8",
        "teacher": teacher | {"depth": 3},
        "teachers": [{"network": "resnet8", "class_map": [0, 1], "weights": "b.safetensors"}],
        "augment": {"num_views": 3, "flip": True},
        "cache": {"top_p": 0.9, "bits": 32},
    }
    what = recipe.check(raw)
    queries = source.build_queries(
        FrozenTeacher(network),
        training.digits(),
        build.teacher_sections(what.all_teachers),
        augment=what.augment,
        cache=what.cache,
        taps=(),
        temperatures=(4.0,),
        batch=64,
    )
    found = hashlib.sha256(json.dumps(queries.facts(), sort_keys=True).encode()).hexdigest()
    assert found == "d4acc25fb793b73493e31294e2837f3a425f165da7cb08d441d8cebcaf3b239a"
