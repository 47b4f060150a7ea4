"""Write the pages that the code already knows: recipes, errors, methods, the decode rule.

    python docs/build.py            writes them
    python docs/build.py --check    says which are out of date, and ends with 1 if one is
    python docs/build.py RUN        puts the figures of a run folder, runs/digits mostly, into README.md

A test runs the second form's comparison, so a page can't drift from the code.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import annotated_types as at

import stillroom
from stillroom import errors
from stillroom.config import recipe, schema
from stillroom.config.plugins import choices, module, pick
from stillroom.data import decode
from stillroom.matching import auto

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

import smaller  # noqa: E402 - stands beside this file
import speed  # noqa: E402
import tables  # noqa: E402

NOTE = "<!-- Written by docs/build.py from the code. Edit the code, then run: python docs/build.py -->\n\n"

LETTERS = {
    "C": "Recipe and command line",
    "D": "Data",
    "S": "Security",
    "M": "Models",
    "T": "Teachers",
    "R": "Resources",
    "E": "Training",
    "X": "Export",
    "B": "Benchmark",
    "N": "Network access",
}

EXITS = {
    "DONE": "all is done",
    "FAILED": "a fault of this program",
    "USAGE": "the command or the recipe is wrong",
    "DATA": "the images are missing or unusable",
    "MODEL": "a model or its weights are refused, or can't be loaded",
    "RESOURCES": "memory, disk, or a folder that another process holds",
    "DIVERGED": "training met numbers that are not finite, and could not recover",
    "UNVERIFIED": "everything is done, but an exported file failed its check",
    "TARGET_MISSED": "everything is done, but no file keeps within the target's budget; or none could",
    "INTERRUPTED": "Ctrl-C; the same command goes on",
    "TERMINATED": "SIGTERM; the same command goes on",
}

SECTIONS: list[tuple[str, str, type]] = [
    ("the top of the file", "", schema.Recipe),
    ("[data]", "data", schema.Data),
    ("[teacher]", "teacher", schema.Teacher),
    ("[student]", "student", schema.Student),
    ("[[methods]]", "methods.0", schema.Method),
    ("[task]", "task", schema.Task),
    ("[train]", "train", schema.Training),
    ("[augment]", "augment", schema.Augment),
    ("[cache]", "cache", schema.Cache),
    ("[[compress]]", "compress.0", schema.Compress),
    ("[deploy]", "deploy", schema.Deploy),
    ("[[export]]", "export.0", schema.Export),
    ("[bench]", "bench", schema.Bench),
]

RECIPES = """\
# Recipes

