"""The report in a real browser: opened from the disk, network blocked, at the width of a desk and of a phone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.chromium import Chromium
from kit.compressed import make_compressed
from kit.seeds import make_seeds

from stillroom import report
from stillroom.report import multi_seed_page

pytest_plugins = ["kit.fixtures"]

WIDTHS = [1280, 390]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    browser = Chromium()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(made_run: Path) -> Path:
    return report.write(made_run)


@pytest.fixture(scope="module")
def hostile(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with names that want to be code or to burst the layout."""
    run = Path(shutil.copytree(made_run, tmp_path_factory.mktemp("hostile") / "digits"))
    about = json.loads((run / "run.json").read_text())
    about["data"]["classes"] = ["<img src=x onerror=alert(1)>", "w" * 300, *about["data"]["classes"][2:]]
    about["name"] = "</script><script>window.broken = true</script>" + "m" * 200
    about["command"] = about["warnings"][0] = "stillroom run " + "x" * 400
    about["networks"]["student"]["network"] = "timm/" + "n" * 120
    (run / "run.json").write_text(json.dumps(about))
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["exports"][0]["path"] = "exports/" + "f" * 200 + ".onnx"
    metrics["student"]["accuracy"]["how"] = "h" * 300
    (run / "metrics.json").write_text(json.dumps(metrics))
    probe = json.loads((run / "samples" / "probe.json").read_text())
    for image in probe["images"]:
        image["name"] = "p" * 300
    (run / "samples" / "probe.json").write_text(json.dumps(probe))
    (run / "recipe.toml").write_text("k" * 2000)
    return report.write(run)


