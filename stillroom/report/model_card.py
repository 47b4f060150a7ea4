"""Run folder -> `README.md`: a model card whose every sentence comes from the run's files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stillroom.io.files import write_file
from stillroom.report import budget, costs, folder, snippets, table, trail, words
from stillroom.report.folder import Folder
from stillroom.report.format import duration, whole
from stillroom.report.table import Line

NAMED = 20  # classes written out in the text
OUTPUT = {
    "classes": "logits `[B, K]`, in the order of `classes`.",
    "pixels": "logits `[B, K, H, W]`, in the order of `classes`, as large as the images.",
    "boxes": "of the torch network `[B, A, 4 + K]`, from each of A places a box in shares of the image and a logit for "
    "each class; of an exported file `[B, M, 6]`: left, top, right and bottom in pixels of the images that it was "
    "given, score, class, the surest first and duplicates removed. Rows without a box have score 0 and class -1.",
    "vector": "vectors `[B, D]`; those of an exported file have length 1, so that a product of two is their cosine.",
}


def card(path: Path) -> Path:
    """`README.md` of the run in the folder `path`, from its files alone.

    Raises:
        StillroomError: SR-C460 `path` is no run folder; SR-C461 one of its files is spoilt; SR-R501 the disk is full.
    """
    return write_file(Path(path) / "README.md", render(Path(path)))


def render(path: Path) -> str:
    """The card as text."""
    found = folder.read(path)
    name = str(found.run.get("name") or path.resolve().name)
    text = (
        environment()
        .get_template("card.md")
        .render(
            license=_quoted(found.run.get("license") or found.part("networks", "student").get("licence") or "unknown"),
            library=_quoted(_library(found)),
            tag=_quoted(found.about.tag),
            metric=_quoted(found.about.headline),
            title=found.about.title,
            agreement=table.agreement(found),
            further=table.further(found),
            tags=[_quoted(tag) for tag in _tags(found)],
            index=_index(found, name),
            name=name,
            headline=words.headline(found),
            verdict=words.verdict(found)[1],
            state=words.state(found),
            what=_what(found),
            classes=found.classes,
            some=", ".join(found.classes[:NAMED]) + (", …" if len(found.classes) > NAMED else ""),
            use=_use(found),
            teacher=_teacher(found),
            rows=table.rows(found),
            costs=costs.rows(found),
            costs_notes=costs.notes(found),
            budget=budget.read(found),
            limit_names=budget.LIMITS,
            candidate_names=budget.CANDIDATES,
            trail=trail.lines(found),
            trail_names=trail.names(found),
            machine=str(found.part("hardware").get("cpu") or ""),
            input=_input(found),
            snippets=_snippets(found),
            training=_training(found),
            recipe=fenced(found.recipe, "toml") if found.recipe else "",
            environment=_environment_lines(found),
            limits=words.limits(found),
            warnings=[str(warning) for warning in found.run.get("warnings") or []],
            digests=folder.digests(found),
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def escaped(said: Any) -> str:
    """Text that Markdown shows as it is: no tag, no link, no table cell, no emphasis, on one line."""
    if isinstance(said, Markup):
        return str(said)
    text = " ".join(str(said).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)


def fenced(code: str, language: str) -> Markup:
    """A block of code, its fence longer than any row of backticks inside."""
    longest = max((len(row) for row in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{code.rstrip()}\n{fence}")  # not HTML: inside the fence nothing is read


@cache
def environment() -> Environment:
    """Of the templates beside this file; what they print is escaped for Markdown."""
    # Jinja's own escaping is for HTML; here whatever a template prints goes through Markdown's.
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["whole"] = whole
    made.globals["grid"] = _grid
    return made


def _grid(names: Sequence[str], lines: Sequence[Line]) -> Markup:
    """A plain table, what is in it escaped."""
    rows = [names, ["---", *("---:" for _ in names[1:])], *((line.title, *line.cells) for line in lines)]
    shown = [[cell if place == 1 else escaped(cell) for cell in row] for place, row in enumerate(rows)]
    return Markup("\n".join("| " + " | ".join(row) + " |" for row in shown))


def _quoted(value: Any) -> Markup:
    """A YAML scalar. A plain word stays bare; everything else is a JSON string, which YAML reads too."""
    text = str(value)
    return Markup(text if re.fullmatch(r"[a-z][a-z0-9.-]*", text) else json.dumps(text))


def _library(found: Folder) -> str:
    kind, _, rest = str(found.part("networks", "student").get("network") or "").partition("/")
    sorts = found.about.answers == "classes"  # else only the trunk is theirs
    theirs = rest and sorts and kind in ("timm", "torchvision") and not snippets.reformed(found)
    return kind if theirs else "stillroom"


def _tags(found: Folder) -> list[str]:
    tags = [found.about.tag, "knowledge-distillation", "stillroom"]
    tags += ["model-compression"] if found.table("compress") else []
    return list(dict.fromkeys(tags + [file.target for file in found.files] + [_bits(found)])) if found.files else tags


def _bits(found: Folder) -> str:
    return folder.kind(min(file.bits or 32 for file in found.files))


def _index(found: Folder, name: str) -> Markup | None:
    """The `model-index` of the front matter, as JSON, which is YAML."""
    value = found.leads(found.speaker("student"))
    if value is None:
        return None
    source = str(found.part("data").get("source") or "images")
    metric = {"type": found.about.headline, "value": round(value, 6), "name": found.about.title}
    result = {
        "task": {"type": found.about.tag},
        "dataset": {"type": source, "name": source, "split": "test"},
        "metrics": [metric],
    }
    return Markup("- " + json.dumps({"name": name, "results": [result]}))


def _what(found: Folder) -> str:
    student, data = table.network(found, "student") or "a network", found.part("data")
    teacher = table.network(found, "teacher")
    taught = f"a {student} that learned from a {teacher}" if teacher else f"a {student}"
    taught += _compressed(found)
    size = f" of {data['size']} × {data['size']} pixels" if data.get("size") else ""
    colour = {1: "grey ", 3: "colour "}.get(data.get("channels", 0), "")
    noun = found.about.noun or "network"
    article = "An" if noun[:1].lower() in "aeiou" else "A"
    return f"{article} {noun}: {taught}, made by Stillroom. It takes {colour}images{size}."


def _compressed(found: Folder) -> str:
    """What made it smaller, one after the other; the first of the chain is the student as it was taught."""
    done = [str(one.get("what")) for one in found.table("compress")[1:] if one.get("what")]
    return f" and was then compressed ({'; '.join(done)})" if done else ""


def _use(found: Folder) -> str:
    data = found.part("data")
    source, test = data.get("source") or "its data set", data.get("test")
    seen = f"The figures below come from {test:,} test images of {source}. " if isinstance(test, int) else ""
    use = found.about.use.replace("{classes}", str(len(found.classes)) if found.classes else "its").rstrip(".")
    caution = f"{found.about.caution} " if found.about.caution else ""
    return (
        f"{use or 'What it was trained for'}, for images like those of {source} that it was trained on. {seen}{caution}"
        "Decisions about people, and any use where a wrong answer does harm, need an evaluation of their own."
    )


def _teacher(found: Folder) -> list[str]:
    about = found.part("networks", "teacher")
    if not about:
        return []
    lines = [f"Network: {table.network(found, 'teacher')}"]
    for key, title in (
        ("combine", "Averaged over the teachers"),
        ("weights", "Weights"),
        ("sha256", "sha256 of the weights"),
        ("licence", "Licence of the weights"),
    ):
        if about.get(key):
            lines.append(f"{title}: {about[key]}")
    if not about.get("licence"):
        lines.append("Licence of the weights: not recorded")
    return lines


def _input(found: Folder) -> Markup:
    alone = " Exported files normalise and resize for themselves." if found.files else ""
    said = OUTPUT.get(found.about.answers, "one tensor.")
    return Markup(f"Input: float32, 0..1, `[B, C, H, W]`, red-green-blue order where C is 3. Output: {said}{alone}")


def _snippets(found: Folder) -> list[tuple[str, Markup]]:
    parts = []
    if snippets.there(found) and (code := snippets.student(found)):
        parts.append(("The student with torch:", fenced(code, "python")))
    for file in found.files:
        if code := snippets.file(found, file):
            title = f"The {file.label} file" + (":" if file.verified else ", which is UNVERIFIED:")
            parts.append((title, fenced(code, "python")))
    return parts


def _training(found: Folder) -> list[str]:
    data = found.part("data")
    lines = []
    counts = [f"{data[part]:,} {said}" for part, said in _SPLITS if isinstance(data.get(part), int)]
    if counts:
        blind = data.get("unlabelled")
        counts += [f"{whole(blind)} of them without a label"] if blind else []
        lines.append(f"Images: {', '.join(counts)}; fingerprint {data.get('fingerprint') or 'not recorded'}")
    for stage, spent in found.part("stages").items():
        if isinstance(spent, dict):
            steps = f"{whole(spent['steps'])} steps in " if spent.get("steps") else ""
            lines.append(f"Stage {stage}: {steps}{duration(spent.get('seconds'))}")
    if found.run.get("seeds"):
        lines.append(f"Seeds: {', '.join(map(str, found.run['seeds']))}")
    if found.run.get("command"):
        lines.append(f"Command: {found.run['command']}")
    return lines or ["Nothing was recorded."]


_SPLITS = (("train", "for training"), ("val", "for validation"), ("test", "for the test"))


def _environment_lines(found: Folder) -> list[str]:
    titles = {"cpu": "processor", "memory_gb": "memory in GB"}
    lines = [f"{titles.get(name, name)}: {value}" for name, value in found.part("hardware").items()]
    versions = ", ".join(f"{name} {value}" for name, value in found.part("versions").items())
    return lines + ([f"versions: {versions}"] if versions else []) or ["Nothing was recorded."]