A recipe is one experiment, written as [TOML](https://toml.io). Nothing in it can run. It is checked whole before
anything starts, and every problem is named at once.

<!-- slow -->
```bash
stillroom new digits --to mine.toml
stillroom check mine.toml
```

**Overrides.** Any value can be given on the command line as `KEY=VALUE`, with dots for sections and numbers for
lists: `train.lr=3e-4`, `methods.0.temperature=2`, `'export=[]'`. The value is read as TOML where it can be, else as
plain text.

**Short forms.** `teacher=timm/vit_base_patch16_224` is short for `teacher.network=...`, and `student=` likewise.
`data=photos/` is short for `data.source=auto` with `data.path=photos/`. A path needs a slash in it, because a bare
word names a source. `methods = ["hinton"]` is short for `[[methods]]` with `name = "hinton"`.

**Several seeds.** `seeds = [0, 1, 2]`, or `--seeds 3` behind a command, makes three runs with one teacher, in
`runs/NAME/seed-0` and its neighbours, and a page of their spread ([several seeds](seeds.md)).

**The teacher's training.** `[teacher.train]` has the keys of `[train]`. What it leaves out comes from `[train]`.

**Several teachers.** `teacher = ["A", "B"]` is short for `[teacher]` with `network = "A"` and a `[[teachers]]` table
with `network = "B"`. A `[[teachers]]` table has the keys of `[teacher]` ([several teachers](teachers.md)).

**Renamed keys.** A key or a name that was renamed is answered with the new one. What a run wrote of itself before is
still read.

**How far the teacher is fitted.** `teacher.finetune` says it: `"none"` takes the teacher as it is, `"head"` fits a new
classifier and nothing else, `"all"` trains the whole network. Left out, it follows from `teacher.weights`:
`"pretrained"` means what the task is used to (a classifier's head, the whole of a detector or a segmenter, nothing of
an embedding), a file means `"none"`, no weights mean `"all"`.

**A smaller student.** `[[compress]]` tables are done in their order, each on what the one before left
([smaller](compressions.md)). `compress = "prune, quantize"` is short for two of them. `[compress.train]` below one has
the keys of `[train]`; what it leaves out comes from `[train]`, a third of its epochs (or steps) and of its rate. With
`[deploy]` and no `[[compress]]` the compression is chosen by measuring ([on the device](deploy.md)); `deploy = "cpu"`
is short for a device profile.

**An empty default** means that the key may be left out; what then happens is in the last column.
"""


COMPARED = {
    "pred": "the predictions",
    "vector": "the pooled inputs of the two classifiers",
    "last": "the last maps or tokens",
    "middle": "the maps or tokens half-way",
    "stages": "the ends of all stages",
    "edges": "the ends of all stages, before their last activation",
    "blocks": "a ViT's first, second and last block",
    "attention": "q, k and v of a ViT's last attention",
    "members": "the predictions of each teacher, and with `features` the input of its classifier",
}

CONDITIONS = {
    "boxes": "the networks say boxes",
    "pixels": "the networks say a class for each pixel",
    "vectors": "the networks say a vector",
    "two-classes": "two classes",
    "vit-to-vit": "two transformers, with labels",
    "cross-architecture": "a transformer and a convolutional network, with labels",
    "strong-teacher": f"the student has at most {auto.GAP:.0%} of the teacher's MACs; or unlike families, no labels",
    "standard": "anything else",
}

EXAMPLES = {
    "boxes": "bccd-detection",
    "pixels": "camvid-segmentation",
    "vectors": "flowers-embedding",
    "two-classes": "",
}
"""Situation -> the recipe that shows it, where it has another name."""

CHOOSING = """\
# Choosing a method

`methods = "auto"` takes the first row that fits, and the run says which it took and why. `stillroom check` says it
before anything is trained. Each situation has a recipe in the package: `stillroom run strong-teacher data=photos/
teacher=... student=...`. The recipes of detection, segmentation and embedding name their methods, so that they stay
what they are; `methods=auto` on the command line replaces them.

<!-- slow -->
```bash
stillroom check digits methods=auto
```

The order follows published evidence more than our own: on ImageNet a strong teacher's raw probabilities made
MobileNetV2 worse (73.6 to 71.7 %) where DIST helped (74.4 %, Huang et al. 2022), and on CIFAR-100 a ResNet-50's
features cost a MobileNetV2 as much as six points (64.6 to 58.6 % with attention transfer, 63.2 % with FitNet, Tian et
al. 2020), while logits helped it (67.4 %). The first three rows rest on our own trials ([log](LOG.md)), which are
small: hundreds of images, minutes of training. What our own benchmark says, under a short budget, is in
[results](method-results.md); it is no proof of these rows. The baseline is trained beside it in every run for
that reason.

| situation | when | methods | recipe | why |
|---|---|---|---|---|"""


def main() -> int:
    """Write the pages, or compare them, or write a run's figures down; the exit code."""
    folders = [word for word in sys.argv[1:] if not word.startswith("-")]
    if folders:
        _write_results(Path(folders[0]))
        return 0
    stale = [name for name, text in pages().items() if not _is_current(name, text)]
    for name in stale:
        print(f"docs/{name}")
        if "--check" not in sys.argv:
            (DOCS / name).write_text(pages()[name], encoding="utf-8")
    return int(bool(stale) and "--check" in sys.argv)


def pages() -> dict[str, str]:
    """File name -> text, for every generated page."""
    made: dict[str, Callable[[], str]] = {
        "recipes.md": recipes,
        "errors.md": catalogue,
        "methods.md": methods,
        "method-results.md": tables.results,
        "choosing.md": choosing,
        "task-results.md": tables.tasks,
        "throughput.md": speed.page,
        "compressions.md": compressions,
        "decode.md": decoding,
    }
    return {name: NOTE + make().rstrip() + "\n" for name, make in made.items()}


def recipes() -> str:
    """Every key with type, default and meaning, then what each source takes, then the built-in recipes."""
    parts = [RECIPES]
    for title, path, kind in SECTIONS:
        parts.append(f"## {title if path == '' else f'`{title}`'}\n\n{inspect.getdoc(kind)}\n")
        parts.append(_keys(kind, path) + "\n")
        if kind is schema.Data:
            parts += [_plugin("data/sources", "source", name) for name in choices("data/sources") if name != "auto"]
        if kind is schema.Task:
            parts += [_plugin("tasks", "name", name) for name in choices("tasks")]
        if kind is schema.Compress:
            parts += [_plugin("compress", "name", name) for name in choices("compress")]
    parts.append("What each method takes besides is on the page [methods](methods.md).\n")
    parts.append("## The built-in recipes\n")
    for name in recipe.built_in():
        text = (recipe.BUILT_IN / f"{name}.toml").read_text(encoding="utf-8")
        parts.append(f"### {name}\n\n```toml\n{text.rstrip()}\n```\n")
    return "\n".join(parts)


def error_kinds() -> dict[str, type[errors.StillroomError]]:
    """Every kind of error by its code; they are all in modules whose name ends in `errors`."""
    for found in pkgutil.walk_packages(stillroom.__path__, "stillroom."):
        if found.name.endswith("errors"):
            importlib.import_module(found.name)
    return dict(sorted(errors.StillroomError.kinds.items()))


def catalogue() -> str:
    """Every way the program refuses."""
    lines = [
        "# Errors",
        "",
        "A refusal has four lines: what, why, what follows from it, and how to mend it. The code in front keeps its",
        "meaning for good. With `--json` the same parts come as JSON on stdout. A traceback is shown with",
        "`-v` only; the run's `run.log` always has it. Words in braces are filled in.",
        "",
        "## Exit codes",
        "",
        "| code | means |",
        "|---:|---|",
        *(f"| {int(code)} | {EXITS[code.name]} |" for code in errors.Exit),
    ]
    for letter, title in LETTERS.items():
        kinds = {code: kind for code, kind in error_kinds().items() if code[3] == letter}
        if kinds:
            lines += ["", f"## {title}"]
        for code, kind in kinds.items():
            block = f"{code} {kind.what}\n  why    {kind.why}\n  effect {kind.effect}\n  fix    {kind.fix}"
            shown = block.replace("{{", "{").replace("}}", "}")
            lines += ["", f"### {code}", "", f"Exit code {int(kind.exit)}.", "", "```text", shown, "```"]
    return "\n".join(lines)


def methods() -> str:
    """What a student can be asked to imitate: formula, source, where the code differs from the authors'."""
    parts = [
        "# Methods",
        "",
        "A recipe lists one or more. Their terms, each times its weight, are added to the task's loss times",
        "`task.weight`.",
        "Weights may climb (`warmup_fraction`) and fall (`decay_start`) over a run; `gradient_balancing = true` makes "
        "them ratios of gradients.",
        "The files are short and start with the maths: `stillroom/methods/`. To write one, see",
        "[add a method](add-a-method.md); to pick one, [choosing](choosing.md); what each did under one budget is in",
        "[results](method-results.md). `stillroom list methods NAME` prints a section of this page.",
        "",
        "| method | compares | weight | in a few words |",
        "|---|---|---:|---|",
    ]
    for name in choices("methods"):
        kind, words = pick("methods", name), (module("methods", name).__doc__ or "").partition("\n")[0]
        parts.append(f"| [{name}](#{name}) | {kind.default_taps} | {kind.weight:g} | {words.partition('. ')[0]} |")
    for name in choices("methods"):
        kind, file = pick("methods", name), module("methods", name)
        parts += ["", f"## {name}", "", _prose(file.__doc__ or ""), "", _prose(kind.__doc__ or "", "Args")]
        parts += ["", f"Compares {COMPARED[kind.default_taps]}. Default weight {kind.weight:g}."]
        parts += ["", *(f"- Measured. {line}" for line in tables.summary(name))]
        parts += ["", _arguments(kind)]
        for function in _functions(file):
            parts += ["", f"### `{function.__name__}{_signature(function)}`", "", _prose(function.__doc__ or "")]
    return "\n".join(parts)


def compressions() -> str:
    """How a network can be made smaller: formula, source, arguments; then what the chain came to."""
    parts = [smaller.INTRODUCTION]
    for name in choices("compress"):
        kind, file = pick("compress", name), module("compress", name)
        parts += [f"## {name}", "", _prose(file.__doc__ or ""), "", _prose(kind.__doc__ or "", "Args")]
        parts += ["", _arguments(kind), ""]
    return "\n".join([*parts, smaller.results()])


def choosing() -> str:
    """What `methods = "auto"` takes, in the order in which it asks."""
    lines = [CHOOSING]
    for rule in auto.RULES:
        names = " + ".join(f"[{one.name}](methods.md#{one.name})" for one in rule.methods)
        why = rule.why.replace("{ratio:.1%}", "so little").replace("{", "*").replace("}", "*")
        example = EXAMPLES.get(rule.situation, rule.situation)
        shown = f"`{example}`" if example else ""
        lines.append(f"| {rule.situation} | {CONDITIONS[rule.situation]} | {names} | {shown} | {why} |")
    return "\n".join(lines)


def decoding() -> str:
    """How a file becomes pixels."""
    title, _, rest = (decode.__doc__ or "").partition("\n")
    name, _, what = title.partition(": ")
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{what[:1].upper()}{what[1:]}",
            rest,
            "The rule is the docstring of `stillroom/data/decode.py`, and tests hold the code to it. What is refused",
            "is on the page [errors](errors.md#data).",
        ]
    )


