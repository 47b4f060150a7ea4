"""An ONNX file as a teacher: `network = "onnx"`, `weights = "teacher.onnx"`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillroom.config.plugins import near
from stillroom.models._errors import ClassCountMismatch, UnsupportedOutput
from stillroom.models._family import HeadPolicy, NetworkSpec
from stillroom.models._library_errors import argument_errors
from stillroom.models._onnx_errors import NoOnnxOutput, OnnxNotTrainable, OnnxWithoutFile
from stillroom.models._onnx_program import OnnxEmbedder, OnnxNetwork, OnnxProgram, inspect_file
from stillroom.models._onnx_program import OnnxInfo as Found
from stillroom.models._weights_errors import TrustedHashMismatch
from stillroom.models.network import IMAGENET, Network
from stillroom.types import OutputKind

PIXELS: dict[str, tuple[Sequence[float], Sequence[float]]] = {
    "imagenet": IMAGENET,
    "symmetric": ((0.5,), (0.5,)),
    "plain": ((0.0,), (1.0,)),
    "bytes": ((0.0,), (1 / 255,)),
}
"""What a file may want instead of pixels in 0..1: mean and standard deviation that make them so."""

RANK: dict[OutputKind, int] = {"classes": 1, "vector": 1, "pixels": 3}
"""What a network says -> axes of one image's answer. Boxes are missing: every exporter has its own form of them."""

NAMED: dict[OutputKind, tuple[str, ...]] = {
    "classes": ("logits",),
    "vector": ("vector", "pooler_output", "image_embeds"),
    "pixels": ("logits",),
}
"""Names of outputs that are taken before others; else the first of the right shape is."""


class Onnx:
    """The file is architecture and weights in one. It teaches and is never taught: nothing in it is trained or tapped.

    It runs on onnxruntime, on the processor. Images are resized to the side that the file names; where it takes any, to
    the data's, or the next larger one that it runs on. A file that takes a fixed number of images gets them in pieces.
    An input [B, H, W, C] with 1 or 3 as its last axis, and not as its second, gets the channels last. All weights must
    be inside the file.

    Args of the recipe: `pixels`, what the file wants: "imagenet" (the default), "symmetric" (-1..1), "plain" (0..1),
    "bytes" (0..255), or two lists, mean and deviation, of pixels in 0..1. A file that this program exported says it
    itself. `output`: a name, where the file has several outputs that could be meant.
    """

    example = "onnx"
    has_pixel_statistics = True

    def matches(self, name: str) -> bool:
        """See `Family.matches`."""
        return name == "onnx"

    def names(self, like: str = "") -> list[str]:
        """See `Family.names`."""
        return [self.example] if like in self.example else []

    def build(self, name: str, spec: NetworkSpec, **arguments: Any) -> Network:
        """Nothing: SR-M360, there is no such network without its file."""
        raise OnnxWithoutFile()

    def open(
        self, path: Path, spec: NetworkSpec, *, head: HeadPolicy, trust: str | None = None, **arguments: Any
    ) -> Network:
        """As `network.Opener.open`. Failures: as `_onnx.look`, and SR-M361 it can't be trained, SR-M315 it can't say
        boxes, SR-M364 none of its outputs is an answer of this kind, SR-M301 it knows other classes, SR-S213.
        """
        if head != "keep":
            raise OnnxNotTrainable(path=path)
        if spec.output_kind not in RANK:
            raise UnsupportedOutput(model=path.name, output_kind=spec.output_kind)
        with argument_errors("onnx"):
            wanted, pixels = _arguments(**arguments)
        data, found = inspect_file(path, spec.size)
        output, shape = _output(path, found, spec.output_kind, wanted)
        if spec.classes not in (None, shape[0]):
            raise ClassCountMismatch(name=path.name, theirs=shape[0], classes=spec.classes)
        mean, std = pixels or PIXELS["plain" if found.own else "imagenet"]
        vector = spec.output_kind == "vector"
        program = (OnnxEmbedder if vector else OnnxProgram)(data, found, output)
        if trust is not None and trust.lower() != (digest := f"sha256:{bytes(program.sha256.tolist()).hex()}"):
            raise TrustedHashMismatch(file=path.name, given=trust, sha256=digest.removeprefix("sha256:"))
        return OnnxNetwork(
            program,
            classes=shape[0],
            channels=found.channels,
            size=found.side or (found.tried if found.tried != spec.size else None),
            mean=mean,
            std=std,
            head=("vector",) if vector else (),
            output_kind=spec.output_kind,
        )


def _arguments(
    *, pixels: str | Sequence[Sequence[float]] | None = None, output: str | None = None
) -> tuple[str | None, tuple[Sequence[float], Sequence[float]] | None]:
    if isinstance(pixels, str) and pixels not in PIXELS:
        raise ValueError(
            f"pixels: must be two lists or one of {', '.join(PIXELS)}, got {pixels!r}{near(pixels, PIXELS)}"
        )
    if pixels is None or isinstance(pixels, str):
        return output, PIXELS[pixels] if pixels else None
    mean, std = (tuple(map(float, part)) for part in pixels)
    return output, (mean, std)


def _output(path: Path, found: Found, output_kind: OutputKind, wanted: str | None) -> tuple[str, list[int]]:
    """Name and shape of the output that says what is asked for."""
    outputs, own = dict(found.outputs), found.own.get("answers", output_kind)
    fitting = [name for name, shape in outputs.items() if len(shape) == RANK[output_kind] and own == output_kind]
    named = [wanted] if wanted else [name for name in NAMED[output_kind] if name in fitting]
    chosen = (named or fitting)[:1]
    if not chosen or chosen[0] not in fitting:
        there = ", ".join(f"{name} {['B', *shape]}".replace("'", "") for name, shape in outputs.items())
        raise NoOnnxOutput(
            path=path, output_kind=output_kind, outputs=there, own=f"; it says {own}" * (own != output_kind)
        )
    return chosen[0], outputs[chosen[0]]
