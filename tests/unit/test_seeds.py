"""Metrics over seeds: means, deviations and intervals as in scipy, paired by seed, and their page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from kit.page import Page, change
from kit.seeds import make_seeds
from scipy import stats

from stillroom import report
from stillroom.cli import console, tables
from stillroom.errors import StillroomError
from stillroom.report import multi_seed, multi_seed_page
from stillroom.report.multi_seed import SeedStatistics

pytest_plugins = ["kit.fixtures"]

FIGURES = {3: (0.99, 0.90, 0.94), 0: (0.99, 0.92, 0.95), 7: (0.99, 0.88, 0.96)}


@pytest.fixture(scope="module")
def folder(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds. Tests may write their page again, and change nothing else."""
    return make_seeds(made_run, tmp_path_factory.mktemp("seeds") / "photos", FIGURES)


@pytest.fixture
def spoilt(folder: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(folder, tmp_path / "photos"))


@pytest.mark.parametrize("values", [[0.1, 0.4], [0.3, 0.31, 0.35], [-0.2, 0.0, 0.1, 0.4, 1.5]])
def test_the_statistics_are_those_of_numpy_and_scipy(values):
    found = SeedStatistics(dict(enumerate(values)))
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(np.std(values, ddof=1))
    assert found.range == (min(values), max(values))
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.ci95 == pytest.approx((wanted.low, wanted.high))
    assert multi_seed.ci_half_width(values) == pytest.approx((wanted.high - wanted.low) / 2)
    assert multi_seed.t_quantile(len(values)) == pytest.approx(stats.t.ppf(0.975, len(values) - 1))


def test_one_value_has_neither_deviation_nor_interval():
    found = SeedStatistics({4: 0.5})
    assert (found.mean, found.sd, found.range, found.ci95) == (0.5, None, (0.5, 0.5), None)
    assert found.as_dict() == {"value": 0.5, "least": 0.5, "greatest": 0.5, "values": {"4": 0.5}}


def test_metrics_hold_every_figure_of_all_seeds(folder):
    found = multi_seed.read(folder).metrics()
    assert found["seeds"] == [3, 0, 7] and "missing" not in found  # in the recipe's order
    student = found["student"]["accuracy"]
    values = [figures[2] for figures in FIGURES.values()]
    assert student["values"] == {"3": 0.94, "0": 0.95, "7": 0.96}
    assert student["value"] == pytest.approx(np.mean(values)) and student["sd"] == pytest.approx(0.01)
    assert (student["least"], student["greatest"]) == (0.94, 0.96)
    assert student["how"].startswith("mean over 3 seeds; of each: top-1 accuracy")
    assert found["teacher"]["accuracy"]["sd"] == 0
    known = json.loads((folder / "seed-0" / "metrics.json").read_text())
    for role in ("teacher", "baseline", "student"):
        single = {name for name, figure in known[role].items() if isinstance(figure["value"], float | int)}
        assert found[role].keys() == single  # all but recall, which is a number for each class
    assert [(row["target"], row["bits"], row["verified"], row["unverified_seeds"]) for row in found["exports"]] == [
        ("onnx", 32, True, []),
        ("onnx", 8, True, []),
    ]


def test_the_gain_is_paired_by_seed(folder):
    gain = multi_seed.read(folder).metrics()["gain"]
    assert gain.keys() == {"accuracy"}
    pairs = np.array([(figures[1], figures[2]) for figures in FIGURES.values()])
    wanted = stats.ttest_rel(pairs[:, 1], pairs[:, 0]).confidence_interval(0.95)
    assert gain["accuracy"]["ci95"] == pytest.approx([wanted.low, wanted.high])
    assert gain["accuracy"]["values"] == pytest.approx({"3": 0.04, "0": 0.03, "7": 0.08})
    assert "2 degrees of freedom" in gain["accuracy"]["how"]


