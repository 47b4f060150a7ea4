"""Code for the model card that loads what a run made: plain torch for the student, onnxruntime for exported files.

Names from the folder enter the code as Python literals only, so that none of them can become code.
"""

from __future__ import annotations

import json
from pathlib import Path

from stillroom.report.folder import Folder, Speaker, inside

INLINE = 50  # classes written out; more are read from run.json


def student(folder: Folder) -> str:
    """Code that loads `student.safetensors`: plain timm or torchvision, or `restore` for other networks."""
    about, arguments = folder.part("networks", "student"), folder.part("networks", "student", "arguments")
    name, data = about.get("network"), folder.part("data")
    if not isinstance(name, str) or not name or not folder.classes:
        return ""
    header = metadata(folder.path / "student.safetensors")
    shape = (1, data.get("channels") or 3, data.get("size") or 224, data.get("size") or 224)
    extra = "".join(f", {key}={value!r}" for key, value in arguments.items() if key.isidentifier())
    kind, _, rest = name.partition("/")
    channels = int(header.get("channels") or shape[1])
    facts = f"classes={len(folder.classes)}, channels={shape[1]}, size={shape[2]}{extra}"
    if kind == "timm" and rest and not arguments.get("distilled"):  # timm has no such argument
        made = f"timm.create_model({rest!r}, num_classes={len(folder.classes)}, in_chans={channels}{extra})"
        lines = ["import timm", *_plain(folder, made, shape, header)]
    elif kind == "torchvision" and rest:
        made = f"torchvision.models.get_model({rest!r}, num_classes={len(folder.classes)}{extra})"
        lines = ["import torchvision", *_plain(folder, made, shape, header)]
    else:
        lines = [
            "import torch",
            "from stillroom.models import restore",
            "",
            f"classes = {_classes(folder)}",
            f'network = restore({name!r}, "student.safetensors", {facts}).eval()',
            f"images = torch.zeros{shape}  # yours, 0..1",
            "with torch.inference_mode():",
            "    shares = network(images).pred.softmax(1)",
        ]
    return "\n".join([*_json(folder), *lines, "print(classes[int(shares[0].argmax())], float(shares[0].max()))"])


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
    ]


def file(folder: Folder, export: Speaker) -> str:
    """Code that runs one exported ONNX file; "" for other kinds of files."""
    if export.target != "onnx" or not export.path:
        return ""
    data = folder.part("data")
    shape = (1, data.get("channels", 3), data.get("size") or 224, data.get("size") or 224)
    return "\n".join(
        [
            *_json(folder),
            "import numpy as np",
            "import onnxruntime",
            "",
            f"classes = {_classes(folder)}",
            f"session = onnxruntime.InferenceSession({export.path!r})",
            f"images = np.zeros({shape!r}, dtype=np.float32)  # yours, 0..1",
            "logits = session.run(None, {session.get_inputs()[0].name: images})[0]",
            "print(classes[int(logits[0].argmax())])",
        ]
    )


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


def there(folder: Folder) -> bool:
    """Whether the student's weights lie in the folder."""
    return inside(folder.path, "student.safetensors") is not None


def _json(folder: Folder) -> list[str]:
    return ["import json", ""] if len(folder.classes) > INLINE else []


def _classes(folder: Folder) -> str:
    if len(folder.classes) > INLINE:
        return 'json.load(open("run.json", encoding="utf-8"))["data"]["classes"]'
    return repr(folder.classes)
