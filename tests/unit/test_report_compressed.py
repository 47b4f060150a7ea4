"""Report and card of a run with compression: all rows, the Pareto front, the deployment limits, the stages."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kit.compressed import KINDS, make_compressed
from kit.page import Page, change
from kit.seeds import make_seeds

from stillroom import report
from stillroom.benchmark import tradeoff
from stillroom.cli import tables
from stillroom.report import (
    compression_stages,
    deployment,
    device_costs,
    format,
    model_card,
    multi_seed,
    multi_seed_page,
    page,
    run_data,
    run_files,
    scatter,
    summary,
    table,
)

pytest_plugins = ["kit.fixtures"]

HOSTILE = "<img src=x onerror=alert(1)>|`[a](http://b)"


@pytest.fixture(scope="module")
def met(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_compressed(made_run, tmp_path_factory.mktemp("runs") / "met")


@pytest.fixture(scope="module")
def missed(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_compressed(made_run, tmp_path_factory.mktemp("runs") / "missed", met=False)


@pytest.fixture
def spoilt(made_run: Path, tmp_path: Path) -> Path:
    return make_compressed(made_run, tmp_path / "run")


def both(run: Path) -> tuple[str, str]:
    """The text of page and card, without markup."""
    return Page(page.render(run).replace("<wbr>", "")).text, model_card.render(run).replace("\\", "")


def test_rows_are_in_the_order_of_the_pipeline(met: Path) -> None:
    found = table.rows(run_data.read(met))
    assert [row.label for row in found] == [
        *("teacher", "baseline", "distilled", "prune", "student", "float ONNX", "int8 ONNX"),
        *("int8 OpenVINO", "int8 ExecuTorch", "int8 LiteRT", "int4 ONNX"),
    ]
    notes = {row.label: row.note for row in found}
    assert notes["distilled"] == "distilled, before compression" and notes["prune"] == "prune, macs=0.5"
    assert notes["student"] == "resnet8 (width 0.5), after qat, bits=8"
    assert {row.model.role for row in found if row.label in ("distilled", "prune")} == {"stage"}


def test_stages_of_one_name_stay_apart(spoilt: Path) -> None:
    change(spoilt / "metrics.json", lambda m: m["stages"].extend([m["stages"][1], m["stages"][1]]))
    assert [one.key for one in run_data.read(spoilt).intermediate] == ["distilled", "prune", "prune#2", "prune#3"]


def test_page_and_card_show_the_same(missed: Path) -> None:
    metrics = json.loads((missed / "metrics.json").read_text())
    for said in both(missed):
        for row in (*metrics["stages"], metrics["student"], *metrics["exports"]):
            assert f"{100 * row['accuracy']['value']:.1f} %" in said
            assert "pcr" not in row or format.significant(row["pcr"]["value"], 3) in said
        assert "2.00 mJ" in said and "measured" in said and "not measured" in said and "9.00 MB" in said
        assert "prune, macs=0.5" in said and "qat, bits=8" in said
        assert "93.0 % (−2.0 points)" in said and "518 (−50.0 %)" in said and "518 (±0 %)" in said
        assert said.count(deployment.verdict(metrics["target"])) == 2
        assert "int8, prune 0.5" in said and "chosen" in said
        assert said.count("misses the limits") == 2, "beside its ratio and beside its place on the front"
    assert "compressed (prune, macs=0.5; qat, bits=8)" in both(missed)[1]


def test_a_missing_measurement_is_named_and_is_never_0(met: Path, spoilt: Path) -> None:
    rows = {row.label: {cell.name: cell.text for cell in row.cells} for row in device_costs.rows(run_data.read(met))}
    assert rows["teacher"]["Energy"] == "12.0 mJ" and rows["prune"]["Energy"] == "not measured"
    assert rows["student"]["Load time"] == "1.50 ms" and rows["teacher"]["Load time"] == "not measured"
    change(spoilt / "metrics.json", lambda m: [m[role].pop("energy_j") for role in ("teacher", "student")])
    found = run_data.read(spoilt)
    assert any(note.startswith("Energy: neither") for note in device_costs.notes(found))
    assert "Energy" not in [cell.name for cell in device_costs.rows(found)[0].cells]
    assert "0 mJ" not in both(spoilt)[0]


def test_an_estimate_is_called_one(spoilt: Path) -> None:
    change(spoilt / "metrics.json", lambda m: m["student"]["energy_j"].update(source="estimated"))
    row = next(row for row in device_costs.rows(run_data.read(spoilt)) if row.label == "student")
    assert [cell.note for cell in row.cells if cell.name == "Energy"] == ["estimated"]


def test_the_ratio_names_its_cost_and_excludes_unreliable_models(met: Path) -> None:
    cells = {row.label: {cell.name: cell for cell in row.cells} for row in device_costs.rows(run_data.read(met))}
    assert (cells["teacher"]["PCR"].text, cells["teacher"]["PCR"].note) == ("1.00", "by energy")
    assert cells["int8 ONNX"]["PCR"].note == "by bytes" and cells["int8 ONNX"]["PCR"].flag == ""
    assert (cells["int8 OpenVINO"]["PCR"].text, cells["int8 OpenVINO"]["PCR"].flag) == ("–", "unstable")
    assert cells["int8 OpenVINO"]["Pareto front"].text == "excluded"
    assert cells["int8 ExecuTorch"]["PCR"].flag == "UNVERIFIED"
    assert cells["float ONNX"]["Pareto front"].text == "on it"
    assert "baseline" not in cells


def test_a_teacher_without_a_figure_of_its_own_is_not_called_beaten(spoilt: Path) -> None:
    metrics = json.loads((spoilt / "metrics.json").read_text())
    del metrics["teacher"]["accuracy"]
    (spoilt / "metrics.json").write_text(json.dumps(tradeoff.attach(metrics, "accuracy")))
    cells = {
        row.label: {cell.name: cell.text for cell in row.cells} for row in device_costs.rows(run_data.read(spoilt))
    }
    assert cells["teacher"]["Pareto front"] == "–" and cells["int8 ONNX"]["Pareto front"] == "on it"
    assert "PCR" not in cells["int8 ONNX"]
    both(spoilt)


def test_no_ratio_stands_without_the_verdict(missed: Path) -> None:
    found = run_data.read(missed)
    flags = {row.label: [cell.flag for cell in row.cells if cell.name == "PCR"] for row in device_costs.rows(found)}
    assert flags["int8 ONNX"] == ["misses the limits"] and flags["float ONNX"] == [""]
    assert deployment.verdict(found.deployment) in device_costs.notes(found)


def drawn(run: Path) -> list[str]:
    return [chart.drawing for chart in scatter.pareto_charts(run_data.read(run))]


def test_the_chart_joins_the_front_and_draws_the_limits(met: Path) -> None:
    found = run_data.read(met)
    for drawing, name, limit in zip(
        drawn(met), ("latency_ms", "bytes"), ("limit 5.00 ms", "limit 2.00 MB"), strict=True
    ):
        read = Page(drawing)
        shown = [one for one in found.models if one.value(name) is not None]
        assert sum("mark" in (a.get("class") or "") for _, a in read.elements) == len(shown) == 5 + len(KINDS)
        assert limit in read.text and any(a.get("class") == "limit" for _, a in read.elements)
        (line,) = (a["points"] for tag, a in read.elements if tag == "polyline")
        places = [tuple(map(float, place.split(","))) for place in str(line).split()]
        assert all(x1 <= x2 and y1 >= y2 for (x1, y1), (x2, y2) in pairwise(places))
        said = next(a["aria-label"] for tag, a in read.elements if tag == "svg")
        best = said.split("Pareto front: ")[1].split(". Deployment limit")[0].split(", ")
        assert best[-1] == "teacher" and not {"~ int8 OpenVINO", "~ int8 ExecuTorch", "baseline"} & set(best)
        joined = {x for x, _ in places[:-1]}
        assert len(joined) == len(best), "each of them is a step"


def test_a_limit_of_another_machine_is_not_drawn_here(spoilt: Path) -> None:
    change(spoilt / "metrics.json", lambda m: m["target"].update(where="pi@kitchen"))
    latency, size = drawn(spoilt)
    assert "limit" not in latency and "limit 2.00 MB" in size
    assert any("pi@kitchen" in line for line in summary.limitations(run_data.read(spoilt)))
    change(spoilt / "metrics.json", lambda m: m["target"].update(where="this machine", threads=4))
    assert "limit" not in drawn(spoilt)[0]


def test_the_weights_beside_a_graph_have_their_hash(spoilt: Path) -> None:
    for name in ("student.8.xml", "student.8.bin"):
        (spoilt / "exports" / name).write_text(name)
    names = [name for name, _, _ in run_files.digests(run_data.read(spoilt))]
    assert names[-2:] == ["exports/student.8.xml", "exports/student.8.bin"]


def test_each_stage_has_its_difference_to_the_one_before(met: Path) -> None:
    first, second, third = compression_stages.rows(run_data.read(met))
    assert first.cells == ("95.0 %", "1.04 k", "4.24 kB", "0.200 ms", "40.0 s")
    assert second.cells == (
        "93.0 % (−2.0 points)",
        "518 (−50.0 %)",
        "2.12 kB (−50.0 %)",
        "0.150 ms (−25.0 %)",
        "12.0 s",
    )
    assert third.title == "qat, bits=8" and third.cells[0] == "94.0 % (+1.0 points)"


def test_hostile_and_missing_values_leave_a_page(spoilt: Path) -> None:
    def spoil(run: dict[str, Any]) -> None:
        run["compress"] = [{"what": HOSTILE, "score": None, "macs": "many"}, 3, {"stage": HOSTILE, "score": 0.5}]
        run["chosen"] = {"why": HOSTILE, "table": [{"what": HOSTILE, "meets": [1]}, None]}

    change(spoilt / "run.json", spoil)
    change(spoilt / "metrics.json", lambda m: m["stages"][0].update(stage=HOSTILE, what=HOSTILE, front="yes"))
    change(spoilt / "metrics.json", lambda m: m["stages"].append("nothing"))
    change(
        spoilt / "metrics.json", lambda m: m["target"].update(file=HOSTILE, why=HOSTILE, limits={HOSTILE: 1, "x": "y"})
    )
    found = Page(page.render(spoilt))
    assert HOSTILE in found.text and not any("onerror" in attributes for _, attributes in found.elements)
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", model_card.render(spoilt).split("\n---\n", 1)[1], flags=re.S | re.M)
    assert "<img" not in outside and "[a](" not in outside
    for odd in ("many", [1], {"table": 3}, None):
        change(spoilt / "run.json", lambda run, odd=odd: run.update(compress=odd, chosen=odd))
        change(spoilt / "metrics.json", lambda m, odd=odd: m.update(stages=odd, target=odd))
        both(spoilt)


def test_a_run_without_compression_has_none_of_it(made_run: Path) -> None:
    said, card = both(made_run)
    for text in (said, card):
        assert "Pareto" not in text and "Compression stages" not in text and "Deployment limits" not in text
    sections = {attributes.get("id") for _, attributes in Page(page.render(made_run)).elements}
    assert not sections & {"tradeoff", "compression", "deployment"} and "Accuracy against latency" in said
    assert scatter.pareto_charts(run_data.read(made_run)) == [] and device_costs.rows(run_data.read(made_run)) == []


def test_seeds_show_stages_and_files_of_every_runtime(met: Path, tmp_path: Path) -> None:
    figures = {0: (0.98, 0.90, 0.94), 1: (0.98, 0.91, 0.95)}
    place = make_seeds(met, tmp_path / "photos", figures)
    change(place / "seed-1" / "metrics.json", lambda m: m["stages"][1]["accuracy"].update(value=0.91))
    change(place / "seed-1" / "metrics.json", lambda m: m["stages"][1].update(front=True))
    found = multi_seed.read(place)
    metrics = found.metrics()
    assert [(row["stage"], row["what"]) for row in metrics["stages"]] == [
        ("distilled", "distilled, before compression"),
        ("prune", "prune, macs=0.5"),
    ]
    assert metrics["stages"][1]["accuracy"]["value"] == pytest.approx(0.92)
    assert metrics["stages"][1]["front_seeds"] == [1] and metrics["stages"][0]["front_seeds"] == [0, 1]
    assert [(row["target"], row["bits"]) for row in metrics["exports"]] == list(KINDS)
    text = Page(multi_seed_page.write(place).read_text()).text
    for said in ("92.0 ± 1.4 %", "int8 LiteRT", "2.00 mJ, measured", "not measured", "verified in 0 of 2 seeds"):
        assert said in text, said
    names = [str(column.header) for column in tables.multi_seed(found).columns]
    assert names[7:] == ["Peak memory", "Energy", "PCR", "verified"]


def test_a_seed_that_misses_the_target_is_named(missed: Path, tmp_path: Path) -> None:
    place = make_seeds(missed, tmp_path / "photos", {0: (0.98, 0.90, 0.94), 1: (0.98, 0.91, 0.95)})
    change(place / "seed-1" / "metrics.json", lambda m: m["target"].update(met=True))
    change(place / "seed-1" / "metrics.json", lambda m: m["target"]["found"]["latency_ms"].update(value=1.0))
    said = [line for line in multi_seed_page.problems(multi_seed.read(place)) if "MISSED" in line]
    assert len(said) == 1 and said[0].startswith("Seed 0: ") and "onnx-8" in said[0]
    assert said[0] in Page(multi_seed_page.write(place).read_text()).text


def test_report_is_written_from_the_folder_alone(met: Path) -> None:
    first = report.write(met).read_bytes(), report.card(met).read_bytes()
    assert first == (report.write(met).read_bytes(), report.card(met).read_bytes())
