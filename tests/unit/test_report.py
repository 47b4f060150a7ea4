"""The report and the card: what is in them, and what must never come out of them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kit.page import Page, change

from stillroom import report
from stillroom.errors import StillroomError
from stillroom.report import gain, gallery, run_data, run_files, summary

pytest_plugins = ["kit.fixtures"]

HOSTILE = "<img src=x onerror=alert(1)>"


def test_every_figure_of_metrics_json_is_on_the_page_and_in_the_card(made_run: Path) -> None:
    text, card = Page(report.write(made_run).read_text()).text, report.card(made_run).read_text()
    metrics = json.loads((made_run / "metrics.json").read_text())
    models = [metrics[role] for role in ("teacher", "baseline", "student")] + metrics["exports"]
    for model in models:
        for shown in (text, card):
            assert f"{100 * model['accuracy']['value']:.1f} %" in shown
            low, high = (100 * end for end in model["accuracy"]["ci95"])
            assert f"{low:.1f}–{high:.1f} %, n 450" in shown
            assert np.format_float_positional(float(f"{model['latency_ms']['value']:.3g}"), trim="-") in shown
            if "agreement" in model:
                assert f"{100 * model['agreement']['value']:.1f} %" in shown
        for metric in model.values():
            if isinstance(metric, dict):
                assert metric["how"] in text
    assert text.count("verified") >= 2 and "UNVERIFIED" not in text
    ratio = metrics["student"]["accuracy"]["value"] / metrics["teacher"]["accuracy"]["value"]
    headline = summary.headline(run_data.read(made_run))
    assert headline in text and f"{100 * ratio:.1f} %" in headline and "10.9 %" in headline


def test_page_is_well_formed_and_loads_nothing(made_run: Path) -> None:
    text = report.write(made_run).read_text()
    found = Page(text)
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"link", "iframe", "object", "embed", "audio", "video", "source", "form", "base", "image", "use"}
    for tag, attributes in found.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href", "background"):
            if attributes.get(name) is not None:
                assert (attributes[name] or "").startswith(("data:image/png;base64,", "#")), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "://" not in text.replace("http://www.w3.org/2000/svg", "")  # the name of SVG in the script, not an address
    assert not re.search(r"@import|url\(", text)


def test_policy_allows_the_one_script_of_the_page(made_run: Path) -> None:

    text = report.write(made_run).read_text()
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text and "default-src 'none'" in text


def test_hostile_names_stay_text(run_copy: Path) -> None:
    def spoil(value: dict[str, Any]) -> None:
        value["data"]["classes"][3] = HOSTILE
        value["name"] = value["command"] = value["hardware"]["cpu"] = f"</title><script>{HOSTILE}"
        value["networks"]["student"]["network"] = '"); import os; os.abort(); ("' + HOSTILE
        value["networks"]["student"]["arguments"] = {"x=1); import os; (y": 1, "width": HOSTILE}
        value["warnings"] = [f"]]>--></script>{HOSTILE}", "| a | `b` ``` [c](http://d) |"]

    change(run_copy / "run.json", spoil)
    change(run_copy / "metrics.json", lambda m: m["student"]["recall"]["value"].update({HOSTILE: 0.5}))
    change(
        run_copy / "metrics.json", lambda m: m["exports"][0].update({"path": f"exports/{HOSTILE}", "target": HOSTILE})
    )
    change(run_copy / "samples" / "probe.json", lambda p: [image.update(name=f'"{HOSTILE}') for image in p["images"]])
    (run_copy / "recipe.toml").write_text(f"# </pre></code>{HOSTILE}\n````\n")
    with (run_copy / "steps.jsonl").open("a") as stream:
        stream.write(json.dumps({"stage": f'"{HOSTILE}', "step": 1, "terms": {f"'{HOSTILE}": 1.0}, "lr": 1.0}) + "\n")

    found = Page(report.write(run_copy).read_text())
    assert HOSTILE in found.text  # shown as it is
    assert not any("onerror" in attributes for _, attributes in found.elements)
    assert [tag for tag, _ in found.elements].count("script") == 1
    assert all((a["src"] or "").startswith("data:") for tag, a in found.elements if tag == "img")

    card = report.card(run_copy).read_text()
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", card.split("\n---\n", 1)[1], flags=re.S | re.M)
    assert "<" not in outside and "[c](" not in outside
    for block in re.findall(r"^```+python\n(.*?)^```+$", card, re.S | re.M):
        assert "os.abort" not in {node for node in _calls(block)}
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "unknown"


def _calls(code: str) -> list[str]:
    import ast

    return [ast.unparse(node.func) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]


def test_files_outside_of_the_folder_are_not_read(run_copy: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    shutil.copy(run_copy / "samples" / "0000.png", secret)
    (run_copy / "samples" / "link.png").symlink_to(secret)
    for name in ("../../secret.png", str(secret), "link.png", "\0", "", "x" * 5000):
        change(
            run_copy / "samples" / "probe.json", lambda p, name=name: [image.update(file=name) for image in p["images"]]
        )
        assert all(
            not picture.source for group in gallery.build(run_data.read(run_copy)).groups for picture in group.images
        )
    change(run_copy / "metrics.json", lambda m: m["exports"][0].update(path="../secret.png"))
    assert "secret.png" not in [name for name, _, _ in run_files.digests(run_data.read(run_copy))]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "null", "1e999", '"many"', "true", "[1]"])
def test_what_is_not_finite_is_shown_as_missing(run_copy: Path, value: str) -> None:
    def spoil(metrics: dict[str, Any]) -> None:
        for model in (metrics["teacher"], metrics["student"], metrics["exports"][0]):
            for name in ("accuracy", "agreement", "macs", "bytes", "latency_ms", "throughput"):
                if name in model:
                    model[name] |= {"value": "SPOILT", "ci95": ["SPOILT", "SPOILT"]}
        metrics["student"]["recall"]["value"]["3"] = "SPOILT"

    change(run_copy / "metrics.json", spoil)
    change(
        run_copy / "samples" / "probe.json",
        lambda p: p["images"][0]["answers"].update(student={"logits": ["SPOILT"] * 10}),
    )
    for file in (run_copy / "metrics.json", run_copy / "samples" / "probe.json"):
        file.write_text(file.read_text().replace('"SPOILT"', value))
    with (run_copy / "steps.jsonl").open("a") as stream:
        stream.write(f'{{"stage": "student", "step": 9999, "terms": {{"task/ce": {value}}}, "lr": {value}}}\n')
    text, card = Page(report.write(run_copy).read_text()).text, report.card(run_copy).read_text()
    for shown in (text, card.replace("session.run(None, ", "")):
        assert not re.search(r"\b(nan|NaN|inf|Infinity|None)\b", shown)
    assert summary.headline(run_data.read(run_copy)) in text and "%" not in summary.headline(run_data.read(run_copy))


@pytest.mark.parametrize(
    "missing",
    ["metrics.json", "recipe.toml", "steps.jsonl", "evals.jsonl", "samples", "exports", "student.safetensors"],
)
def test_a_missing_part_leaves_a_page(run_copy: Path, missing: str) -> None:
    part = run_copy / missing
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    assert "digits-demo" in Page(report.write(run_copy).read_text()).text
    assert report.card(run_copy).read_text().startswith("---\nlicense: unknown\n")


def test_an_almost_empty_folder_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"status": "failed", "exit_code": 6}')
    page = Page(report.write(tmp_path).read_text())
    (state,) = [a for _, a in page.elements if a.get("class") == "state"]
    assert state["role"] == "alert" and "“failed”" in page.text and "table" not in {tag for tag, _ in page.elements}
    report.card(tmp_path)


@pytest.mark.parametrize("role", ["teacher", "baseline", "student"])
def test_a_missing_model_leaves_a_page(run_copy: Path, role: str) -> None:
    change(run_copy / "metrics.json", lambda metrics: metrics.pop(role))
    change(run_copy / "metrics.json", lambda metrics: metrics["exports"].clear())
    page, run = Page(report.write(run_copy).read_text()), run_data.read(run_copy)
    rows = [a["class"] for tag, a in page.elements if tag == "tr" and a.get("class")]
    assert role not in rows and {"teacher", "baseline", "student"} - {role} == set(rows)
    headline, verdict = summary.headline(run), gain.verdict(run)
    assert headline in page.text and verdict[1] in page.text
    student = run.headline(run.model("student"))
    assert ("%" in headline) == (role != "student")
    assert role != "teacher" or (headline.count("%") == 1 and f"{100 * (student or 0):.1f} %" in headline)
    assert (verdict[0] == "unknown") == (role != "teacher")
    report.card(run_copy)


def test_refuses_what_is_no_run_folder_or_is_spoilt(run_copy: Path, tmp_path: Path) -> None:
    with pytest.raises(StillroomError) as nothing:
        report.write(tmp_path / "nowhere")
    assert nothing.value.code == "SR-C460" and not (tmp_path / "nowhere").exists()
    (run_copy / "metrics.json").write_text('{"teacher": ')
    with pytest.raises(StillroomError, match=r"metrics\.json") as spoilt:
        report.card(run_copy)
    assert spoilt.value.code == "SR-C461"
    (run_copy / "metrics.json").write_text("[]")
    with pytest.raises(StillroomError, match="expected an object"):
        report.write(run_copy)


def test_needs_no_torch_and_gives_the_same_bytes_again(made_run: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from stillroom import report; f = Path(sys.argv[1]);"
        "report.write(f); report.card(f);"
        "print(sorted({'torch', 'stillroom.config.recipe', 'numpy'} & set(sys.modules)))"
    )
    before = report.write(made_run).read_bytes(), report.card(made_run).read_bytes()
    done = subprocess.run([sys.executable, "-c", code, str(made_run)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
    assert before == ((made_run / "report.html").read_bytes(), (made_run / "README.md").read_bytes())
    assert not list(made_run.glob(".tmp-*"))
