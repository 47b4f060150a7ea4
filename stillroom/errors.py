"""The error catalogue: every way this program refuses, with a stable code, four lines of help and an exit code.

    raise Failure("SR-D105", path=path, width=60000, height=60000, limit=89_000_000)

prints

    SR-D105 image 60000x60000 exceeds data.max_pixels=89000000   photos/bomb.png
      why    the header claims more pixels than the limit; nothing was decoded
      effect the image is left out
      fix    raise data.max_pixels if you trust the file, or remove it

Letters: C recipe and command line, D data, S security, M models, T teachers, R resources, N network access,
X export, B benchmark. The texts are templates; `docs/errors.md` is written from this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """What a process says when it ends."""

    DONE = 0
    USAGE = 2
    DATA = 3
    MODEL = 4
    RESOURCES = 5
    DIVERGED = 6
    UNVERIFIED = 7
    TARGET_MISSED = 8
    INTERRUPTED = 130
    TERMINATED = 143


@dataclass(frozen=True)
class Entry:
    """One kind of failure: templates filled with the values given to `Failure`."""

    exit: Exit
    what: str
    why: str
    effect: str
    fix: str


class Failure(Exception):
    """Something the user can act on. Its text is the four lines; `exit` is the process's exit code."""

    def __init__(self, code: str, **values: Any):
        self.code, self.values = code, values
        entry = CATALOGUE[code]
        self.exit = entry.exit
        self.what, self.why, self.effect, self.fix = (
            text.format_map(values) for text in (entry.what, entry.why, entry.effect, entry.fix)
        )
        super().__init__(str(self))

    def __str__(self) -> str:
        return f"{self.code} {self.what}\n  why    {self.why}\n  effect {self.effect}\n  fix    {self.fix}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.code, self.values)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        parts = {"code": self.code, "what": self.what, "why": self.why, "effect": self.effect, "fix": self.fix}
        return parts | {"exit_code": int(self.exit)}


class Stopped(Exception):
    """Somebody asked the process to end: Ctrl-C (130) or SIGTERM (143)."""

    def __init__(self, exit: Exit):
        self.exit = exit
        super().__init__(f"stopped with exit code {int(exit)}")


def _rebuild(code: str, values: dict[str, Any]) -> Failure:
    return Failure(code, **values)


RECIPE = {
    "SR-C400": Entry(
        Exit.USAGE,
        "{count} in {source}:\n{problems}",
        "the recipe does not fit the program",
        "nothing was started",
        "mend the lines above; `stillroom list KIND` names what may be written, `stillroom check RECIPE` checks again",
    ),
    "SR-C401": Entry(
        Exit.USAGE,
        "no recipe   {path}{hint}",
        "there is no such file, and no built-in recipe of that name",
        "nothing was started",
        "`stillroom list recipes` names the built-in ones, `stillroom new NAME` copies one to edit",
    ),
    "SR-C402": Entry(
        Exit.USAGE,
        "not TOML   {path}",
        "{problem}",
        "nothing was started",
        "mend that line; https://toml.io shows the form",
    ),
    "SR-C403": Entry(
        Exit.USAGE,
        "not an override   {text}",
        "an override is KEY=VALUE, with dots for sections: train.lr=1e-3, methods.0.temperature=2",
        "nothing was started",
        "write KEY=VALUE, without blanks around the equals sign",
    ),
    "SR-C410": Entry(
        Exit.USAGE,
        "{folder} holds another experiment:\n{changes}",
        "a run folder keeps one recipe, so that its figures and its files belong together",
        "nothing was changed",
        "give this one its own folder (`name=...` or `--folder`), or use the values on the left to resume that one",
    ),
    "SR-C460": Entry(
        Exit.USAGE,
        "no run folder   {folder}",
        "a run folder holds a run.json, and this one doesn't",
        "no report and no card were written",
        "give the folder that `stillroom run` named at its end, usually runs/NAME",
    ),
    "SR-C461": Entry(
        Exit.USAGE,
        "can't be read   {file}",
        "{problem}",
        "no report and no card were written",
        "the program writes this file whole, so it was changed afterwards: restore it, or repeat the run's command",
    ),
}


LEFT_OUT = "the image is left out; training takes the next readable one in its place, a test simply has one fewer"

