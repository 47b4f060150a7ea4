"""Code of the model card that loads the networks of a run: torch for the student, its runtime for each exported file.

Names from the folder enter the code as Python literals only, so that none of them can become code. A runtime provides
its own snippet; that of a user's runtime was stored beside the metrics when the file was written.
"""

from __future__ import annotations

import json
from pathlib import Path

from stillroom.report.run_data import ModelResult, RunData
from stillroom.report.run_files import file_inside

INLINE = 50  # classes written out; more are read from run.json


def student(run: RunData) -> str:
    """Code that loads `student.safetensors`: plain timm or torchvision classifiers, or `restore` for other networks."""
    about, arguments = run.section("networks", "student"), run.section("networks", "student", "arguments")
    name, answers = about.get("network"), run.task.output_kind
    if not isinstance(name, str) or not name or (not run.classes and answers != "vector"):
        return ""
    header = metadata(run.path / "student.safetensors")
    shape = _shape(run)
    extra = "".join(f", {key}={value!r}" for key, value in arguments.items() if key.isidentifier())
    kind, _, rest = name.partition("/")
    channels = int(header.get("channels") or shape[1])
    plain = (
        rest and answers == "classes" and not is_modified(run)
    )  # after surgery the library would build another network
    if plain and kind == "timm" and not arguments.get("distilled"):  # timm has no such argument
        made = f"timm.create_model({rest!r}, num_classes={len(run.classes)}, in_chans={channels}{extra})"
        lines = ["import timm", *_with_library(run, made, shape, header)]
    elif plain and kind == "torchvision":
        made = f"torchvision.models.get_model({rest!r}, num_classes={len(run.classes)}{extra})"
        lines = ["import torchvision", *_with_library(run, made, shape, header)]
    else:
        lines = _with_stillroom(run, name, shape, extra)
    return "\n".join([*_import_json(run), *lines])


def _with_stillroom(run: RunData, name: str, shape: tuple[int, ...], extra: str) -> list[str]:
    answers = run.task.output_kind
    classes = None if answers == "vector" else len(run.classes)  # a vector is as wide as its network makes it
    output_kind = f", output_kind={answers!r}" if answers != "classes" else ""
    arguments = f"classes={classes}, channels={shape[1]}, size={shape[2]}{output_kind}{extra}"
    note = ["# The file records how it was pruned or factorised; the library alone would build another network."]
    return [
        "import torch",
        "from stillroom.models import restore",
        "",
        *(note if is_modified(run) else []),
        *_class_names(run),
        f'network = restore({name!r}, "student.safetensors", {arguments}).eval()',
        f"images = torch.zeros{shape}  # yours, 0..1",
        "with torch.inference_mode():",
        "    pred = network(images).pred",
        *TORCH.get(answers, ["print(pred.shape)"]),
    ]


TORCH = {
    "classes": ["shares = pred.softmax(1)", "print(classes[int(shares[0].argmax())], float(shares[0].max()))"],
    "pixels": ["mask = pred[0].argmax(0)  # [H, W]", "print({classes[int(k)] for k in mask.unique()})"],
    "boxes": [
        "shares, (scores, labels) = pred[0, :, :4], pred[0, :, 4:].sigmoid().max(1)  # duplicates included",
        "best = int(scores.argmax())",
        "print(classes[int(labels[best])], float(scores[best]), shares[best].tolist())",
    ],
    "vector": ["print(torch.nn.functional.normalize(pred).shape)"],
}
"""Kind of output -> code that uses `pred`."""


def _with_library(run: RunData, made: str, shape: tuple[int, ...], header: dict[str, str]) -> list[str]:
    side = header.get("size", "")
    call = f'torch.nn.functional.interpolate(images, ({side}, {side}), mode="bilinear", antialias=True)'
    return [
        "import torch",
        "from safetensors import safe_open",
        "",
        f"classes = {_classes(run)}",
        'with safe_open("student.safetensors", framework="pt") as file:',
        "    about, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}",
        f"module = {made}",
        "module.load_state_dict(weights)",
        "module.eval()",
        'mean, std = ([float(part) for part in about[name].split(",")] for name in ("mean", "std"))',
        "mean, std = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)",
        f"images = torch.zeros{shape}  # yours, 0..1",
        *([f"images = {call}"] if side.isdigit() and side != str(shape[2]) else []),
        "with torch.inference_mode():",
        "    shares = module((images - mean) / std).softmax(1)",
        "print(classes[int(shares[0].argmax())], float(shares[0].max()))",
    ]


