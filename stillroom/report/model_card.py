"""Run folder -> `README.md`: a model card generated from the files of the run alone."""

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
from stillroom.report import compression_stages, deployment, device_costs, run_data, run_files, snippets, summary, table
from stillroom.report.format import duration, whole
from stillroom.report.gain import verdict
from stillroom.report.run_data import RunData, precision_name
from stillroom.report.table import TextRow

MAX_CLASSES = 20  # listed in the text
OUTPUT = {
    "classes": "logits `[B, K]`, in the order of `classes`.",
    "pixels": "logits `[B, K, H, W]`, in the order of `classes`, as large as the images.",
    "boxes": "of the torch network `[B, A, 4 + K]`, for each of A locations a box in shares of the image and a logit "
    "per class; of an exported file `[B, M, 6]`: left, top, right and bottom in pixels of the input images, "
    "score, class, the highest score first, after non-maximum suppression. Empty rows have score 0 and class -1.",
    "vector": "embeddings `[B, D]`; those of an exported file have length 1, so that a dot product is a cosine.",
}


def card(path: Path) -> Path:
    """`README.md` of the run in the folder `path`, from its files alone.

    Raises:
        NotARunFolder, UnreadableRunFile: SR-C460, SR-C461.
        StillroomError: SR-R501, the disk is full.
    """
    return write_file(Path(path) / "README.md", render(Path(path)))