@pytest.fixture(scope="module")
def compressed(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of compressions, four runtimes, and a target that was missed."""
    return report.write(make_compressed(made_run, tmp_path_factory.mktemp("compressed") / "digits", met=False))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("which", ["page", "hostile", "compressed"])
def test_opens_quietly_and_fits(chromium: Chromium, request: pytest.FixtureRequest, which: str, width: int) -> None:
    file = request.getfixturevalue(which)
    chromium.open(file, width=width)
    assert chromium.complaints() == []
    assert {address.split(":")[0] for address in chromium.requests()} <= {"file", "data"}
    assert sum(address.startswith("file:") for address in chromium.requests()) == 1
    assert chromium.run("window.broken") is None
    assert chromium.run("document.documentElement.scrollWidth") <= width
    beyond = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert chromium.run(f"{beyond}.map(e => e.tagName + '.' + e.getAttribute('class'))") == []
    assert chromium.run("[...document.images].every(image => image.complete && image.naturalWidth === 8)")
    assert chromium.run("document.querySelectorAll('.chart > svg').length") >= 8


@pytest.mark.parametrize("width", WIDTHS)
def test_drawings_open_quietly_and_fit(chromium: Chromium, dense_run: Path, width: int) -> None:
    chromium.open(report.write(dense_run), width=width)
    assert chromium.complaints() == []
    assert {address.split(":")[0] for address in chromium.requests()} <= {"file", "data"}
    assert chromium.run("document.documentElement.scrollWidth") <= width
    beyond = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert chromium.run(f"{beyond}.map(e => e.tagName + '.' + e.getAttribute('class'))") == []
    panels = "[...document.querySelectorAll('.panel svg[role=img]')].map(e => e.getBoundingClientRect())"
    assert chromium.run(f"{panels}.every(box => box.width >= 40 && Math.abs(box.width - box.height) < 2)")
    assert chromium.run(f"{panels}.length") >= 4 * 5
    shown = "[...document.querySelectorAll('.panel use')].map(e => e.getBBox())"
    assert chromium.run(f"{shown}.every(box => box.width === 96 && box.height === 96)")  # the shared picture was found


@pytest.fixture(scope="module")
def seeds(made_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three seeds whose recipe has a name that wants to be code and to burst the layout."""
    figures = {0: (0.99, 0.90, 0.94), 1: (0.99, 0.92, 0.95), 12345678: (0.99, 0.88, 0.96)}
    folder = make_seeds(made_run, tmp_path_factory.mktemp("seeds") / "photos", figures)
    recipe = folder / "recipe.toml"
    name = "<script>window.broken = true</script>" + "m" * 200
    recipe.write_text(recipe.read_text().replace('"photos"', f"'{name}'"))
    report.write(folder / "seed-1")
    return multi_seed_page.write(folder)


@pytest.mark.parametrize("width", WIDTHS)
def test_seeds_open_quietly_and_fit(chromium: Chromium, seeds: Path, width: int) -> None:
    chromium.open(seeds, width=width, dark=width == WIDTHS[0])
    assert chromium.complaints() == [] and len(chromium.requests()) == 1
    assert chromium.run("window.broken") is None
    assert chromium.run("document.documentElement.scrollWidth") <= width
    beyond = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
    assert chromium.run(f"{beyond}.map(e => e.tagName + '.' + e.getAttribute('class'))") == []
    assert chromium.run("document.querySelectorAll('.chart .mark').length") == 9
    joined = "[...document.querySelectorAll('.chart .rule')].map(e => e.getBBox()).every(box => box.height > 30)"
    assert chromium.run(joined)
    links = chromium.run("[...document.links].map(link => link.href)")
    assert links == [(seeds.parent / "seed-1" / "report.html").as_uri()]


def test_a_class_has_one_colour(chromium: Chromium, dense_runs: Path) -> None:
    """What the legend says is what is drawn."""
    chromium.open(report.write(dense_runs / "boxes"), width=1280)
    swatches = "[...document.querySelectorAll('.swatches i')].map(e => getComputedStyle(e).backgroundColor)"
    drawn = "[...new Set([...document.querySelectorAll('.box')].map(e => getComputedStyle(e).stroke))]"
    assert sorted(chromium.run(swatches)) == sorted(chromium.run(drawn)) and len(chromium.run(swatches)) == 3


def test_shows_its_figures(chromium: Chromium, page: Path) -> None:
    metrics = json.loads((page.parent / "metrics.json").read_text())
    chromium.open(page, width=1280)
    said = chromium.run("document.querySelector('table.results').innerText")
    for role in ("teacher", "baseline", "student"):
        assert f"{100 * metrics[role]['accuracy']['value']:.1f} %" in said
    assert said.count("verified") == 2


def test_readout_follows_the_pointer(chromium: Chromium, page: Path) -> None:
    chromium.open(page, width=1280)
    place = "const box = document.querySelector('svg.lines').getBoundingClientRect()"
    chromium.run("document.querySelector('svg.lines').scrollIntoView({block: 'center'})")
    x, y = chromium.run(f"(() => {{ {place}; return [box.left + box.width / 3, box.top + box.height / 2] }})()")
    shown = "document.querySelector('svg.lines .cursor').getAttribute('visibility')"
    assert chromium.run(shown) == "hidden"
    chromium.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    assert chromium.run(shown) == "visible"
    said = chromium.run("document.querySelector('svg.lines .cursor').textContent")
    assert "step " in said and "student " in said and "%" in said
    chromium.ask("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert chromium.run(shown) == "hidden"


@pytest.mark.parametrize("which", ["classes", "boxes"])
def test_light_and_dark_have_contrast(chromium: Chromium, page: Path, dense_runs: Path, which: str) -> None:
    """Text of every role on the page's ground has the 4.5 that WCAG AA asks for."""
    script = """(() => {
      const light = (text) => {
        const parts = text.match(/[\\d.]+/g).map((v) => v / 255);
        const [r, g, b] = parts.map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ground = light(getComputedStyle(document.body).backgroundColor);
      const wanted = [".teacher .name", ".baseline .name", ".student .name", ".note", "h1", ".badge.good", "small"];
      const drawn = [".panel p", ".panel small", ".swatches"];
      const names = [...wanted, ...drawn.filter((name) => document.querySelector(name))];
      const found = names.map((name) => {
        const text = light(getComputedStyle(document.querySelector(name)).color);
        return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
      });
      return [ground, ...found];
    })()"""
    grounds = []
    file = page if which == "classes" else report.write(dense_runs / which)
    for dark in (False, True):
        chromium.open(file, width=1280, dark=dark)
        ground, *contrasts = chromium.run(script)
        grounds.append(ground)
        assert min(contrasts) >= 4.5, contrasts
    assert grounds[0] > 0.9 and grounds[1] < 0.05


def test_reads_without_its_script(chromium: Chromium, page: Path) -> None:
    chromium.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(page, width=1280)
        tree = chromium.ask("DOM.getOuterHTML", nodeId=chromium.ask("DOM.getDocument")["root"]["nodeId"])["outerHTML"]
    finally:
        chromium.ask("Emulation.setScriptExecutionDisabled", value=False)
    assert "polyline" in tree and "cursor" not in tree.split("<script>")[0].split("</style>")[1]