def file(run: RunData, export: ModelResult) -> str:
    """Code that runs one exported file; "" if its runtime has no snippet."""
    parts = export.runtime.snippet if export.runtime else None
    if parts is None or not export.path:
        return ""
    answers = run.task.output_kind
    output, *lines = ANSWERS.get(f"one {answers}" if parts.one_image else answers) or ANSWERS.get(answers, ANSWERS[""])
    batch, channels, *size = _shape(run)
    free = answers == "boxes" and not parts.one_image  # boxes are in pixels of the image as it is
    two = answers == "vector" and not parts.one_image
    shape = (2 if two else batch, channels, *((480, 640) if free else size))
    path = repr(export.path)
    own = [] if answers == "vector" else [line.replace("{path}", path) for line in parts.classes]
    return "\n".join(
        [
            *(_standard_imports(own) if own else _import_json(run)),
            *parts.imports,
            "",
            *([] if own else _class_names(run)),
            *(line.replace("{path}", path) for line in parts.opens),
            *own,
            f"images = np.zeros({shape!r}, dtype=np.float32)  # yours{', of any size' if free else ''}, 0..1",
            *parts.runs,
            output.format(parts.output),
            *lines,
        ]
    )


ANSWERS = {
    "classes": ["logits = {}", "print(classes[int(logits[0].argmax())])"],
    "pixels": ["mask = {}[0].argmax(0)  # [H, W]", "print({classes[k] for k in np.unique(mask)})"],
    "boxes": [
        "boxes = {}[0]",
        "print(boxes.shape)  # a row each: left, top, right, bottom in pixels of this image, score, class",
        "for *box, score, label in boxes.tolist():",
        "    if score >= 0.3:",
        "        print(classes[int(label)], score, box)",
    ],
    "vector": ["one, other = {}", "print(float(one @ other))  # their cosine, for both have length 1"],
    "one vector": ["vector = {}[0]", "print(vector.shape, float(vector @ vector))  # its length is 1"],
    "": ["print({}.shape)"],
}
"""Kind of output -> code that uses it; "one vector" is for a file that takes one image per call."""


def metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file: eight bytes of length, then JSON. Empty if it can't be read."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if length < 100_000_000 else {}
        found = header.get("__metadata__", {})
        return {str(name): str(value) for name, value in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def is_modified(run: RunData) -> bool:
    """Whether the student was pruned or factorised, and its library can't build it alone."""
    return metadata(run.path / "student.safetensors").get("form", "[]") != "[]"


def has_student(run: RunData) -> bool:
    """Whether the folder holds the student's weights."""
    return file_inside(run.path, "student.safetensors") is not None


def _import_json(run: RunData) -> list[str]:
    return ["import json", ""] if len(run.classes) > INLINE and run.task.output_kind != "vector" else []


def _standard_imports(lines: list[str]) -> list[str]:
    """Imports from the standard library that the lines need."""
    return [*(f"import {name}" for name in ("json", "zipfile") if any(f"{name}." in line for line in lines)), ""]


def _class_names(run: RunData) -> list[str]:
    return [] if run.task.output_kind == "vector" else [f"classes = {_classes(run)}"]


def _shape(run: RunData) -> tuple[int, int, int, int]:
    data = run.section("data")
    return (1, data.get("channels") or 3, data.get("size") or 224, data.get("size") or 224)


def _classes(run: RunData) -> str:
    if len(run.classes) > INLINE:
        return 'json.load(open("run.json", encoding="utf-8"))["data"]["classes"]'
    return repr(run.classes)
