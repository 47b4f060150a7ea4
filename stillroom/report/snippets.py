"""Code for the model card that loads what a run made: plain torch for the student, its runtime for each exported file.

Names from the folder enter the code as Python literals only, so that none of them can become code. What runs a file is
the snippet of its runtime; of a runtime that is one's own it was kept beside the figures when the file was made.
"""

from __future__ import annotations

import json
from pathlib import Path

from stillroom.report.folder import Folder, Speaker, inside

INLINE = 50  # classes written out; more are read from run.json


def student(folder: Folder) -> str:
    """Code that loads `student.safetensors`: plain timm or torchvision classifiers, or `restore` for other networks."""
    about, arguments = folder.part("networks", "student"), folder.part("networks", "student", "arguments")
    name, answers = about.get("network"), folder.about.answers
    if not isinstance(name, str) or not name or (not folder.classes and answers != "vector"):
        return ""
    header = metadata(folder.path / "student.safetensors")
    shape = _shape(folder)
    extra = "".join(f", {key}={value!r}" for key, value in arguments.items() if key.isidentifier())
    kind, _, rest = name.partition("/")
    channels = int(header.get("channels") or shape[1])
    plain = rest and answers == "classes" and not reformed(folder)  # another form than the library builds
    if plain and kind == "timm" and not arguments.get("distilled"):  # timm has no such argument
        made = f"timm.create_model({rest!r}, num_classes={len(folder.classes)}, in_chans={channels}{extra})"
        lines = ["import timm", *_plain(folder, made, shape, header)]
    elif plain and kind == "torchvision":
        made = f"torchvision.models.get_model({rest!r}, num_classes={len(folder.classes)}{extra})"
        lines = ["import torchvision", *_plain(folder, made, shape, header)]
    else:
        lines = _restored(folder, name, shape, extra)
    return "\n".join([*_json(folder), *lines])


def _restored(folder: Folder, name: str, shape: tuple[int, ...], extra: str) -> list[str]:
    answers = folder.about.answers
    classes = None if answers == "vector" else len(folder.classes)  # a vector is as wide as its network makes it
    said = f", output_kind={answers!r}" if answers != "classes" else ""
    facts = f"classes={classes}, channels={shape[1]}, size={shape[2]}{said}{extra}"
    form = ["# The file says how it was pruned or factorised; the library alone would build another network."]
    return [
        "import torch",
        "from stillroom.models import restore",
        "",
        *(form if reformed(folder) else []),
        *_named(folder),
        f'network = restore({name!r}, "student.safetensors", {facts}).eval()',
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
"""Kind of answers -> what is done with `pred`."""


def _plain(folder: Folder, made: str, shape: tuple[int, ...], header: dict[str, str]) -> list[str]:
    side = header.get("size", "")
    call = f'torch.nn.functional.interpolate(images, ({side}, {side}), mode="bilinear", antialias=True)'
    return [
        "import torch",
        "from safetensors import safe_open",
        "",
        f"classes = {_classes(folder)}",
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


def file(folder: Folder, export: Speaker) -> str:
    """Code that runs one exported file; "" where its runtime has none for the card."""
    parts = export.runtime.snippet if export.runtime else None
    if parts is None or not export.path:
        return ""
    answers = folder.about.answers
    output, *lines = ANSWERS.get(f"one {answers}" if parts.one_image else answers) or ANSWERS.get(answers, ANSWERS[""])
    batch, channels, *size = _shape(folder)
    free = answers == "boxes" and not parts.one_image  # boxes are in pixels of the image as it is
    two = answers == "vector" and not parts.one_image
    shape = (2 if two else batch, channels, *((480, 640) if free else size))
    path = repr(export.path)
    own = [] if answers == "vector" else [line.replace("{path}", path) for line in parts.classes]
    return "\n".join(
        [
            *(_standard(own) if own else _json(folder)),
            *parts.imports,
            "",
            *([] if own else _named(folder)),
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
"""Kind of answers -> what is done with them; "one vector" is that of a file that takes one image a call."""


def metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says about itself: eight bytes of length, then JSON. Empty where that can't be read."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if length < 100_000_000 else {}
        found = header.get("__metadata__", {})
        return {str(name): str(value) for name, value in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def reformed(folder: Folder) -> bool:
    """Whether the student has another form than its family builds, as a pruned one has: its file tells which."""
    return metadata(folder.path / "student.safetensors").get("form", "[]") != "[]"


def there(folder: Folder) -> bool:
    """Whether the student's weights lie in the folder."""
    return inside(folder.path, "student.safetensors") is not None


def _json(folder: Folder) -> list[str]:
    return ["import json", ""] if len(folder.classes) > INLINE and folder.about.answers != "vector" else []


def _standard(lines: list[str]) -> list[str]:
    """Imports of what lines need of Python's own library."""
    return [*(f"import {name}" for name in ("json", "zipfile") if any(f"{name}." in line for line in lines)), ""]


def _named(folder: Folder) -> list[str]:
    return [] if folder.about.answers == "vector" else [f"classes = {_classes(folder)}"]


def _shape(folder: Folder) -> tuple[int, int, int, int]:
    data = folder.part("data")
    return (1, data.get("channels") or 3, data.get("size") or 224, data.get("size") or 224)


def _classes(folder: Folder) -> str:
    if len(folder.classes) > INLINE:
        return 'json.load(open("run.json", encoding="utf-8"))["data"]["classes"]'
    return repr(folder.classes)
