"""Code for the model card that loads what a run made: plain torch for the student, its runtime for each exported file.

Names from the folder enter the code as Python literals only, so that none of them can become code.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from stillroom.report.run_data import ModelResult, RunData
from stillroom.report.run_files import file_inside

INLINE = 50  # classes written out; more are read from run.json


def student(run: RunData) -> str:
    """Code that loads `student.safetensors`: plain timm or torchvision classifiers, or `restore` for other networks."""
    about, arguments = run.section("networks", "student"), run.section("networks", "student", "arguments")
    name, answers = about.get("network"), run.task.answers
    if not isinstance(name, str) or not name or (not run.classes and answers != "vector"):
        return ""
    header = metadata(run.path / "student.safetensors")
    shape = _shape(run)
    extra = "".join(f", {key}={value!r}" for key, value in arguments.items() if key.isidentifier())
    kind, _, rest = name.partition("/")
    channels = int(header.get("channels") or shape[1])
    plain = rest and answers == "classes" and not reformed(run)  # another form than the library builds
    if plain and kind == "timm" and not arguments.get("distilled"):  # timm has no such argument
        made = f"timm.create_model({rest!r}, num_classes={len(run.classes)}, in_chans={channels}{extra})"
        lines = ["import timm", *_plain(run, made, shape, header)]
    elif plain and kind == "torchvision":
        made = f"torchvision.models.get_model({rest!r}, num_classes={len(run.classes)}{extra})"
        lines = ["import torchvision", *_plain(run, made, shape, header)]
    else:
        lines = _restored(run, name, shape, extra)
    return "\n".join([*_json(run), *lines])


def _restored(run: RunData, name: str, shape: tuple[int, ...], extra: str) -> list[str]:
    answers = run.task.answers
    classes = None if answers == "vector" else len(run.classes)  # a vector is as wide as its network makes it
    said = f", output_kind={answers!r}" if answers != "classes" else ""
    facts = f"classes={classes}, channels={shape[1]}, size={shape[2]}{said}{extra}"
    form = ["# The file says how it was pruned or factorised; the library alone would build another network."]
    return [
        "import torch",
        "from stillroom.models import restore",
        "",
        *(form if reformed(run) else []),
        *_named(run),
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


def _plain(run: RunData, made: str, shape: tuple[int, ...], header: dict[str, str]) -> list[str]:
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


@dataclass(frozen=True)
class Runtime:
    """How a kind of file is opened and asked.

    Attributes:
        imports: whole lines.
        opens: lines in which `{path}` is the file.
        asks: lines that give it `images`.
        answer: what is then the answer, [B, ...] as numpy holds it.
        named: lines in which the file's own words become `classes`; none: the card writes the names out.
        single: it takes one image, of the size that the data have.
    """

    imports: tuple[str, ...]
    opens: tuple[str, ...]
    asks: tuple[str, ...]
    answer: str
    named: tuple[str, ...] = ()
    single: bool = False


RUNTIMES = {
    "onnx": Runtime(
        ("import numpy as np", "import onnxruntime"),
        ("session = onnxruntime.InferenceSession({path})",),
        (),
        "session.run(None, {session.get_inputs()[0].name: images})[0]",
    ),
    "openvino": Runtime(
        ("import numpy as np", "import openvino"),
        (
            "graph = openvino.Core().read_model({path})",
            "# Without the hint it computes floats in bfloat16 wherever the processor can.",
            'model = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
        ),
        (),
        "model(images)[0]",
        named=('classes = json.loads(graph.get_rt_info(["stillroom", "classes"]).value)',),
    ),
    "executorch": Runtime(
        ("import numpy as np", "import torch", "from executorch.runtime import Runtime"),
        ("program = Runtime.get().load_program({path})", 'method = program.load_method("forward")'),
        (),
        "method.execute([torch.from_numpy(images)])[0].numpy()",
        named=(
            'facts = json.loads(program.load_method("facts").execute([])[0])',
            'classes = json.loads(facts["classes"])',
        ),
        single=True,
    ),
    "litert": Runtime(
        ("import numpy as np", "from ai_edge_litert.interpreter import Interpreter"),
        ("model = Interpreter({path})", "model.allocate_tensors()"),
        ('model.set_tensor(model.get_input_details()[0]["index"], images)', "model.invoke()"),
        'model.get_tensor(model.get_output_details()[0]["index"])',
        named=(
            'facts = json.loads(zipfile.ZipFile({path}).read("facts.json"))',
            'classes = json.loads(facts["classes"])',
        ),
        single=True,
    ),
}
"""Kind of file -> how it is run."""


def file(run: RunData, export: ModelResult) -> str:
    """Code that runs one exported file; "" for a kind of file that is not known here."""
    runtime = RUNTIMES.get(export.target)
    if runtime is None or not export.path:
        return ""
    answers = run.task.answers
    asked, *lines = ANSWERS.get(f"one {answers}" if runtime.single else answers) or ANSWERS.get(answers, ANSWERS[""])
    batch, channels, *size = _shape(run)
    free = answers == "boxes" and not runtime.single  # boxes are in pixels of the image as it is
    pair = answers == "vector" and not runtime.single
    shape = (2 if pair else batch, channels, *((480, 640) if free else size))
    own = [] if answers == "vector" else [line.replace("{path}", repr(export.path)) for line in runtime.named]
    return "\n".join(
        [
            *(_standard(own) if own else _json(run)),
            *runtime.imports,
            "",
            *([] if own else _named(run)),
            *(line.replace("{path}", repr(export.path)) for line in runtime.opens),
            *own,
            f"images = np.zeros({shape!r}, dtype=np.float32)  # yours{', of any size' if free else ''}, 0..1",
            *runtime.asks,
            asked.format(runtime.answer),
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
"""Kind of answers -> what is done with them; "one vector" is that of a file that takes one image."""


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


def reformed(run: RunData) -> bool:
    """Whether the student has another form than its family builds, as a pruned one has: its file tells which."""
    return metadata(run.path / "student.safetensors").get("form", "[]") != "[]"


def there(run: RunData) -> bool:
    """Whether the student's weights lie in the folder."""
    return file_inside(run.path, "student.safetensors") is not None


def _json(run: RunData) -> list[str]:
    return ["import json", ""] if len(run.classes) > INLINE and run.task.answers != "vector" else []


def _standard(lines: list[str]) -> list[str]:
    """Imports of what lines need of Python's own library."""
    return [*(f"import {name}" for name in ("json", "zipfile") if any(f"{name}." in line for line in lines)), ""]


def _named(run: RunData) -> list[str]:
    return [] if run.task.answers == "vector" else [f"classes = {_classes(run)}"]


def _shape(run: RunData) -> tuple[int, int, int, int]:
    data = run.section("data")
    return (1, data.get("channels") or 3, data.get("size") or 224, data.get("size") or 224)


def _classes(run: RunData) -> str:
    if len(run.classes) > INLINE:
        return 'json.load(open("run.json", encoding="utf-8"))["data"]["classes"]'
    return repr(run.classes)