DATA: dict[str, Entry] = {
    "SR-D101": Entry(
        Exit.DATA,
        "no such data   {path}",
        "there is no file or folder of that name{hint}",
        "nothing was started",
        "correct data.path; `digits` alone names the images that come with the program",
    ),
    "SR-D102": Entry(
        Exit.DATA,
        "unreadable image   {path}",
        "{why}",
        LEFT_OUT,
        "repair or delete the file; data.max_bad=0 stops at the first one",
    ),
    "SR-D103": Entry(
        Exit.DATA,
        "not an image ({bytes} bytes)   {path}",
        "{why}",
        LEFT_OUT,
        "delete the file or fetch it again; read are JPEG, PNG, WebP, GIF, BMP, TIFF, PPM and AVIF",
    ),
    "SR-D104": Entry(
        Exit.DATA,
        "permission denied   {path}",
        "the file exists, but this user may not read it",
        LEFT_OUT,
        "give yourself the right to read it, e.g. chmod u+r",
    ),
    "SR-D105": Entry(
        Exit.DATA,
        "image {width}×{height} exceeds data.max_pixels={limit}   {path}",
        "the header claims more pixels than the limit; nothing was decoded",
        LEFT_OUT,
        "raise data.max_pixels if you trust the file, or remove it",
    ),
    "SR-D106": Entry(
        Exit.DATA,
        "image {width}×{height} is too small   {path}",
        "an image one pixel wide or high shows nothing",
        LEFT_OUT,
        "delete the file: it is most likely a placeholder or a tracking pixel",
    ),
    "SR-D107": Entry(
        Exit.DATA,
        "{count} of {total} images can't be used, more than data.max_bad={limit:.4g}",
        "the first: {first}",
        "stopped, because a data set with that many bad files is probably not the one you meant",
        "repair or delete the files in {csv}, or raise data.max_bad",
    ),
    "SR-D108": Entry(
        Exit.DATA,
        "no images found   {path}",
        "{why}",
        "nothing was started",
        "point data.path at the folder whose subfolders are the classes",
    ),
    "SR-D109": Entry(
        Exit.DATA,
        "unknown layout   {path}",
        "{why}",
        "nothing was started",
        "lay it out as CLASS/*.jpg or {{train,val,test}}/CLASS/*.jpg, or name the kind with data.source",
    ),
    "SR-D110": Entry(
        Exit.DATA,
        "class {name!r} has no image in {split}",
        "{images} images of it elsewhere",
        "nothing is learnt or measured about that class there",
        "add images of it, or delete the class",
    ),
    "SR-D111": Entry(
        Exit.DATA,
        "{count} class(es) in the data",
        "telling classes apart needs two at least{names}",
        "nothing was started",
        "point data.path one folder higher, or add the other classes",
    ),
    "SR-D112": Entry(
        Exit.DATA,
        "{count} images are in more than one split",
        "same bytes: {examples}",
        "the test figure would be partly remembered, not recognised",
        "delete the copies from one of the splits",
    ),
    "SR-D113": Entry(
        Exit.DATA,
        "label out of range: {label}   {path}",
        "{count} image(s) have a label outside 0..{highest}",
        "nothing was started",
        "correct the labels; -1 usually means a split published without labels, which can't be used",
    ),
    "SR-D114": Entry(
        Exit.DATA,
        "class {name!r} is in {split} but not in train   {path}",
        "{images} images of a class that nobody can learn; the classes of train are {known}",
        "nothing was started",
        "rename the folder if it is a spelling, else add the class to train or remove it from {split}",
    ),
    "SR-D115": Entry(
        Exit.DATA,
        "no image left for {split}",
        "{images} images in {classes} class(es) are too few to share out",
        "nothing was started",
        "add images (three of each class at least), or change data.val and data.test",
    ),
    "SR-D116": Entry(
        Exit.DATA,
        "not a valid idx file   {path}",
        "{why}",
        "nothing was started",
        "fetch the file again",
    ),
    "SR-D117": Entry(
        Exit.DATA,
        "unusable parquet file   {path}",
        "{why}",
        "nothing was started",
        "name the columns with data.image and data.label: an image struct {{bytes, path}} and a whole number or text",
    ),
}

SECURITY: dict[str, Entry] = {
    "SR-S201": Entry(
        Exit.DATA,
        "path leaves data root: {path}",
        "it leads to {target}, outside {root}",
        "refused; nothing was read from there",
        "copy the files into the folder, or set data.allow_outside=true if you put the link there yourself",
    ),
}

MODELS: dict[str, Entry] = {}

RESOURCES: dict[str, Entry] = {}

EXPORT: dict[str, Entry] = {
    "SR-X701": Entry(
        Exit.UNVERIFIED,
        "{problem}   {path}",
        "the exported file answers otherwise than the network it was made from",
        "the file is kept under this name, and no figure of it counts as verified",
        "for an int8 file give export more calibration images or the percentile method, or export with bits=32; "
        "if the difference is acceptable, lower the gate and say so",
    ),
    "SR-X702": Entry(
        Exit.UNVERIFIED,
        "the target {target} needs packages that are not installed: {packages}",
        "without them the file can neither be written nor run and compared",
        "nothing was exported",
        "pip install {packages}",
    ),
    "SR-X703": Entry(
        Exit.UNVERIFIED,
        "export to {target} failed   {path}",
        "{problem}",
        "no file was written; a file of an earlier export was left as it was",
        "choose a student that the target supports (`stillroom list students`), or see the whole message with -v",
    ),
}

BENCHMARK: dict[str, Entry] = {
    "SR-B901": Entry(
        Exit.DONE,
        "unstable timing of {name}: spread {spread:.0%} > {limit:.0%}",
        "other programs or the processor's clock changed the times while they were taken",
        "the time is reported with a flag, and no claim rests on it",
        "let the machine rest and repeat `stillroom bench`",
    ),
}

CATALOGUE: dict[str, Entry] = RECIPE | DATA | SECURITY | MODELS | RESOURCES | EXPORT | BENCHMARK