def _keys(kind: type, path: str) -> str:
    hints = typing.get_type_hints(kind, include_extras=True)
    said = comments(kind)
    rows = [
        f"| `{field.name}` | {_type(hints[field.name])} | {_default(field)} | {_cell(said.get(field.name, ''))} |"
        for field in dataclasses.fields(kind)
        if field.name != "arguments" and not (path == "" and _is_section(hints[field.name]))
    ]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])


def comments(kind: type) -> dict[str, str]:
    """Field -> the comment at the end of its line."""
    found = {}
    for line in inspect.getsource(kind).splitlines():
        match = re.match(r"    (\w+): .*?  # (.+)$", line)
        if match:
            found[match[1]] = match[2]
    return found


def _is_section(hint: Any) -> bool:
    inner = typing.get_args(hint) or (hint,)
    return any(dataclasses.is_dataclass(one) for one in inner)


def _plugin(folder: str, key: str, name: str) -> str:
    kind = pick(folder, name)
    table = _arguments(kind)
    return f'With `{key} = "{name}"`:{" no further keys." if not table else f"{chr(10)}{chr(10)}{table}"}\n'


def _arguments(target: Any) -> str:
    """A table of the keyword arguments of a constructor."""
    takes = _takes(target)
    if not takes:
        return ""
    function = vars(target).get("__init__", target) if isinstance(target, type) else target
    hints = typing.get_type_hints(function, include_extras=True)
    said = _section(target.__doc__ or "", "Args")
    rows = [
        f"| `{p.name}` | {_type(hints[p.name])} | "
        f"{'needed' if p.default is p.empty else _value(p.default)} | {_cell(said.get(p.name, ''))} |"
        for p in takes
    ]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])


