"""Probe images on which two speakers are apart, ready to show: what each one believed, or drew, beside the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from stillroom.report import pixels
from stillroom.report.folder import Folder, Speaker
from stillroom.report.format import number, percent
from stillroom.report.panels import LEAST, Album, Panel
from stillroom.report.probe import Shot, shots, softmax

MOST = 6  # images a group
DRAWN = 4  # images a group, where each is drawn several times
FEW = 48  # pixels a side: images that are shown unsmoothed, as the networks see them
APART = 0.005  # less is no difference: half a percent


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
    """One image of the gallery, with opinions or panels; `small`: has so few pixels that each is shown."""

    source: str
    name: str
    true: str
    small: bool
    opinions: tuple[Opinion, ...] = ()
    panels: tuple[Panel, ...] = ()
    alone: Markup = field(default_factory=Markup)


@dataclass(frozen=True)
class Group:
    """All images of one kind of difference; `total` counts those not shown too."""

    title: str
    total: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """Everything below one heading.

    Attributes:
        note: how to read the pictures.
        legend: (class, its colour), of the classes that occur.
        definitions: the pixels that drawings share.
    """

    groups: tuple[Group, ...]
    note: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    definitions: Markup = field(default_factory=Markup)


@dataclass(frozen=True)
class _Wanted:
    """A kind of difference: who is shown, and how far an image is of it."""

    title: str
    speakers: tuple[Speaker, Speaker]
    gap: Callable[[Shot], float | None]


def hang(folder: Folder) -> Gallery:
    """The kinds of difference, as far as the speakers for them exist; where answers are drawn, the first images too."""
    seen = shots(folder.probe)
    album = Album(folder, seen)
    kinds = [_group(folder, album, wanted) for wanted in _wanted(folder, scored=_scored(seen))]
    groups = [group for group in kinds if group is not None]
    if seen and not folder.about.right:
        ordinary = [_drawn(album, shot, folder.speakers) for shot in seen[:DRAWN]]
        groups.append(Group("The first test images, whatever was said", len(ordinary), tuple(ordinary)))
    panels = [panel for group in groups for image in group.pictures for panel in image.panels]
    labels = {label for panel in panels for label in panel.classes}
    return Gallery(
        groups=tuple(groups),
        note=_note(folder),
        legend=tuple((album.name(label), pixels.colour(label)) for label in sorted(labels)),
        definitions=album.definitions() if album.found else Markup(""),
    )


def _wanted(folder: Folder, *, scored: bool) -> list[_Wanted]:
    teacher, baseline, student = (folder.speaker(role) for role in ("teacher", "baseline", "student"))
    title = "{} right, {} wrong" if folder.about.right else "{} better than {}"
    kinds = [
        (teacher, student, title.format("Teacher", "student")),
        (student, teacher, title.format("Student", "teacher")),
        (student, baseline, title.format("Student", "untaught baseline")),
    ]
    if folder.about.by_teacher:  # who can't be wrong
        kinds = [
            (teacher, student, "Student differs from its teacher"),
            (student, baseline, "Student nearer to its teacher than the untaught baseline"),
        ]
    found = []
    for better, worse, said in kinds:
        if better and worse and scored:
            found.append(_Wanted(said, (better, worse), _lead(better.key, worse.key)))
    for file in folder.files:
        if student and (file.bits or 32) < 32:
            found.append(_Wanted(f"{file.label} file differs from the student", (student, file), _apart(file.key)))
    return found


def _lead(better: str, worse: str) -> Callable[[Shot], float | None]:
    def gap(shot: Shot) -> float | None:
        scores = shot.scores
        return scores[better] - scores[worse] if better in scores and worse in scores else None

    return gap


def _scored(shots: Sequence[Shot]) -> bool:
    """Whether one image alone can be right in this run: a task that can't tell gives 0 to everybody."""
    return any(score > 0 for shot in shots for score in shot.scores.values())


def _apart(file: str) -> Callable[[Shot], float | None]:
    return lambda shot: shot.apart.get(file)


def _group(folder: Folder, album: Album, wanted: _Wanted) -> Group | None:
    gaps = [(gap, shot) for shot in album.shots if (gap := wanted.gap(shot)) is not None]
    if not gaps:
        return None
    second = wanted.speakers[1].key
    # Of equal gaps the surest mistakes first; equal ones of these stay in the probe's order.
    apart = [(gap, shot) for gap, shot in gaps if gap > APART]
    found = [shot for _, shot in sorted(apart, key=lambda one: (-one[0], -_surest(one[1], second)))]
    if folder.about.right:
        pictures = [_believed(folder, shot, wanted.speakers) for shot in found[:MOST]]
    else:
        shown = [one for one in folder.speakers if one.role != "file" or one in wanted.speakers]
        pictures = [_drawn(album, shot, tuple(shown)) for shot in found[:DRAWN]]
    return Group(wanted.title, len(found), tuple(pictures))


def _surest(shot: Shot, key: str) -> float:
    shares = softmax(shot.answers.get(key, {}).get("logits"))
    return max(shares) if shares else 0.0


def _believed(folder: Folder, shot: Shot, two: tuple[Speaker, Speaker]) -> Picture:
    shown = {"teacher", "student", *(speaker.key for speaker in two)}
    speakers = [speaker for speaker in folder.speakers if speaker.key in shown]
    opinions = [_opinion(folder, speaker, shot) for speaker in speakers]
    seen = pixels.picture(folder.path / "samples", shot.file)
    small = (number(folder.part("data").get("size")) or pixels.SIDE) <= FEW
    true = _name(folder, shot.label)
    return Picture(seen.source if seen else "", shot.name, true, small, tuple(one for one in opinions if one))


def _opinion(folder: Folder, speaker: Speaker, shot: Shot) -> Opinion | None:
    shares = softmax(shot.answers.get(speaker.key, {}).get("logits"))
    if shares is None:
        return None
    best = sorted(range(len(shares)), key=lambda index: -shares[index])[:3]
    top = tuple(Belief(_name(folder, index), shares[index], index == shot.label) for index in best)
    return Opinion(speaker.role, speaker.label, top)


def _drawn(album: Album, shot: Shot, speakers: tuple[Speaker, ...]) -> Picture:
    found = [album.panel(shot, None), *(album.panel(shot, speaker) for speaker in speakers)]
    true = "" if shot.label is None else album.name(shot.label)
    whole = any(panel and panel.role == "truth" for panel in found)
    alone = Markup("") if whole else album.image(shot, true or shot.name)
    return Picture("", shot.name, true, False, panels=tuple(panel for panel in found if panel), alone=alone)


def _note(folder: Folder) -> str:
    if folder.about.right and folder.about.by_teacher:
        return "The surest differences come first. Bars: the three strongest beliefs; nobody knows the true class."
    if folder.about.right:
        return "The surest mistakes come first. Bars: the three strongest beliefs; a tick marks the true class."
    how = {
        "boxes": f"Boxes of score {LEAST:g} and more are drawn, in their class's colour; scores under the pointer.",
        "pixels": "Each pixel has the colour of the class that was named; what nobody knows, or is void, is left bare.",
        "vector": "Shown are the nearest among the images kept here, by cosine; a tick marks the true class.",
    }.get(folder.about.answers, "")
    score = "" if folder.about.answers == "vector" else "Percentages: how right this one answer is. "
    return f"The largest differences come first. {score}{how}"


def _name(folder: Folder, index: int | None) -> str:
    if index is None:
        return "unknown"
    return folder.classes[index] if 0 <= index < len(folder.classes) else f"class {index}"