@pytest.mark.parametrize(
    ("gains", "kind", "words"),
    [
        ((0.04, 0.041, 0.039), "better", "by +4.0 points (95 % interval +3.8 to +4.2, p < 0.001 by a paired t test)"),
        ((-0.04, -0.041, -0.039), "worse", "it harms"),
        ((0.04, -0.02, 0.01), "open", "the interval contains 0"),
        ((0.0, 0.0, 0.0), "open", "+0.0 to +0.0"),
        ((0.04, 0.041), "better", "Over two seeds"),
        ((0.04, 0.03), "open", "Over two seeds"),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval(made_run, tmp_path, gains, kind, words):
    figures = {seed: (0.9, 0.5, 0.5 + gain) for seed, gain in enumerate(gains)}
    found = multi_seed.read(make_seeds(made_run, tmp_path / "photos", figures))
    assert multi_seed_page.verdict(found)[0] == kind and words in multi_seed_page.verdict(found)[1]
    wide = [line for line in multi_seed_page.limitations(found) if "wide intervals" in line]
    assert wide and f"{stats.t.ppf(0.975, len(gains) - 1):.1f} standard errors" in wide[0]


def test_the_page_shows_every_metric_and_links_each_seed(folder):
    text = multi_seed_page.write(folder).read_text()
    found = Page(text)
    for words in (
        multi_seed_page.headline(multi_seed.read(folder)),
        "95.0 ± 1.0 %",
        "90.0 ± 2.0 %",
        "88.0 to 92.0 %",
        "+5.0 (−1.6 to +11.6)",
        "within the noise",
        "from seed 3, the same for all seeds",
        "verified in 3 of 3 seeds",
    ):
        assert words in found.text, words
    assert "://" not in text and "<script" not in text and "default-src 'none'" in text
    marks = [attributes for tag, attributes in found.elements if "mark" in (attributes.get("class") or "").split()]
    joined = [tag for tag, attributes in found.elements if tag == "line" and attributes.get("class") == "rule"]
    assert len(joined) == 3 and len(marks) >= 9
    card = (folder / "README.md").read_text()
    for words in ("95.0 ± 1.0 %", "+5.0 (−1.6 to +11.6)", "| seed 7 | 99.0 % | 88.0 % | 96.0 % | +8.0 | done |"):
        assert words in card, words
    assert json.loads((folder / "metrics.json").read_text()) == multi_seed.read(folder).metrics()


def test_a_seed_with_a_page_is_linked(spoilt):
    report.write(spoilt / "seed-0")
    page = Page(multi_seed_page.write(spoilt).read_text())
    assert [attributes["href"] for tag, attributes in page.elements if tag == "a"] == ["seed-0/report.html"]


def test_a_seed_that_failed_is_named_and_left_out(spoilt):
    (spoilt / "seed-0" / "metrics.json").unlink()
    change(spoilt / "seed-0" / "run.json", lambda run: run.update(status="failed", exit_code=6))
    change(spoilt / "seed-7" / "metrics.json", lambda found: found["exports"][1].update(verified=False))
    shutil.rmtree(spoilt / "seed-3")
    found = multi_seed.read(spoilt)
    metrics = found.metrics()
    assert metrics["seeds"] == [7] and metrics["exports"][1]["unverified_seeds"] == [7]
    assert metrics["missing"] == {
        "3": {"status": "not started", "exit_code": None},
        "0": {"status": "failed", "exit_code": 6},
    }
    text = Page(multi_seed_page.write(spoilt).read_text()).text
    problems = multi_seed_page.problems(found)
    assert all(line in text for line in problems) and "verified in 0 of 1 seeds" in text
    assert "int8 ONNX file of seed 7 is UNVERIFIED" in problems[0]
    assert any(line.startswith("Seed 0 ") and "“failed”, exit code 6" in line for line in problems)
    kind, sentence = multi_seed_page.verdict(found)
    assert kind == "open" and "One seed, +8.0 points" in sentence


def test_the_origin_of_the_teacher_is_named(spoilt):
    found = multi_seed.read(spoilt)
    assert multi_seed_page.teacher(found) == "from seed 3, the same for all seeds"
    change(spoilt / "seed-7" / "run.json", lambda run: run.pop("teacher_of_seed"))
    change(spoilt / "seed-7" / "run.json", lambda run: run["stages"].update({"teacher": {"seconds": 1.0}}))
    assert multi_seed_page.teacher(multi_seed.read(spoilt)) == "not the same for all seeds: from seed 3, seed 7"
    for seed in FIGURES:
        change(spoilt / f"seed-{seed}" / "run.json", lambda run: run.pop("teacher_of_seed", None))
        change(spoilt / f"seed-{seed}" / "run.json", lambda run: run["stages"].pop("teacher", None))
    assert multi_seed_page.teacher(multi_seed.read(spoilt)) == "given weights, the same for all seeds"


def test_the_page_of_one_seed_names_the_seed_of_its_teacher(folder):
    text = Page(report.page.render(folder / "seed-7").replace("<wbr>", "")).text
    assert "resnet20 (width 2.0), from seed 3" in text and "One of 3 seeds (7)" in text
    assert "One seed (" not in text
    assert ", from seed" not in Page(report.page.render(folder / "seed-3")).text


def test_without_a_baseline_there_is_no_gain(spoilt):
    for seed in FIGURES:
        change(spoilt / f"seed-{seed}" / "metrics.json", lambda found: found.pop("baseline"))
    found = multi_seed.read(spoilt)
    assert multi_seed_page.verdict(found)[0] == "unknown" and found.metrics()["gain"] == {}
    assert 'id="gain"' not in multi_seed_page.write(spoilt).read_text()


def test_names_stay_text(spoilt):
    recipe = spoilt / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('"photos"', '"<script>a|b</script>"'))
    text = multi_seed_page.write(spoilt).read_text()
    assert "<script" not in text and "<script>a|b</script>" in Page(text).text
    assert "<script>" not in (spoilt / "README.md").read_text()


def test_what_is_no_folder_of_several_seeds(folder, made_run, tmp_path):
    assert (
        multi_seed.is_multi_seed(folder)
        and not multi_seed.is_multi_seed(made_run)
        and not multi_seed.is_multi_seed(tmp_path)
    )
    with pytest.raises(StillroomError) as caught:
        multi_seed_page.write(made_run)
    assert caught.value.code == "SR-C460"
    empty = tmp_path / "photos"
    empty.mkdir()
    shutil.copy(folder / "recipe.toml", empty)
    with pytest.raises(StillroomError) as caught:
        multi_seed_page.write(empty)
    assert caught.value.code == "SR-C432" and "seed 3: not started" in str(caught.value)


def test_the_console_shows_the_same(folder, capsys):
    console.out.print(tables.multi_seed(multi_seed.read(folder)))
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["teacher", "baseline", "student", "float", "int8"]
    assert "95.0 ± 1.0 %" in said and "94.0 to 96.0 %" in said and said.count("yes") == 2