def render(path: Path) -> str:
    """The card as text."""
    run = run_data.read(path)
    name = str(run.info.get("name") or path.resolve().name)
    text = (
        environment()
        .get_template("card.md")
        .render(
            license=_quoted(run.info.get("license") or run.section("networks", "student").get("licence") or "unknown"),
            library=_quoted(_library(run)),
            tag=_quoted(run.task.tag),
            metric=_quoted(run.task.headline),
            title=run.task.title,
            agreement=table.agreement(run),
            further=table.further(run),
            tags=[_quoted(tag) for tag in _tags(run)],
            index=_model_index(run, name),
            name=name,
            headline=summary.headline(run),
            verdict=verdict(run)[1],
            state=summary.state(run),
            description=_description(run),
            classes=run.classes,
            class_names=", ".join(run.classes[:MAX_CLASSES]) + (", …" if len(run.classes) > MAX_CLASSES else ""),
            use=_intended_use(run),
            teacher=_teacher(run),
            rows=table.rows(run),
            costs=device_costs.rows(run),
            costs_notes=device_costs.notes(run),
            deployment=deployment.read(run),
            limit_columns=deployment.LIMIT_COLUMNS,
            candidate_columns=deployment.CANDIDATE_COLUMNS,
            compression=compression_stages.rows(run),
            compression_columns=compression_stages.columns(run),
            machine=str(run.section("hardware").get("cpu") or ""),
            input=_input(run),
            snippets=_snippets(run),
            training=_training(run),
            recipe=fenced(run.recipe, "toml") if run.recipe else "",
            environment=_environment_lines(run),
            limitations=summary.limitations(run),
            warnings=[str(warning) for warning in run.info.get("warnings") or []],
            digests=run_files.digests(run),
        )
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def escaped(value: Any) -> str:
    """Text that Markdown shows literally: no tag, no link, no table cell, no emphasis, on one line."""
    if isinstance(value, Markup):
        return str(value)
    text = " ".join(str(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)


def fenced(code: str, language: str) -> Markup:
    """A block of code; its fence is longer than any row of backticks inside."""
    longest = max((len(row) for row in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{code.rstrip()}\n{fence}")  # not HTML: a fence is not parsed


@cache
def environment() -> Environment:
    """The templates beside this file; their output is escaped for Markdown."""
    # Jinja's own escaping is for HTML; here `finalize` escapes all values for Markdown.
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=False,
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["whole"] = whole
    templates.globals["grid"] = _grid
    return templates


def _grid(names: Sequence[str], rows: Sequence[TextRow]) -> Markup:
    """A Markdown table with escaped cells."""
    lines = [names, ["---", *("---:" for _ in names[1:])], *((row.title, *row.cells) for row in rows)]
    shown = [[cell if index == 1 else escaped(cell) for cell in line] for index, line in enumerate(lines)]
    return Markup("\n".join("| " + " | ".join(line) + " |" for line in shown))


def _quoted(value: Any) -> Markup:
    """A YAML scalar: a plain word as it is, everything else as a JSON string, which is YAML, too."""
    text = str(value)
    return Markup(text if re.fullmatch(r"[a-z][a-z0-9.-]*", text) else json.dumps(text))


def _library(run: RunData) -> str:
    kind, _, rest = str(run.section("networks", "student").get("network") or "").partition("/")
    # With another task, or after compression, only the backbone is the library's.
    from_library = (
        rest and run.task.predicts_classes and kind in ("timm", "torchvision") and not snippets.is_modified(run)
    )
    return kind if from_library else "stillroom"


def _tags(run: RunData) -> list[str]:
    tags = [run.task.tag, "knowledge-distillation", "stillroom"]
    tags += ["model-compression"] if run.records("compress") else []
    if not run.files:
        return tags
    smallest = precision_name(min(file.bits or 32 for file in run.files))
    return list(dict.fromkeys([*tags, *(file.target for file in run.files), smallest]))


def _model_index(run: RunData, name: str) -> Markup | None:
    """The `model-index` of the front matter, as JSON, which is YAML."""
    value = run.headline(run.model("student"))
    if value is None:
        return None
    source = str(run.section("data").get("source") or "images")
    metric = {"type": run.task.headline, "value": round(value, 6), "name": run.task.title}
    result = {
        "task": {"type": run.task.tag},
        "dataset": {"type": source, "name": source, "split": "test"},
        "metrics": [metric],
    }
    return Markup("- " + json.dumps({"name": name, "results": [result]}))


def _description(run: RunData) -> str:
    student, data = table.network(run, "student") or "a network", run.section("data")
    teacher = table.network(run, "teacher")
    network = f"a {student} distilled from a {teacher}" if teacher else f"a {student}"
    compressions = [str(one.get("what")) for one in run.records("compress")[1:] if one.get("what")]
    network += f" and then compressed ({'; '.join(compressions)})" if compressions else ""
    size = f" of {data['size']} × {data['size']} pixels" if data.get("size") else ""
    colour = {1: "grey ", 3: "colour "}.get(data.get("channels", 0), "")
    noun = run.task.noun or "network"
    article = "An" if noun[:1].lower() in "aeiou" else "A"
    return f"{article} {noun}: {network}, made with Stillroom. Input: {colour}images{size}."


def _intended_use(run: RunData) -> str:
    data = run.section("data")
    source, test = data.get("source") or "its data set", data.get("test")
    measured = f"The metrics below were measured on {test:,} test images of {source}. " if isinstance(test, int) else ""
    use = run.task.use.replace("{classes}", str(len(run.classes)) if run.classes else "its").rstrip(".")
    caution = f"{run.task.caution} " if run.task.caution else ""
    return (
        f"{use or 'The task it was trained for'}, for images like those of {source}. {measured}{caution}"
        "Decisions about people, and any use where a wrong prediction does harm, need an evaluation of their own."
    )


def _teacher(run: RunData) -> list[str]:
    record = run.section("networks", "teacher")
    if not record:
        return []
    lines = [f"Network: {table.network(run, 'teacher')}"]
    for key, title in (
        ("combine", "Ensemble mean of"),
        ("weights", "Weights"),
        ("sha256", "sha256 of the weights"),
        ("licence", "Licence of the weights"),
    ):
        if record.get(key):
            lines.append(f"{title}: {record[key]}")
    if not record.get("licence"):
        lines.append("Licence of the weights: not recorded")
    return lines


def _input(run: RunData) -> Markup:
    files = " Exported files include normalisation and resizing." if run.files else ""
    output = OUTPUT.get(run.task.output_kind, "one tensor.")
    return Markup(f"Input: float32, 0..1, `[B, C, H, W]`, red-green-blue order if C is 3. Output: {output}{files}")


def _snippets(run: RunData) -> list[tuple[str, Markup]]:
    parts = []
    if snippets.has_student(run) and (code := snippets.student(run)):
        parts.append(("The student with torch:", fenced(code, "python")))
    for file in run.files:
        if code := snippets.file(run, file):
            title = f"The {file.label} file" + (":" if file.verified else ", which is UNVERIFIED:")
            parts.append((title, fenced(code, "python")))
    return parts


def _training(run: RunData) -> list[str]:
    data = run.section("data")
    lines = []
    counts = [f"{data[split]:,} {use}" for split, use in _SPLITS if isinstance(data.get(split), int)]
    if counts:
        unlabelled = data.get("unlabelled")
        counts += [f"{whole(unlabelled)} of them without a label"] if unlabelled else []
        lines.append(f"Images: {', '.join(counts)}; fingerprint {data.get('fingerprint') or 'not recorded'}")
    for stage, record in run.section("stages").items():
        if isinstance(record, dict):
            steps = f"{whole(record['steps'])} steps in " if record.get("steps") else ""
            lines.append(f"Stage {stage}: {steps}{duration(record.get('seconds'))}")
    if run.info.get("seeds"):
        lines.append(f"Seeds: {', '.join(map(str, run.info['seeds']))}")
    if run.info.get("command"):
        lines.append(f"Command: {run.info['command']}")
    return lines or ["Nothing was recorded."]


_SPLITS = (("train", "for training"), ("val", "for validation"), ("test", "for testing"))


def _environment_lines(run: RunData) -> list[str]:
    titles = {"cpu": "processor", "memory_gb": "memory in GB"}
    lines = [f"{titles.get(name, name)}: {value}" for name, value in run.section("hardware").items()]
    versions = ", ".join(f"{name} {value}" for name, value in run.section("versions").items())
    return lines + ([f"versions: {versions}"] if versions else []) or ["Nothing was recorded."]
