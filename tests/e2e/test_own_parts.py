"""A runtime, a metric, a compression and a task of one's own: one file each, from the recipe to the report."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from kit.command import environment, python, stillroom

from stillroom.cli import main

OWN = Path(__file__).parents[1] / "kit" / "own"
RECIPE = """
metrics = ["mine.surprise:Surprise", "recall"]
baseline = false
data = { source = "digits", size = 8 }
teacher = { network = "resnet8", train = { steps = 12 } }
student = { network = "resnet8", width = 0.5 }
task = { name = "mine.focal:Focal", gamma = 1.0 }
train = { steps = 12, batch = 64, precision = "float32" }
compress = [{ name = "mine.sparse:Sparse", share = 0.75, train = { steps = 4 } }]
export = [{ runtime = "mine.program:Program" }]
"""
RUNTIME = "mine.program:Program"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a recipe, and beside it one with nothing but the four files."""
    home = tmp_path_factory.mktemp("own")
    (home / "plugins").mkdir()
    shutil.copytree(OWN, home / "plugins" / "mine", ignore=shutil.ignore_patterns("__pycache__"))
    (home / "work").mkdir()
    (home / "work" / "own.toml").write_text(RECIPE)
    return home


@pytest.fixture(scope="module")
def printed(home):
    """What the command printed that did the run, with the four files' folder on the path."""
    path = os.pathsep.join([environment()["PYTHONPATH"], str(home / "plugins")])
    return stillroom("run", "own.toml", cwd=home / "work", PYTHONPATH=path).stdout


@pytest.fixture(scope="module")
def run(home, printed):
    return home / "work" / "runs" / "own"


@pytest.fixture
def command(home, monkeypatch):
    """Further commands in this process, which spares them the start: what each printed."""
    monkeypatch.syspath_prepend(home / "plugins")
    monkeypatch.chdir(home / "work")

    def call(*words, code=0):
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == code, (done.output, done.exception)
        return " ".join((done.stderr if code else done.stdout).split())

    return call


@pytest.fixture
def metrics(run):
    return json.loads((run / "metrics.json").read_text())


def test_the_runtimes_file_is_written_verified_and_measured(run, metrics):
    (row,) = metrics["exports"]
    assert (row["target"], row["path"], row["verified"]) == (RUNTIME, "exports/student-program.pt2", True)
    assert (run / row["path"]).stat().st_size == row["bytes"]["value"] > 0
    assert row["accuracy"]["value"] == metrics["student"]["accuracy"]["value"] and row["agreement"]["value"] == 1
    assert row["latency_ms"]["value"] > 0 and row["load_ms"]["value"] > 0 and row["peak_mb"]["value"] > 0
    assert f"{RUNTIME} " in row["load_ms"]["how"]


def test_its_snippet_stands_in_the_card_and_runs(run):
    card = (run / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", card, re.S) if "torch.export.load" in block)
    done = python(code, run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in map(str, range(10))
    assert "float torch.export" in card and "float torch.export" in (run / "report.html").read_text()


def test_the_metrics_figure_is_everywhere(run, metrics, printed):
    rows = [metrics["teacher"], metrics["student"], *metrics["stages"], *metrics["exports"]]
    assert all(row["surprise"]["value"] > 0 and row["surprise"]["metric"] == "mine.surprise:Surprise" for row in rows)
    assert "metric" not in metrics["student"]["recall"]  # the task's own
    for page in ("report.html", "README.md"):
        assert "Surprise" in (run / page).read_text(), page
    assert "Surprise" in printed


def test_the_compressions_stage_is_in_the_chain(run):
    info = json.loads((run / "run.json").read_text())
    assert [one["stage"] for one in info["compress"]] == ["distilled", "student"]
    assert "mine.sparse:Sparse, share=0.75" in info["compress"][1]["what"]
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in steps} == {"teacher", "distilled", "student"}


def test_the_task_trains(run):
    steps = [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]
    assert all("task/focal" in line["terms"] for line in steps)


def test_pages_are_written_again_without_the_files(run, home):
    """What they need was kept when the file was made: a folder's pages import no code of the folder's choice."""
    before = [(run / page).read_bytes() for page in ("report.html", "README.md")]
    stillroom("report", run, cwd=home / "work")
    assert [(run / page).read_bytes() for page in ("report.html", "README.md")] == before


def test_the_verbs_of_a_finished_run(run, command, tmp_path):
    copy = shutil.copytree(run, tmp_path / "own")
    (copy / "exports" / "student-program.pt2").unlink()
    assert command("export", copy, "--runtime", RUNTIME).endswith("student-program.pt2")
    assert "surprise" in json.loads(command("eval", copy, "--json"))["student"]
    assert f"{RUNTIME}-32" in json.loads(command("bench", copy, "--seconds", "0.2", "--json"))
    refused = command("export", copy, "--runtime", RUNTIME, "--bits", "8", code=7)
    assert "SR-X731" in refused and "another runtime for 8 bits" in refused


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (['export=[{runtime = "onx"}]'], 2, "no runtime called 'onx'; did you mean 'onnx'?"),
        (['export=[{runtime = "mine.program:Nothing"}]'], 2, "has no attribute 'Nothing'"),
        (['export=[{runtime = "mine.program:Tensors"}]'], 2, "SR-X733"),
        (['export=[{runtime = "mine.program:Program", bits = 8}]'], 7, "SR-X731"),
        (['metrics=["recal"]'], 2, "metrics[0]: no metric called 'recal'; did you mean 'recall'?"),
        (['metrics=["overlap"]'], 2, "metrics[0]: 'overlap' measures pixels, but the predictions of mine.focal:Focal"),
        (['metrics=["mine.program:Program"]'], 2, "metrics[0]: 'mine.program:Program' measures None"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(command, tmp_path, words, code, told):
    assert told in command("run", "own.toml", *words, "--folder", tmp_path / "run", code=code)
    assert not (tmp_path / "run" / "steps.jsonl").exists()


@pytest.mark.parametrize("name", ["onx", "mine.program:Nothing", "nowhere:Trt"])
def test_a_wrong_runtime_on_the_command_line_has_a_code(run, command, name):
    told = command("export", run, "--runtime", name, code=2)
    assert "SR-X733" in told and ("onnx" in told) == (name == "onx")
