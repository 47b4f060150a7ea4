"""Every name that a user can give goes through one function, which says what is wrong with it under a code."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from stillroom import cli
from stillroom.config import plugins, recipe
from stillroom.config.validation import not_found
from stillroom.errors import Exit, StillroomError
from stillroom.export import runtime

LEAST = {"data": "digits", "teacher": "resnet8", "student": "resnet8"}


@pytest.mark.parametrize("folder", plugins.CONTRACTS)
def test_a_slip_is_answered_with_the_nearest_name(folder):
    name = plugins.choices(folder)[0]
    for door in (plugins.pick, plugins.module):
        with pytest.raises(StillroomError) as caught:
            door(folder, f"{name}z")
        assert caught.value.code == "SR-C405" and caught.value.exit == Exit.USAGE
        assert caught.value.what.startswith(f"no {plugins.CONTRACTS[folder]} called '{name}z'; did you mean")
    word = caught.value.fix.split()[2].rstrip("`")
    assert name in CliRunner().invoke(cli.main, ["list", word]).output or folder == "models"


@pytest.mark.parametrize("folder", plugins.CONTRACTS)
@pytest.mark.parametrize(
    ("code", "said"),
    [
        (None, "No module named 'mine_rt'"),
        ("", "module 'mine_rt' has no attribute 'Trt'"),
        ("def broken(:", "SyntaxError: "),
        ("raise ValueError('no device')", "ValueError: no device"),
    ],
)
def test_ones_own_code_that_can_not_be_imported(folder, code, said, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "mine_rt", raising=False)
    if code is not None:
        (tmp_path / "mine_rt.py").write_text(code)
    with pytest.raises(StillroomError) as caught:
        plugins.pick(folder, "mine_rt:Trt")
    assert caught.value.code == "SR-C406" and said in caught.value.what
    assert said in not_found(folder, "mine_rt:Trt")


@pytest.mark.parametrize("name", ["onx", "mine.rt:Trt", "", "runtime", "_graph", "../onnx"])
def test_a_runtime_from_whatever_door(name):
    with pytest.raises(StillroomError) as caught:
        runtime.find(name)
    assert caught.value.code == "SR-X733" and repr(name) in caught.value.what
    with pytest.raises(StillroomError, match=r"export\[0\].runtime: ") as caught:
        recipe.check(LEAST | {"export": [{"runtime": name}]})
    assert caught.value.code == "SR-C400"


@pytest.mark.parametrize(
    ("section", "place"),
    [
        ({"data": "digit"}, "data.source"),
        ({"task": "clasification"}, "task.name"),
        ({"methods": "hintn"}, "methods[0].name"),
        ({"compress": "prun"}, "compress[0].name"),
        ({"metrics": ["acuracy"]}, "metrics[0]"),
        ({"deploy": {"runtime": "onx"}}, "deploy.runtime"),
    ],
)
def test_a_name_in_a_recipe_is_a_problem_with_its_place(section, place):
    with pytest.raises(StillroomError) as caught:
        recipe.check(LEAST | section)
    assert f"  {place}: no " in caught.value.what and "did you mean" in caught.value.what
