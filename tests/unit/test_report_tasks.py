"""Report, card and table for outputs other than classes: names of the task, and correct drawings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from kit.command import python
from kit.dense_runs import FURTHER, WORDS
from kit.page import Page, change

from stillroom import report
from stillroom.cli import tables
from stillroom.report import gain, run_data, summary, table, task_description

pytest_plugins = ["kit.fixtures"]


def answers(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["task"]["answers"])


@pytest.mark.parametrize(
    ("title", "inside"),
    [
        ("Accuracy", "accuracy"),
        ("mAP", "mAP"),
        ("IoU by class", "IoU by class"),
        ("k-NN accuracy", "k-NN accuracy"),
        ("Pixel accuracy", "pixel accuracy"),
        ("", ""),
    ],
)
def test_titles_inside_of_a_sentence(title: str, inside: str) -> None:
    assert task_description.in_sentence(title) == inside


@pytest.mark.parametrize(
    ("name", "title"),
    [("map", "mAP"), ("map50", "mAP50"), ("map_small", "mAP small"), ("boundary_f", "Boundary F"), ("probe", "Probe")],
)
def test_figures_are_named_as_the_task_names_them(name: str, title: str) -> None:
    assert task_description.metric_title(name, task_description.TaskDescription(headline="map", title="mAP")) == title


def test_a_run_without_a_task_is_a_classification(run_copy: Path) -> None:
    new = report.write(run_copy).read_text(), report.card(run_copy).read_text()
    change(run_copy / "run.json", lambda r: r.update(task={"headline": "accuracy", "answers": "classes"}))
    assert run_data.read(run_copy).task.title == "Accuracy"
    for odd in (None, [], "accuracy", {}, {"headline": ""}, {"headline": None, "title": "x"}):
        change(run_copy / "run.json", lambda r, odd=odd: r.update(task=odd))
        assert run_data.read(run_copy).task == task_description.TaskDescription()
        assert (report.write(run_copy).read_text(), report.card(run_copy).read_text()) == new


def test_the_headline_figure_leads_everywhere(dense_run: Path) -> None:
    page, card = report.write(dense_run).read_text(), report.card(dense_run).read_text()
    shown = Page(page).text
    task, metrics = WORDS[answers(dense_run)], json.loads((dense_run / "metrics.json").read_text())
    student, teacher = (metrics[name][task["headline"]]["value"] for name in ("student", "teacher"))
    for text in (shown, card):
        assert f"{100 * student / teacher:.1f} % of the teacher's {task['title']} with 4.4 % of its MACs" in text
        assert f"{task['title']} was measured on 24 test images" in text
        for model in (metrics["teacher"], metrics["baseline"], metrics["student"], *metrics["exports"]):
            low, high = (100 * end for end in model[task["headline"]]["ci95"])
            assert f"{100 * model[task['headline']]['value']:.1f} %" in text
            assert f"{low:.1f}–{high:.1f} %, n 24" in text
    assert 'id="overview"' in page and f"{task['title']} on validation images" in shown
    assert ('id="classes"' in page) == bool(task["by_class"]) and task["by_class_title"] in shown
    for text in (shown, card):
        assert not re.search(
            r"(?<!k-NN )(?<!Pixel )(?<!pixel )\baccuracy|\bcorrect, [a-z]+ wrong|recognised|image classifier", text
        )


def test_further_metrics_have_a_table_of_their_own(dense_run: Path) -> None:
    shown, card = Page(report.write(dense_run).read_text()).text, report.card(dense_run).read_text()
    metrics = json.loads((dense_run / "metrics.json").read_text())
    ((*rows,),) = table.further(run_data.read(dense_run))
    assert [row.label for row in rows] == ["teacher", "baseline", "student", "float ONNX", "int8 ONNX"]
    assert len(rows[0].cells) == len(FURTHER[answers(dense_run)])
    for name in FURTHER[answers(dense_run)]:
        title = task_description.metric_title(name, run_data.read(dense_run).task)
        assert title in shown and f" {title} |" in card
        for model in (metrics["teacher"], metrics["baseline"], metrics["student"], *metrics["exports"]):
            low, high = (100 * end for end in model[name]["ci95"])
            for text in (shown, card):
                assert f"{100 * model[name]['value']:.1f} %" in text and f"{low:.1f}–{high:.1f} %, n 24" in text


def test_costs_and_verification_are_no_further_metrics(made_run: Path, run_copy: Path) -> None:
    assert table.further(run_data.read(made_run)) == []
    change(
        run_copy / "metrics.json", lambda m: m["student"].update({f"share_{i}": {"value": i / 10} for i in range(9)})
    )
    change(
        run_copy / "metrics.json", lambda m: m["student"].update(energy={"value": 3.5}, odd={"value": None, "how": "x"})
    )
    parts = table.further(run_data.read(run_copy))
    assert [[cell.name for cell in rows[0].cells] for rows in parts] == [
        [f"Share {number}" for number in range(7)],
        ["Share 7", "Share 8", "Energy", "Odd"],
    ]
    assert [cell.text for cell in parts[1][0].cells] == ["70.0 %", "80.0 %", "3.5", "–"]
    assert [row.label for rows in parts for row in rows] == ["student", "student"]


def test_agreement_is_defined(dense_run: Path, made_run: Path) -> None:
    assert table.agreement(run_data.read(dense_run)) == "Agreement: matched answers, weighted by score."
    assert table.agreement(run_data.read(made_run)) != table.agreement(run_data.read(dense_run))
    cell = table.rows(run_data.read(dense_run))[1].cells[1]
    assert (cell.text, cell.note) == ("70.0 %", "with teacher") and "difference 0.25" in cell.tooltip


def test_equal_figures_are_as_good_not_as_accurate(dense_copy: Path) -> None:
    headline = WORDS[answers(dense_copy)]["headline"]

    def level(metrics: dict[str, Any]) -> None:
        metrics["baseline"][headline] = metrics["teacher"][headline] = metrics["student"][headline]

    change(dense_copy / "metrics.json", level)
    found = run_data.read(dense_copy)
    title = WORDS[answers(dense_copy)]["title"]
    assert f"as good as its teacher ({title} 75.0 %)" in summary.headline(found)
    assert "exactly as good (75.0 %)" in gain.verdict(found)[1]


def test_hostile_names_stay_text(dense_copy: Path) -> None:
    hostile = '"><img src=x onerror=alert(1)>'

    def spoil(run: dict[str, Any]) -> None:
        run["data"]["classes"] = [hostile] * 3
        run["task"] |= {name: hostile for name in ("title", "noun", "tag", "use", "caution", "by_class_title")}

    change(dense_copy / "run.json", spoil)
    change(dense_copy / "samples" / "probe.json", lambda p: [image.update(name=hostile) for image in p["images"]])
    found = Page(report.write(dense_copy).read_text())
    assert hostile in found.text and not any("onerror" in attributes for _, attributes in found.elements)
    card = report.card(dense_copy).read_text()
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == hostile
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", card.split("\n---\n", 1)[1], flags=re.S | re.M)
    assert "<" not in outside


def test_the_card_describes_the_task(dense_run: Path) -> None:
    card = report.card(dense_run).read_text()
    task, head = WORDS[answers(dense_run)], yaml.safe_load(card.split("---\n")[1])
    assert head["pipeline_tag"] == task["tag"] and task["tag"] in head["tags"] and head["library_name"] == "stillroom"
    assert head["metrics"] == [task["headline"]]
    result = head["model-index"][0]["results"][0]
    assert result["task"]["type"] == task["tag"]
    assert result["metrics"] == [{"type": task["headline"], "value": 0.75, "name": task["title"]}]
    article = "An" if task["noun"].startswith("object") else "A"
    assert f"{article} {task['noun']}: a timm/student distilled from" in card
    assert task["use"].replace("{classes}", "3") + ", for images like those of scenes" in card
    restored = {"boxes": "classes=3, channels=1, size=64, output_kind='boxes'"}
    restored |= {"pixels": "classes=3, channels=1, size=64, output_kind='pixels'"}
    restored |= {"vector": "classes=None, channels=1, size=64, output_kind='vector'"}
    assert f"restore('timm/student', \"student.safetensors\", {restored[answers(dense_run)]})" in card


def test_the_code_for_exported_files_runs(dense_run: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", report.card(dense_run).read_text(), re.S | re.M)
    code = [block for block in blocks if "onnxruntime" in block]
    want = {
        "boxes": "(2, 6)\nmiddle 0.8999999761581421 [0.0, 0.0, 640.0, 480.0]",
        "pixels": "{'low'}",
        "vector": "1.0",
    }
    assert len(code) == 2
    for block in code:
        done = python(block, dense_run)
        assert done.stdout.strip() == want[answers(dense_run)], done.stderr


@pytest.mark.parametrize("kind", ["classes", "pixels", "boxes", "vector", "something else"])
def test_code_for_the_student_compiles(dense_copy: Path, kind: str) -> None:
    change(dense_copy / "run.json", lambda r: r["task"].update(answers=kind))
    blocks = re.findall(r"^```python\n(.*?)^```$", report.card(dense_copy).read_text(), re.S | re.M)
    assert len(blocks) == 3
    for block in blocks:
        compile(block, "card", "exec")


def test_the_table_on_the_console_has_the_headline_figure(dense_run: Path, made_run: Path) -> None:
    metrics = json.loads((dense_run / "metrics.json").read_text())
    task = json.loads((dense_run / "run.json").read_text())["task"]
    found = tables.results(metrics, task)
    assert [str(column.header) for column in found.columns[:3]] == ["", task["title"], "95 % CI"]
    assert list(found.columns[1].cells) == ["87.5 %", "60.0 %", "75.0 %", "75.0 %", "67.5 %"]
    assert list(found.columns[2].cells)[2] == "70.0-79.0" and list(found.columns[7].cells)[3:] == ["yes", "yes"]
    older = tables.results(json.loads((made_run / "metrics.json").read_text()))
    assert older.columns[1].header == "accuracy" and all("%" in cell for cell in older.columns[1].cells)
    metrics["student"][task["headline"]] = {"value": None, "how": "nothing to see"}
    assert list(tables.results(metrics, task).columns[1].cells)[2] == ""
