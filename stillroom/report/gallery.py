"""Probe images on which two speakers disagree, ready to show: thumbnail as a data URI, and what each one believed."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from stillroom.report.folder import Folder, Speaker, inside, kind
from stillroom.report.format import number, percent

MOST = 6  # images a group
SIDE = 160  # pixels: enough for a thumbnail on a dense screen, and keeps the file small
FEW = 48  # pixels a side: images that are shown unsmoothed, as the networks see them


@dataclass(frozen=True)
class Belief:
    """One class and how much a speaker believed in it."""

    name: str
    share: float
    right: bool

    @property
    def percent(self) -> str:
        """The share as text."""
        return percent(self.share, 0 if self.share >= 0.0995 else 1)


@dataclass(frozen=True)
class Opinion:
    """What one speaker said about one image: its three strongest beliefs."""

    role: str
    label: str
    top: tuple[Belief, ...]


@dataclass(frozen=True)
class Picture:
    """One image of the gallery; `small`: has so few pixels that each is shown."""

    source: str
    name: str
    true: str
    small: bool
    opinions: tuple[Opinion, ...]


@dataclass(frozen=True)
class Group:
    """All images of one kind of disagreement; `total` counts those not shown too."""

    title: str
    total: int
    pictures: tuple[Picture, ...]


def groups(folder: Folder) -> list[Group]:
    """The four kinds of disagreement, as far as the speakers for them exist."""
    images = folder.probe.get("images")
    images = [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []
    teacher, baseline, student = (folder.speaker(role) for role in ("teacher", "baseline", "student"))
    wanted: list[tuple[str, Speaker, Speaker, bool]] = []
    if teacher and student:
        wanted.append(("Teacher right, student wrong", teacher, student, True))
        wanted.append(("Student right, teacher wrong", student, teacher, True))
    if baseline and student:
        wanted.append(("Student right, untaught baseline wrong", student, baseline, True))
    for file in folder.files:
        if (file.bits or 32) < 32:
            whole = folder.speaker(f"{file.target}-32") or student
            if whole:
                wanted.append((f"{file.label} file differs from {_said(whole)}", whole, file, False))
    found = [_group(folder, images, *entry) for entry in wanted]
    return [group for group in found if group is not None]


def softmax(logits: Any) -> list[float] | None:
    """Logits as shares that sum to 1; None unless all of them are finite numbers."""
    values = [number(value) for value in logits] if isinstance(logits, list) else []
    finite = [value for value in values if value is not None]
    if not finite or len(finite) < len(values):
        return None
    weights = [math.exp(value - max(finite)) for value in finite]
    return [weight / sum(weights) for weight in weights]


def _said(speaker: Speaker) -> str:
    return f"the {kind(speaker.bits)} file" if speaker.role == "file" else f"the {speaker.role}"


def _group(
    folder: Folder, images: list[dict[str, Any]], title: str, first: Speaker, second: Speaker, right: bool
) -> Group | None:
    found, compared = [], 0
    for image in images:
        logits = image.get("logits")
        logits = logits if isinstance(logits, dict) else {}
        one, other = softmax(logits.get(first.key)), softmax(logits.get(second.key))
        if one is None or other is None or len(one) != len(other):
            continue
        compared += 1
        says, denies = one.index(max(one)), other.index(max(other))
        if says != denies and (not right or says == image.get("target")):
            found.append((max(other), image))
    if not compared:
        return None
    found.sort(key=lambda pair: -pair[0])  # the surest mistakes first; equal ones stay in the probe's order
    shown = [_picture(folder, image, first, second) for _, image in found[:MOST]]
    return Group(title, len(found), tuple(shown))


def _picture(folder: Folder, image: dict[str, Any], first: Speaker, second: Speaker) -> Picture:
    target = image.get("target")
    shown = {"teacher", "student", first.key, second.key}
    speakers = [speaker for speaker in folder.speakers if speaker.key in shown]
    opinions = [_opinion(folder, speaker, image["logits"].get(speaker.key), target) for speaker in speakers]
    source = _thumbnail(folder.path / "samples", str(image.get("file") or ""))
    small = (number(folder.part("data").get("size")) or SIDE) <= FEW
    return Picture(source, str(image.get("name") or ""), _name(folder, target), small, tuple(o for o in opinions if o))


def _opinion(folder: Folder, speaker: Speaker, logits: Any, target: Any) -> Opinion | None:
    shares = softmax(logits)
    if shares is None:
        return None
    best = sorted(range(len(shares)), key=lambda index: -shares[index])[:3]
    top = tuple(Belief(_name(folder, index), shares[index], index == target) for index in best)
    return Opinion(speaker.role, speaker.label, top)


def _name(folder: Folder, index: Any) -> str:
    known = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(folder.classes)
    return folder.classes[index] if known else f"class {index}"


def _thumbnail(samples: Path, name: str) -> str:
    """A data URI of the image, decoded and written again so that nothing but pixels comes along; "" where it fails."""
    file = inside(samples, name)
    if file is None:
        return ""
    try:
        with Image.open(file) as image:
            pixels = image.convert("L" if image.mode in ("L", "1") else "RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return ""
    pixels.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    pixels.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