def _takes(target: Any) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(target).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _functions(file: types.ModuleType) -> Iterable[Any]:
    """Public functions written in a file, as they stand there."""
    tree = ast.parse(Path(file.__file__ or "").read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    return [getattr(file, name) for name in names]


def _signature(function: Any) -> str:
    return f"({', '.join(inspect.signature(function).parameters)})"


def _section(doc: str, title: str) -> dict[str, str]:
    """The entries below `Args:` or a heading like it: name -> text."""
    body = re.search(rf"^{title}:\n((?:    .*\n?|\n)*)", inspect.cleandoc(doc), re.M)
    found: dict[str, str] = {}
    for line in textwrap.dedent(body[1]).splitlines() if body else []:
        match = re.match(r"([\w, ]+): (.*)", line)
        if match and not line.startswith(" "):
            found |= dict.fromkeys(match[1].split(", "), match[2])
            last = match[1].split(", ")
        elif line.strip():
            for name in last:
                found[name] += " " + line.strip()
    return found


def _prose(doc: str, *without: str) -> str:
    """A docstring as Markdown: `Args:` and its kin become lists, indented formulas stay."""
    text = inspect.cleandoc(doc)
    for title in ("Args", "Returns", "Raises", "Attributes"):
        body = re.search(rf"^{title}:\n((?:    .*\n?|\n)*)", text, re.M)
        if not body:
            continue
        shown = ""
        if title not in without:
            entries = _section(text, title) if title != "Returns" else {}
            lines = [f"- `{name}`: {words}" for name, words in entries.items()]
            shown = f"{title}:\n\n" + "\n".join(lines) if lines else f"{title}: {' '.join(body[1].split())}"
        text = text[: body.start()] + (f"{shown}\n\n" if shown else "") + text[body.end() :]
    return re.sub(r"(?<![<(\w])(https?://[^\s,;)]+)", r"<\1>", text).strip()


def _type(hint: Any) -> str:
    """A type in words: `whole number, at least 1`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return ", ".join([_type(inner[0]), *(_bound(mark) for mark in inner[1:])])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(one) for one in inner if one is not type(None))
    if origin is typing.Literal:
        return " or ".join(f"`{one!r}`".replace("'", '"') for one in inner)
    if origin in (tuple, list):
        return f"list of {_type(inner[0])}s"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    if hint in words:
        return words[hint]
    return "table, as `[train]`" if dataclasses.is_dataclass(hint) else getattr(hint, "__name__", str(hint))


def _bound(mark: Any) -> str:
    forms = {at.Ge: "at least {ge}", at.Gt: "above {gt}", at.Le: "at most {le}", at.Lt: "below {lt}"}
    return forms[type(mark)].format(**dataclasses.asdict(mark))


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return _value(field.default)
    return "needed" if field.default_factory is dataclasses.MISSING else "see there"


def _value(value: Any) -> str:
    if value is None:
        return ""
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
    shown = text or (f"{list(value)}" if isinstance(value, tuple) else f"{value!r}".replace("'", '"'))
    return f"`{shown}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _write_results(folder: Path) -> None:
    """What the command printed at its end, and the row of the results table, both with machine, seeds and command."""
    from rich.console import Console

    from stillroom.cli.tables import results, verdict

    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    console = Console(width=120, highlight=False, color_system=None)
    with console.capture() as said:
        console.print(results(metrics, info.get("task")))
    printed = "\n".join(line.rstrip() for line in said.get().splitlines())
    versions, hardware = info["versions"], info["hardware"]
    about = (
        f"`stillroom demo`, seed {', '.join(map(str, info['seeds']))}; {hardware['cpu']}, {hardware['cores']} cores, "
        f"{hardware['precision']}; torch {versions['torch']}, onnxruntime {versions['onnxruntime']}; "
        f"{metrics['student']['accuracy']['n']} test images; {info['seconds']:.0f} s."
    )
    printed += "\n" + "\n".join(textwrap.wrap(verdict(folder), 110))
    block = f"\n```text\n{printed}\n{Path('runs') / info['name']}/report.html\n```\n\n{about}\n"
    path = DOCS.parent / "README.md"
    path.write_text(_between(path.read_text(encoding="utf-8"), "results", block), encoding="utf-8")


def _between(text: str, name: str, inside: str) -> str:
    before, _, rest = text.partition(f"<!-- {name} -->\n")
    return f"{before}<!-- {name} -->\n{inside}<!-- /{name} -->{rest.partition(f'<!-- /{name} -->')[2]}"


def _is_current(name: str, text: str) -> bool:
    path = DOCS / name
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
