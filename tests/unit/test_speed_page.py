"""The page of the throughput benchmark says no more than its file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FOUND = {
    "machine": {"cpu": "a processor", "cores": 2, "device": "cpu", "threads": 2, "load_before": 0.04},
    "versions": {"torch": "2.0", "timm": "1.0", "torchdistill": "1.1.5"},
    "settings": {"batch": 128, "threads": 2, "seed": 0, "rounds": 3, "steps": 30, "warmup": 4, "images": 25000},
    "workers": {"torchdistill": {"0": 90.0, "2": 110.0}, "timm": {"0": 300.0, "2": 290.0}},
    "rates": {
        "auto": {
            "untaught": [960.0, 949.0, 900.0],
            "bare": [1000.0, 1000.0, 1000.0],
            "live": [400.0, 500.0, 600.0],
            "cached": [900.0, 902.0, 810.0],
        },
        "float32": {"untaught": [500.0, 500.0, 500.0], "torchdistill": [200.0, 300.0, 100.0]},
    },
    "caches": {
        "auto": {
            "forward": [1000.0, 1000.0, 1000.0],
            "build": [899.9, 900.0, 899.0],
            "read": [20000.0, 40000.0, 10000.0],
            "answers": 50000,
            "bytes": 1_250_000,
        }
    },
    "losses": {"auto": {"steps": 34, "live": 20.12344, "cached": 20.12356, "worst": 0.00042}},
}


@pytest.fixture
def page():
    spec = importlib.util.spec_from_file_location("speed", ROOT / "docs" / "speed.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_a_ratio_is_of_one_round(page):
    """Medians of ratios, not ratios of medians: 400/200, 500/300, 600/100 have the median 2, the medians 500/200."""
    table = page.contest(page.together(FOUND["rates"], "auto"))
    assert row(table, "**Stillroom**, live teacher") == [
        "500 (400 to 600)",
        "0.50 (0.40 to 0.60)",
        "0.52 (0.41 to 0.66)",
        "2.00 (1.66 to 6.00)",
    ]
    assert row(table, "a bare loop, the student alone: the limit")[1] == ""


def test_who_has_one_precision_stands_beside_both(page):
    assert list(page.together(FOUND["rates"], "auto")) == ["bare", "untaught", "live", "cached", "torchdistill"]
    assert page.together(FOUND["rates"], "float32") == FOUND["rates"]["float32"]
    assert "beside bare" not in page.contest(page.together(FOUND["rates"], "float32"))


def test_a_goal_that_is_missed_by_little_is_missed(page):
    table = page.goals(FOUND)
    assert row(table, "untaught at least 0.95 × bare") == ["0.94: **missed**", ""]
    assert row(table, "cached at least 0.95 × untaught") == ["0.93: **missed**", ""]
    assert row(table, "live at least 1 × torchdistill") == ["2.00: reached", ""]
    assert row(table, "cached at least 4 × torchdistill") == ["4.50: reached", ""]
    assert row(table, "a cache is filled at 0.9 × the forward pass or faster") == ["0.89: **missed**", ""]
    assert row(table, "a cache is read at 20 × the forward pass or faster") == ["20.00: reached", ""]


def test_nothing_is_rounded_up(page):
    assert page.spread([0.9499, 0.9599, 0.29]) == "0.94 (0.29 to 0.95)"
    assert page.spread([0.29]) == "0.29 (0.29 to 0.29)"  # 100 × 0.29 is a little less than 29 to a computer
    assert page.spread([1234.9], "{:,.0f}") == "1,234 (1,234 to 1,234)"


def test_the_page_names_machine_versions_and_choices(page, tmp_path, monkeypatch):
    path = tmp_path / "throughput.json"
    path.write_text(json.dumps(FOUND), encoding="utf-8")
    monkeypatch.setattr(page, "RESULTS", path)
    text = " ".join(page.page().split())
    assert "a processor, 2 cores, no accelerator, so the figures are a CPU's" in text
    assert "torch 2.0, timm 1.0, torchdistill 1.1.5; load before it began 0.0." in text
    assert "with 2 worker processes for the data, which was the faster of 0 and 2" in text
    assert "with 0 workers, the faster of 0 and 2" in text
    assert "loss is 20.1234 with the live teacher and 20.1236 with the cached one" in text
    assert "no step's are further apart than 0.0004 of the loss" in text
    assert "no result" not in text
    assert "| auto | 50,000 | 1.2 | 1,000 (1,000 to 1,000) | 0.89 (0.89 to 0.90) × it | 20.00 (10.00 to 40.00)" in text


def test_figures_of_a_busy_machine_are_called_a_trial(page, tmp_path, monkeypatch):
    path = tmp_path / "throughput.json"
    found = FOUND | {"machine": FOUND["machine"] | {"load_before": 3.0}}
    path.write_text(json.dumps(found), encoding="utf-8")
    monkeypatch.setattr(page, "RESULTS", path)
    assert "The machine was busy: this is a trial of the benchmark, and no result." in page.page()


def test_an_accelerator_is_named(page, tmp_path, monkeypatch):
    path = tmp_path / "throughput.json"
    found = FOUND | {"machine": FOUND["machine"] | {"device": "a fast card"}}
    path.write_text(json.dumps(found), encoding="utf-8")
    monkeypatch.setattr(page, "RESULTS", path)
    assert "2 cores, a fast card;" in page.page()
    assert "a CPU's" not in page.page()
