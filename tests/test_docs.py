"""What the pages say is so: their commands run, their links lead somewhere, generated pages are those of the code.

A fenced block is run when it is `bash`, or `python` with a comment `<!-- run -->` on the line before. Further comments:

    <!-- not run: reason -->    passed over
    <!-- slow -->               run in the slow tier only
    <!-- ends with 4 -->        the exit code that is expected
    <!-- file: mine/x.py -->    written to that file

A page's blocks run in order, in one folder, through the command that a reader would type.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from kit.command import bash, python
from scipy import stats

from stillroom import cli
from stillroom.config import recipe, schema
from stillroom.config.plugins import choices, pick
from stillroom.config.renamed import RENAMED

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
RUN = [
    "README.md",
    "docs/first-run.md",
    "docs/own-images.md",
    "docs/add-a-method.md",
    "docs/add-a-task.md",
    "docs/detection.md",
    "docs/segmentation.md",
    "docs/embedding.md",
    "docs/unlabelled.md",
    "docs/recipes.md",
    "docs/choosing.md",
    "docs/teachers.md",
    "docs/seeds.md",
    "docs/cluster.md",
]
BLOCK = re.compile(r"^((?:<!-- [^\n]* -->\n)*)```(\w*)\n(.*?)^```$", re.M | re.S)
NOT_RUN = 10
"""Blocks that nobody runs. A page that needs one more must say why here, by changing the number."""


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    marks: str

    @property
    def slow(self) -> bool:
        return "slow" in self.marks

    @property
    def skipped(self) -> bool:
        return "not run:" in self.marks

    @property
    def file(self) -> str | None:
        found = re.search(r"file: (\S+)", self.marks)
        return found and found[1]

    @property
    def code(self) -> int:
        found = re.search(r"ends with (\d+)", self.marks)
        return int(found[1]) if found else 0

    @property
    def meant(self) -> bool:
        """Whether it is there to be run."""
        marked = self.language == "python" and re.search(r"<!-- (run|slow|file)", self.marks)
        return not self.skipped and bool(self.language == "bash" or marked)


def blocks(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start()].count("\n") + 1, found[2], found[3], found[1])
        for found in BLOCK.finditer(text)
    ]


def name(path):
    return path.relative_to(ROOT).as_posix()


def in_folder(block, folder):
    """The block, done as a reader would in `folder`."""
    if block.file:
        target = folder / block.file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(block.text, encoding="utf-8")
        return
    done = python(block.text, folder) if block.language == "python" else bash(block.text, folder)
    where = f"{block.page}, line {block.line}: exit code {done.returncode}, not {block.code}"
    assert done.returncode == block.code, f"{where}\n{block.text}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr and "SR-0000" not in done.stderr, f"{where}\n{done.stderr}"


def walk(page, folder, demo, *, slow):
    shutil.copytree(demo.folder, folder / "runs" / "digits")  # what the reader of any page has made by then
    todo = [block for block in blocks(page) if block.meant and (slow or not block.slow)]
    for block in todo:
        in_folder(block, folder)
    return todo


@pytest.mark.parametrize("page", RUN)
def test_commands(page, tmp_path, demo):
    ran = walk(page, tmp_path, demo, slow=False)
    assert ran or page in ("README.md", "docs/recipes.md", "docs/choosing.md", "docs/seeds.md", "docs/cluster.md")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in RUN if any(block.slow for block in blocks(page))])
def test_slow_commands(page, tmp_path, demo):
    assert any(block.slow for block in walk(page, tmp_path, demo, slow=True))


def test_what_is_not_run_says_why():
    skipped = [block for page in RUN for block in blocks(page) if block.skipped]
    assert all(re.search(r"not run: \w.{10,}", block.marks) for block in skipped)
    assert len(skipped) == NOT_RUN


def test_every_mark_is_understood():
    for page in RUN:
        for block in blocks(page):
            rest = re.sub(r"not run: .*?(?= -->)|file: \S+|ends with \d+|slow|run|results|[/,]", "", block.marks)
            assert not re.sub(r"<!--|-->|\s", "", rest), f"{page}, line {block.line}: {block.marks}"


def builder():
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date():
    for page, text in builder().pages().items():
        assert (ROOT / "docs" / page).read_text(encoding="utf-8") == text, f"{page}: run python docs/build.py"


def test_every_key_of_a_recipe_is_explained():
    build = builder()
    for _, _, kind in build.SECTIONS:
        fields = {field.name for field in build.dataclasses.fields(kind)} - {"arguments"}
        known = set(build.typing.get_type_hints(kind)) if kind is schema.Recipe else set()
        tables = {
            "data",
            "student",
            "teacher",
            "task",
            "augment",
            "methods",
            "train",
            "cache",
            "export",
            "bench",
        } & known
        assert fields - tables == build.comments(kind).keys()


@pytest.mark.parametrize("built_in", recipe.built_in())
def test_every_recipe_is_valid(built_in):
    assert recipe.read(built_in).name == built_in


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.is_file(), f"{name(path)}: {link}"
        assert target.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(target), f"{name(path)}: {link}"


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    heads = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_verbs_and_names_exist(path):
    """`stillroom VERB`, `stillroom list KIND`, `stillroom new NAME`, wherever a page says so."""
    text = path.read_text(encoding="utf-8")
    spoken = re.findall(r"(?:`|^\s*)stillroom ([a-z]+)(?: ([\w-]+))?", text, re.M)
    for verb, word in spoken:
        assert verb in cli.main.commands, f"{name(path)}: stillroom {verb}"
        if verb == "list" and word:
            assert word in (*cli.around.KINDS, "KIND"), f"{name(path)}: stillroom list {word}"
        if verb == "new" and word:
            assert word in (*recipe.built_in(), "NAME"), f"{name(path)}: stillroom new {word}"


HISTORY = {"docs/LOG.md", "CHANGELOG.md"}
"""Pages that tell of names as they were."""

REFERRING = [path for path in PAGES if name(path) not in HISTORY]

SECTION_KEYS = {
    name: {field.name for field in dataclasses.fields(kind)}
    for name, kind in (
        ("data", schema.Data),
        ("augment", schema.Augment),
        ("task", schema.Task),
        ("train", schema.Training),
        ("teacher", schema.Teacher),
        ("student", schema.Student),
        ("cache", schema.Cache),
        ("deploy", schema.Deploy),
    )
}
"""Section of a recipe -> its keys; what else may stand there goes to a plug-in, and its page is written from it."""


@pytest.mark.parametrize("path", REFERRING, ids=name)
def test_references_to_files_exist(path):
    """`stillroom/io/files.py`, `tests/...`, `docs/...`, `benchmarks/...` wherever a page names one."""
    text = path.read_text(encoding="utf-8")
    for file in re.findall(r"(?<![\w/.~-])((?:stillroom|tests|docs|benchmarks)/[\w./-]*\w)", text):
        if "." in file.rpartition("/")[2] and not file.startswith("tests/results"):
            assert (ROOT / file).exists(), f"{name(path)}: {file}"


@pytest.mark.parametrize("path", REFERRING, ids=name)
def test_references_to_code_resolve(path):
    """`stillroom.module.symbol` in backticks, in imports and in prose."""
    for dotted in re.findall(r"(?<![\w/.])stillroom((?:\.[A-Za-z_]\w*)+)", path.read_text(encoding="utf-8")):
        parts = dotted.strip(".").split(".")
        if parts[-1] in ("toml", "local"):
            continue
        found = importlib.import_module("stillroom")
        for i, part in enumerate(parts):
            with contextlib.suppress(ImportError):
                importlib.import_module(".".join(["stillroom", *parts[: i + 1]]))
            assert hasattr(found, part), f"{name(path)}: stillroom{dotted}"
            found = getattr(found, part)


@pytest.mark.parametrize("path", REFERRING, ids=name)
def test_references_to_recipe_keys_exist(path):
    """`train.lr` in backticks, or `train.lr=...` in a command; a plug-in's own arguments are its page's business."""
    text = path.read_text(encoding="utf-8")
    for section, key in re.findall(r"(?<![\w./-])(\w+)\.(\w+)(?==|`| =)", text):
        if section in ("augment", "train", "cache", "deploy") and key != "json":  # cache.json is a file
            assert key in SECTION_KEYS[section], f"{name(path)}: {section}.{key}"
        assert key not in RENAMED.get(section, {}), f"{name(path)}: {section}.{key} was renamed"


@pytest.mark.parametrize("path", REFERRING, ids=name)
def test_options_of_commands_exist(path):
    for verb, rest in re.findall(r"(?:`|^\s*)stillroom ([a-z]+)([^`\n]*)", path.read_text(encoding="utf-8"), re.M):
        known = {option for parameter in cli.main.commands[verb].params for option in parameter.opts}
        for option in re.findall(r"(?<=\s)(--[a-z-]+)", rest.partition("#")[0]):
            assert option in known | {"--help"}, f"{name(path)}: stillroom {verb} {option}"


def test_help_names_recipes_that_exist():
    for verb, command in cli.main.commands.items():
        for word in re.findall(r"stillroom (?:new|check|run) ([a-z]+)(?=\s|$)", click.unstyle(command.help or "")):
            assert word in recipe.built_in(), f"stillroom {verb} --help names {word}"


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_nothing_of_one_machine(path):
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"(?<![\w.])/(?:work|root|home|tmp|mnt|Users)/\S*", text)
    found += re.findall(r"\b(?:co-authored|generated with|assistant|transcript)\b", text, re.I)
    assert not found, f"{name(path)}: {found}"


def test_every_method_and_source_has_its_place():
    methods = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    assert all(f"\n## {one}\n" in methods for one in choices("methods"))
    recipes = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert all(f'`source = "{one}"`' in recipes for one in choices("data/sources") if one != "auto")


def test_a_method_that_costs_more_than_two_of_hintons_steps_says_why():
    """The benchmark's ratio; a method without a row was not measured, and fails. Detectors have no Hinton."""
    tables = builder().tables
    names = [name for name in choices("methods") if pick("methods", name).supports("classes")]
    cost = {name: max(tables.ratio(s, name) for s in tables.TITLES if tables.measured(s, name)) for name in names}
    for method, ratio in cost.items():
        said = inspect.getdoc(pick("methods", method)) or ""
        assert ratio <= 2 or "\nCost:" in said, (
            f"{method}: a step takes {ratio:.2f} of Hinton's, and its docs say no why"
        )


def test_a_verdict_claims_no_more_than_its_interval():
    """Paired by seed: scipy's interval of the mean difference, and a loss called a loss."""
    tables = builder().tables
    for gain, said in (
        ([0.02, 0.021, 0.019], "helps"),
        ([-0.02, -0.021, -0.019], "**loses**"),
        ([0.02, -0.01, 0.01], "helps, within the noise"),
        ([-0.02, 0.01, -0.01], "loses, within the noise"),
    ):
        low, high = stats.ttest_1samp(gain, 0).confidence_interval()
        assert tables._verdict(gain) == said
        assert tables._interval(gain) == f"{100 * sum(gain) / 3:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def test_the_cpu_builds_are_the_tested_versions():
    pins = dict(re.findall(r"^(torch|torchvision)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M))
    said = re.findall(r"\b(torch|torchvision)==([\d.]+)", (ROOT / "docs" / "install.md").read_text(encoding="utf-8"))
    assert dict(said) == pins
