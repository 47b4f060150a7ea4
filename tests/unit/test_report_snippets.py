"""The code of the card for files of other runtimes, and for a student that its library can't build, runs as written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from kit.command import python
from kit.page import change
from safetensors.torch import save_file
from torch import nn

from stillroom.errors import StillroomError
from stillroom.export import runtime
from stillroom.report import model_card, run_data, snippets
from stillroom.types import Output

pytest_plugins = ["kit.fixtures"]

CLASSES = tuple("abcdefghij")
RUNTIMES = runtime.built_in()


class Linear(nn.Module):
    """Pixels to logits; the last class is never the first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 10)

    def forward(self, images):
        return Output(pred=self.layer(images.flatten(1)))


def run(code: str, place: Path) -> str:
    done = python(code, place)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def listed(run_copy: Path, target: str) -> run_data.RunData:
    """The run with one file of that runtime, and other class names than the file's."""
    path = f"exports/student{RUNTIMES[target].suffixes[0]}"
    row = {"target": target, "bits": 32, "path": path, "verified": True}
    change(run_copy / "metrics.json", lambda m: m.update(exports=[row]))
    return run_data.read(run_copy)


@pytest.mark.slow  # exporting takes a while
@pytest.mark.parametrize("target", sorted(RUNTIMES))
def test_the_code_of_a_file_predicts_what_its_network_predicts(run_copy: Path, target: str) -> None:
    kind = RUNTIMES[target]
    try:
        kind.ready(32)
    except StillroomError as problem:
        pytest.skip(problem.what)
    found, network = listed(run_copy, target), Linear().eval()
    path = run_copy / "exports" / f"student{kind.suffixes[0]}"
    kind.write(network, path, example=torch.rand(1, 1, 8, 8), classes=CLASSES)
    best = int(network(torch.zeros(1, 1, 8, 8)).pred.argmax())
    said = run(snippets.file(found, found.files[0]), run_copy)
    names = CLASSES if kind.snippet.classes else found.classes
    assert said.splitlines()[-1] == names[best]


@pytest.mark.parametrize("answers", ["classes", "pixels", "boxes", "vector", "something else"])
@pytest.mark.parametrize("target", sorted(RUNTIMES))
def test_the_code_compiles_for_every_kind_of_answer(run_copy: Path, target: str, answers: str) -> None:
    change(run_copy / "run.json", lambda r: r.update(task={"headline": "accuracy", "answers": answers}))
    found = listed(run_copy, target)
    code = snippets.file(found, found.files[0])
    compile(code, "card", "exec")
    used = {name for name in ("json", "zipfile", "torch", "classes") if f"{name}." in code or f"{name}[" in code}
    assert all(f"import {name}" in code or f"{name} = " in code for name in used)
    single = RUNTIMES[target].snippet.one_image
    assert ("(2, 1, 8, 8)" in code) == (answers == "vector" and not single)
    assert ("480, 640" in code) == (answers == "boxes" and not single)


def test_a_path_is_a_literal(run_copy: Path) -> None:
    for target in RUNTIMES:
        change(
            run_copy / "metrics.json", lambda m, t=target: m.update(exports=[{"target": t, "path": "a'\");{path}b\n"}])
        )
        found = run_data.read(run_copy)
        code = snippets.file(found, found.files[0])
        compile(code, "card", "exec")
        assert repr("a'\");{path}b\n") in code


def test_a_student_of_another_form_is_not_loaded_by_its_library(run_copy: Path) -> None:
    student = {"network": "timm/test_resnet", "arguments": {}}
    change(run_copy / "run.json", lambda r: r["networks"]["student"].update(student))
    file = run_copy / "student.safetensors"
    about = {"classes": "10", "channels": "1", "mean": "0.0", "std": "1.0"}
    save_file({"weight": torch.zeros(2)}, file, about)
    assert "timm.create_model" in model_card.render(run_copy)
    save_file({"weight": torch.zeros(2)}, file, about | {"form": "[]"})
    assert "timm.create_model" in model_card.render(run_copy)
    form = json.dumps([{"kind": "pruned", "layers": {"conv1": 3}}])
    save_file({"weight": torch.zeros(2)}, file, about | {"form": form})
    card = model_card.render(run_copy)
    assert "timm.create_model" not in card and "restore('timm/test_resnet', \"student.safetensors\"" in card
    assert "library_name: stillroom" in card and "how it was pruned" in card
