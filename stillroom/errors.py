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
    FAILED = 1  # a fault of this program, not of the user
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
    """Something the user can act on. Its text is the four lines; `exit` is the process's exit code.

    `told` where another process says it, so that people read it once.
    """

    told = False

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
    """Somebody asked the process to end: Ctrl-C (130) or SIGTERM (143). `told` as a failure's."""

    told = False

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
    "SR-C404": Entry(
        Exit.USAGE,
        "exists already   {path}",
        "a recipe that somebody may have edited is not overwritten",
        "nothing was changed",
        "name another file: --to other.toml",
    ),
    "SR-C410": Entry(
        Exit.USAGE,
        "{folder} holds another experiment:\n{changes}",
        "a run folder keeps one recipe, so that its figures and its files belong together",
        "nothing was changed",
        "give this one its own folder (`name=...` or `--folder`), or use the values on the left to resume that one",
    ),
    "SR-C411": Entry(
        Exit.USAGE,
        "the images have changed since {folder} was begun ({old} then, {new} now)",
        "the fingerprint over names, labels, splits and contents is another",
        "nothing was changed",
        "put the images back to resume, or give the new ones a folder of their own: name=...",
    ),
    "SR-C430": Entry(
        Exit.USAGE,
        "seeds are given twice: --seeds {count} and seeds={seeds}",
        "--seeds {count} is short for the seeds 0 to {count} - 1, and seeds=... names others",
        "nothing was started",
        "give one of the two",
    ),
    "SR-C431": Entry(
        Exit.USAGE,
        "{folder} holds {theirs}, and this would be {ours}",
        "the figures and the report of one would take the place of the other's",
        "nothing was changed",
        "give this one a folder of its own: name=... or --folder",
    ),
    "SR-C432": Entry(
        Exit.USAGE,
        "no seed has come to its figures   {folder}",
        "{seeds}",
        "nothing was written",
        "give the runs' own command again: it goes on where it stopped",
    ),
    "SR-C433": Entry(
        Exit.USAGE,
        "{folder} holds runs of several seeds",
        "this command works on one run",
        "nothing was done",
        "name one of them: {first}",
    ),
    "SR-C440": Entry(
        Exit.USAGE,
        "{count} in the device profile {path}:\n{problems}",
        "a profile is a flat TOML table of what `[target]` may say",
        "nothing was started",
        "mend the lines above; `stillroom list profiles` names the profiles that come along, to copy from",
    ),
    "SR-C441": Entry(
        Exit.USAGE,
        "no device profile   {name}{hint}",
        "there is neither a file targets/{name}.toml here nor a profile of that name that comes along",
        "nothing was started",
        "`stillroom list profiles` names them; your own go into targets/NAME.toml, or are named by their path",
    ),
    "SR-C460": Entry(
        Exit.USAGE,
        "no run folder   {folder}",
        "a run folder holds a run.json, and this one doesn't",
        "nothing was done",
        "give the folder that `stillroom run` named at its end, usually runs/NAME",
    ),
    "SR-C462": Entry(
        Exit.USAGE,
        "not finished   {folder}",
        "its status is {status!r}, and it has no student.safetensors yet",
        "nothing was changed",
        "give the run's own command again: it goes on where it stopped",
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
        "point data.path at the folder whose subfolders are the classes, or that holds what its kind of data asks for",
    ),
    "SR-D109": Entry(
        Exit.DATA,
        "unknown layout   {path}",
        "{why}",
        "nothing was started",
        "lay it out as CLASS/*.jpg or {{train,val,test}}/CLASS/*.jpg, or name the kind with data.source; "
        "`stillroom list sources` has them all",
    ),
    "SR-D110": Entry(
        Exit.DATA,
        "class {name!r} has no image in {split}",
        "{images} {noun} of it elsewhere",
        "nothing is learnt or measured about that class there",
        "add images of it, or delete the class",
    ),
    "SR-D111": Entry(
        Exit.DATA,
        "{count} class(es) in the data",
        "telling classes apart needs two at least{names}",
        "whatever is trained on them is always right, and proves nothing",
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
        "correct the labels; -1 alone stands for an image whose class nobody knows",
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
    "SR-D118": Entry(
        Exit.DATA,
        "the task {task} needs {needs}, and the source knows {kind}",
        "a loss can't be computed from what nobody wrote down",
        "nothing was trained",
        "take another source (`stillroom list sources`) or another task (`stillroom list tasks`)",
    ),
    "SR-D117": Entry(
        Exit.DATA,
        "unusable parquet file   {path}",
        "{why}",
        "nothing was started",
        "name the columns with data.image and data.label: an image struct {{bytes, path}} and a whole number or text",
    ),
    "SR-D120": Entry(
        Exit.DATA,
        "unusable COCO file   {path}",
        "{why}",
        "nothing was started",
        "correct or fetch the file again; needed are the lists images, annotations and categories of COCO's format",
    ),
    "SR-D121": Entry(
        Exit.DATA,
        "unusable VOC file   {path}",
        "{why}",
        "nothing was started",
        "correct or delete the file; each object needs a name and a bndbox with xmin, ymin, xmax and ymax",
    ),
    "SR-D122": Entry(
        Exit.DATA,
        "unusable mask   {path}",
        "{why}",
        LEFT_OUT,
        "save it as a grey or palette PNG of its image's size whose numbers are the classes, or delete the image",
    ),
    "SR-D123": Entry(
        Exit.DATA,
        "{count} box(es) without width or height",
        "in {images} image(s): {examples}",
        "they are left out; nobody can find an object without an area",
        "correct or delete them",
    ),
    "SR-D124": Entry(
        Exit.DATA,
        "{count} box(es) reach beyond their image",
        "in {images} image(s): {examples}",
        "they are cut at the edge, and left out where nothing remains",
        "correct them; many of them mean that images were resized or turned without their boxes",
    ),
    "SR-D125": Entry(
        Exit.DATA,
        "{count} box(es) are there twice",
        "same class and same place, in {images} image(s): {examples}",
        "the second is left out; else an object would count twice, and only one of the two could be found",
        "delete the copies",
    ),
    "SR-D126": Entry(
        Exit.DATA,
        "{count} box(es) of an unknown class",
        "in {images} image(s): {examples}",
        "they are left out, so what lies in them counts as background",
        "add the class to the list of classes, or delete the boxes",
    ),
    "SR-D127": Entry(
        Exit.DATA,
        "{count} image(s) without a box",
        "{examples}",
        "everything in them counts as background",
        "nothing, if there is no object in them; images that nobody has looked at belong in data.unlabelled",
    ),
    "SR-D128": Entry(
        Exit.DATA,
        "{count} image(s) of another size than declared",
        "{examples}",
        "boxes are read as parts of the declared size, and lie wrong if they were drawn in the file's",
        "correct width and height in the annotations, or restore the images",
    ),
    "SR-D129": Entry(
        Exit.DATA,
        "{count} mask(s) of another size than their image",
        "{examples}",
        "the aspect is the same, so both are stretched to one size, the mask by its nearest pixels",
        "nothing, if the masks were made smaller on purpose",
    ),
    "SR-D130": Entry(
        Exit.DATA,
        "{count} mask(s) with numbers that are no class: {numbers}",
        "{examples}",
        "these pixels count as void",
        "name the numbers in classes.txt, or call them void with data.void",
    ),
    "SR-D131": Entry(
        Exit.DATA,
        "{count} mask(s) with nothing but void",
        "{examples}",
        "nothing is learnt from these images, and nothing measured",
        "delete them, or correct data.void if it names a class",
    ),
    "SR-D132": Entry(
        Exit.DATA,
        "unusable list of classes   {path}",
        "{why}",
        "nothing was started",
        "write a line for each class: NUMBER NAME, numbers in 0..255, or NAME alone",
    ),
    "SR-D133": Entry(
        Exit.DATA,
        "{count} image(s) without {kind}",
        "there is no file of that name beside: {examples}",
        "they are left out",
        "add the missing files, or delete the images",
    ),
    "SR-D140": Entry(
        Exit.DATA,
        "no image has a label, and {section}.fit is {fit!r}",
        "without labels nothing here can teach a teacher its classes",
        "nothing was trained",
        "set {section}.fit = 'none' and give it weights that know their classes; or lay images out as CLASS/*.jpg",
    ),
    "SR-D141": Entry(
        Exit.DATA,
        "{count} image(s) of {split} have no label   {path}",
        "{split} is there to be judged by, and others do have labels",
        "nothing was started",
        "label them or take them out of {split}; images without labels are welcome in train",
    ),
    "SR-D142": Entry(
        Exit.DATA,
        "no image has a label, and {methods}",
        "without labels a student learns from its teacher alone",
        "nothing would be trained, so nothing was",
        "name a method that needs no labels: hinton, dist or hard for answers, fitnet or rkd for features",
    ),
}

SECURITY: dict[str, Entry] = {
    "SR-S210": Entry(
        Exit.MODEL,
        "refused {file}: needs {needs}",
        "the file is a pickle that runs code when it is read; weights alone need none",
        "nothing was executed",
        'convert it to safetensors where you trust it, or, if you know where it comes from, trust = "sha256:{sha256}"',
    ),
    "SR-S212": Entry(
        Exit.MODEL,
        "refused {path}: its tensor {tensor} lies in another file, {outside}",
        "a model may name any file of this machine that way, and what it holds would become numbers in the answers",
        "the model was not opened",
        "write it as one file: torch.onnx.export(..., external_data=False), or onnx.save(onnx.load(FILE), NEW_FILE)",
    ),
    "SR-S213": Entry(
        Exit.MODEL,
        "refused {file}: it is not the file that was trusted",
        "trust says {given}, the file is sha256:{sha256}",
        "nothing was executed",
        "get the file again from where you took the hash, or look at why it changed before you trust the new one",
    ),
    "SR-S214": Entry(
        Exit.MODEL,
        "refused {path}: a process of its own could not read it",
        "{problem}",
        "the model was not opened",
        "get the file again, or write it anew from where it works; if it is a stranger's, look before you trust it",
    ),
    "SR-S201": Entry(
        Exit.DATA,
        "path leaves data root: {path}",
        "it leads to {target}, outside {root}",
        "refused; nothing was read from there",
        "copy the files into the folder, or set data.allow_outside=true if you put the link there yourself",
    ),
}

MODELS: dict[str, Entry] = {
    "SR-M312": Entry(
        Exit.MODEL,
        "the images at {path} are of {theirs} classes, or of other names, and the run knows {classes}",
        "a label would mean one thing to the networks and another to the images",
        "nothing was evaluated",
        "give images in the same class folders as those that the run was trained on",
    ),
    "SR-M315": Entry(
        Exit.MODEL,
        "{model} can't answer with {answers}",
        "this family of networks has no head for that",
        "nothing was built",
        "take another network; `timm/NAME` is a backbone for every task",
    ),
    "SR-M316": Entry(
        Exit.MODEL,
        "{file} holds a backbone and nothing that says {answers}",
        "what turns its features into answers would be noise",
        "nothing was trained",
        'set fit = "all" to train the rest here (of a classifier fit = "head" will do), or give a file of the whole '
        "network",
    ),
    "SR-M317": Entry(
        Exit.MODEL,
        "{file} holds a network in a form that it can't be given here",
        "its metadata tell how it was made smaller, and that does not fit the network it is to fill: {problem}",
        "nothing was trained",
        "name the network that the file was made of, with the arguments it was made with; if the file is from a newer "
        "Stillroom, use that one",
    ),
    "SR-M335": Entry(
        Exit.USAGE,
        "the method {method} can't teach networks that say {answers}",
        "it reads predictions of another kind",
        "nothing was trained",
        "take a method of features, or one of: {able}",
    ),
    "SR-M330": Entry(
        Exit.MODEL,
        "features that can't be compared: {student} {s} and {teacher} {t}",
        "{why}",
        "nothing was trained",
        "name other taps (student_taps, teacher_taps), or another method; `stillroom check` lists pairs",
    ),
    "SR-M331": Entry(
        Exit.MODEL,
        "{term} does not teach: value {value:.4g}, gradient {length:.4g} long",
        "on one real batch its gradient on the student is zero or not finite",
        "nothing was trained",
        "look at the taps and the temperature of that method, and at the teacher's weights",
    ),
    "SR-M332": Entry(
        Exit.MODEL,
        "labels {labels} where a class for each of {rows} predictions is needed",
        "a method of this recipe treats the true class apart from the others, and this task's labels are no classes",
        "nothing was trained",
        "take a method that needs no labels, such as hinton or dist",
    ),
    "SR-M333": Entry(
        Exit.MODEL,
        "{method} finds nothing to read in the {side}, {network}",
        "{why}",
        "nothing was trained",
        "name the taps yourself (student_taps and teacher_taps of the method), or take a method of predictions: "
        "hinton, dist, dkd",
    ),
    "SR-M334": Entry(
        Exit.MODEL,
        "{method} was given {student} taps of the student and {teacher} of the teacher",
        "the i-th of one side is compared with the i-th of the other",
        "nothing was trained",
        "name as many on both sides, or leave one side out to have it found",
    ),
    "SR-M340": Entry(
        Exit.MODEL,
        "{model} is no detector that answers for a fixed set of places",
        "networks are compared place by place; a detector of two stages draws new places for every image",
        "nothing was started",
        "take one of one stage: torchvision/fcos_resnet50_fpn, torchvision/retinanet_resnet50_fpn, "
        "torchvision/ssdlite320_mobilenet_v3_large, or any timm/NAME",
    ),
    "SR-M345": Entry(
        Exit.MODEL,
        "{model} gives out no maps",
        "pixels and boxes are made of what the stages of a network say, and this one of timm's does not tell",
        "nothing was built",
        "take another backbone; nearly all of timm's have maps",
    ),
    "SR-M346": Entry(
        Exit.MODEL,
        "{model} says {theirs}, and {answers} are asked for",
        "it is a finished model of torchvision's for another task",
        "nothing was built",
        "take one of: {near}; or `timm/NAME`, a backbone for every task",
    ),
    "SR-M336": Entry(
        Exit.MODEL,
        "{method} compares place by place, and the student offers boxes at {student} places, the teacher at {theirs}",
        "the i-th place of one must lie where the i-th of the other does: the same anchors or points, the same size",
        "nothing was trained",
        'take pseudo_labels with on = "all", which needs no places in common, or a method of features such as pkd',
    ),
    "SR-M301": Entry(
        Exit.MODEL,
        "{name} has {theirs} outputs, the data {classes} classes; no mapping",
        "the weights were trained for other classes, so their answers mean nothing here",
        "nothing was trained",
        'fit a new classifier on your data (fit = "head"), fine-tune the whole model (fit = "all"), '
        "or say which output means which class (map = [281, 207, ...], one number a class)",
    ),
    "SR-M303": Entry(
        Exit.MODEL,
        "no model called {model!r}{near}",
        "a model is a built-in name, timm/NAME, torchvision/NAME, huggingface/NAME or package.module:Name; "
        "a file .onnx is the weights of network = 'onnx'",
        "nothing was started",
        "`stillroom list students` names the built-in ones and searches the libraries",
    ),
    "SR-M304": Entry(
        Exit.MODEL,
        "{model} can't be built with these arguments",
        "{problem}",
        "nothing was started",
        "mend or leave out the arguments beside the network's name: they go to the model as they are",
    ),
    "SR-M305": Entry(
        Exit.MODEL,
        "{model} does not answer images with one number a class",
        "{problem}",
        "nothing was started",
        "change data.size, or name a model that turns images [B, C, H, W] of that size into logits [B, K]",
    ),
    "SR-M306": Entry(
        Exit.USAGE,
        "no part of the network is called {tap!r}{near}",
        "a tap is the name of a submodule, as named_modules() gives it",
        "nothing was started",
        "`network.tap_names()` lists the names, in the order of the model; a ViT has head_dist with distilled = true",
    ),
    "SR-M307": Entry(
        Exit.MODEL,
        "the part {tap!r} never ran",
        "the network has a part of that name, but images do not pass through it in a forward pass",
        "nothing was learned from it",
        "tap a part that runs: often one inside it, or the one around it",
    ),
    "SR-M308": Entry(
        Exit.MODEL,
        "no trained weights for {model}{near}",
        "{problem}",
        "nothing was started",
        "give a file of weights, another tag of the model, or leave weights out to begin from nothing",
    ),
    "SR-M309": Entry(
        Exit.MODEL,
        "{model} can't be imported",
        "{problem}",
        "nothing was started",
        "run from the folder that holds the package, or install it; the form is package.module:Name",
    ),
    "SR-M385": Entry(
        Exit.MODEL,
        "quantize: the network has no {what} that can be rounded",
        "only layers that multiply what they read by plain weights can be; weight-standardised ones, and those whose "
        "weights other parts use directly, can't",
        "nothing was trained",
        "choose another student, or another compression",
    ),
    "SR-M386": Entry(
        Exit.USAGE,
        "quantize: keep = {keep} leaves nothing to round",
        "the network has {layers} layers that can be rounded, and so many are to stay in floats",
        "nothing was trained",
        "lower keep; one or two layers are usual",
    ),
    "SR-M310": Entry(
        Exit.MODEL,
        "unusable weights   {file}",
        "{problem}",
        "nothing was loaded",
        "get the file again, or save the weights as safetensors from where they work",
    ),
    "SR-M380": Entry(
        Exit.MODEL,
        "the compression {name} needs {package}, which is not installed",
        "it finds out which channels depend on each other",
        "nothing was trained",
        "pip install 'stillroom[{extra}]'",
    ),
    "SR-M381": Entry(
        Exit.MODEL,
        "this network can't be pruned",
        "{problem}",
        "it was left as it is",
        "take another student (`stillroom list students`), or another compression: quantize works for nearly all",
    ),
    "SR-M382": Entry(
        Exit.USAGE,
        "{name}: a share of {wanted:.3f} can't be had, {least:.3f} is the least",
        "every layer keeps some of its channels, and some layers can't get smaller at all",
        "the network was left as it is",
        "ask for less, or take a smaller student",
    ),
    "SR-M383": Entry(
        Exit.USAGE,
        "no layer gets cheaper by factorising",
        "{problem}",
        "the network was left as it is",
        "lower compress.energy, compress.rank or compress.least; small layers gain more from prune",
    ),
    "SR-M370": Entry(
        Exit.USAGE,
        "{count} detectors can't teach as one",
        "each offers boxes at places of its own, and the mean of two boxes lies around neither object",
        "nothing was trained",
        "take one teacher; run one after the other and compare",
    ),
    "SR-M371": Entry(
        Exit.MODEL,
        "teachers that don't say the same: {kinds}",
        "their answers are averaged number by number",
        "nothing was trained",
        "fit each to the data's classes, or give each its map; of vectors take networks of one width",
    ),
    "SR-M372": Entry(
        Exit.USAGE,
        "the tap {tap!r} asks a teacher that is not there: there are {count}",
        "the number before the slash counts the teachers, from 1",
        "nothing was trained",
        "name a part of one of them: 2/layer3 is the second teacher's layer3",
    ),
    "SR-M350": Entry(
        Exit.MODEL,
        "{model} needs a package that is not installed: transformers",
        "models of Hugging Face are built by that package, and nothing else here needs it",
        "nothing was started",
        "pip install 'stillroom[hub]'",
    ),
    "SR-M351": Entry(
        Exit.MODEL,
        "no model of Hugging Face at {model}{near}",
        "{problem}",
        "nothing was started",
        "name a folder that holds config.json and model.safetensors, a model of the hub (huggingface/OWNER/NAME), "
        "or a kind of model to begin from nothing (huggingface/segformer)",
    ),
    "SR-M352": Entry(
        Exit.MODEL,
        "{model} is a {kind}, which can't answer with {answers}",
        "transformers has no model of that kind for it",
        "nothing was started",
        "take one of these kinds: {kinds}",
    ),
    "SR-M360": Entry(
        Exit.USAGE,
        "onnx is a network only together with its file",
        "an ONNX file holds architecture and weights in one, and without it there is nothing to build",
        "nothing was started",
        'name the file, as a teacher\'s: network = "onnx" and weights = "teacher.onnx"',
    ),
    "SR-M361": Entry(
        Exit.USAGE,
        "{path} can't be trained or get a new head",
        "what is in an ONNX file runs forwards only",
        "nothing was trained",
        "let it teach as it is: leave teacher.fit out, with map = [...] where its classes are others; as a student, or "
        "to be fitted, take a network of a library",
    ),
    "SR-M362": Entry(
        Exit.USAGE,
        "no inner features: an ONNX file has no part called {tap!r}",
        "the file runs as one piece on its own runtime, and only its answer comes out",
        "nothing was trained",
        "take methods of predictions: hinton, dist, dkd; or the network that the file was made from",
    ),
    "SR-M363": Entry(
        Exit.MODEL,
        "{path} takes no images [B, C, H, W]",
        "{problem}",
        "nothing was started",
        "export it with one input of float32 or float16 pixels [B, 1 or 3, H, W] or [B, H, W, 1 or 3], H equal to W",
    ),
    "SR-M364": Entry(
        Exit.MODEL,
        "{path} has no output that can be taken for {answers}{own}",
        "its outputs are {outputs}",
        "nothing was started",
        "classes are [B, K], pixels [B, K, h, w], a vector [B, D]; name the one you mean, teacher.output = NAME, or "
        "export the file with one",
    ),
    "SR-M365": Entry(
        Exit.MODEL,
        "{path} has an operator whose work can't be counted: {operator}",
        "how much a student saves is said in the teacher's multiply-accumulates, and a guess would be no figure",
        "nothing was started",
        "export it again without fused operators, branches or loops around it: as its library writes it, not optimised",
    ),
    "SR-M311": Entry(
        Exit.MODEL,
        "{file} does not fit the network",
        "{problem}",
        "nothing was loaded",
        "name the network and the arguments that these weights were trained with",
    ),
}

TEACHERS: dict[str, Entry] = {
    "SR-T320": Entry(
        Exit.MODEL,
        "the teacher is not at rest: {problem}",
        "a teacher that drops out, learns or changes gives other targets every time, and they are nobody's opinion",
        "nothing was trained",
        "give a network whose modules follow eval(); a layer that ignores it has to be replaced",
    ),
    "SR-T321": Entry(
        Exit.MODEL,
        "{method} has parts that nothing trains: {parts}",
        "they are in no optimiser, or the loss does not reach them, so the student would imitate a random projection",
        "nothing was trained",
        "register them as submodules in setup, and use them in project or loss",
    ),
    "SR-T601": Entry(
        Exit.MODEL,
        "{folder} holds a teacher's answers to something else:\n{changes}",
        "answers of another teacher, or to other pixels, would be learnt as this one's",
        "nothing was read from it, nothing was changed",
        "give cache.path another folder, or the one above it: there every teacher has a cache of its own",
    ),
    "SR-T602": Entry(
        Exit.RESOURCES,
        "{path} is damaged   {problem}",
        "a shard of the teacher's answers was changed, cut or removed after it was written",
        "stopped at the last checkpoint; no wrong answer was learnt",
        "give the same command again: it asks the teacher for that shard anew",
    ),
    "SR-T603": Entry(
        Exit.UNVERIFIED,
        "{folder} does not hold what the teacher says: of {count} answers one is off by {worst} of the largest",
        "the files are undamaged, so the teacher, its library or the machine computes otherwise than it did",
        "nothing was learnt from them",
        "remove the folder and give the same command again, or set cache.use = 'never'",
    ),
    "SR-T604": Entry(
        Exit.RESOURCES,
        "the teacher's answers would take {size}   {each}",
        "that is more than cache.max_gb allows, {limit}",
        "nothing was trained, nothing was written",
        "set cache.max_gb={need} to accept it, take fewer augment.views or methods with fewer taps, or cache.use=never",
    ),
    "SR-T606": Entry(
        Exit.MODEL,
        "there is no teacher yet: {path} is missing",
        "this recipe trains its teacher, or fits its head, and nobody has done that",
        "nobody was asked",
        "`stillroom run` with the same recipe does it, and keeps the answers by itself where that pays",
    ),
    "SR-T607": Entry(
        Exit.USAGE,
        "there is no end of looks to ask the teacher about: augment.views = 0",
        "every epoch shows every image as it was never shown before, so no answer is wanted twice",
        "nobody was asked",
        "set augment.views to how many looks each image has, for instance 8 of its {epochs} epochs",
    ),
    "SR-T605": Entry(
        Exit.MODEL,
        "{count} of {total} answers of the teacher are not finite",
        "it divides by zero or overflows on these images, or in this precision",
        "they are kept as such; a step that meets one is skipped",
        "try teacher.precision = 'float32'; `stillroom check` shows more",
    ),
}

RESOURCES: dict[str, Entry] = {
    "SR-R501": Entry(
        Exit.RESOURCES,
        "disk full: {free} MB free   {path}",
        "{problem}",
        "the file was not written and no part of it is left; the last good checkpoint is intact",
        "free some room and give the same command again: it goes on from that checkpoint",
    ),
    "SR-R503": Entry(
        Exit.RESOURCES,
        "out of memory",
        "{problem}",
        "this step was not made; the last good checkpoint is intact",
        "train.accumulate=2 (or more) cuts each batch into parts with the same gradients; data.memory_gb and "
        "train.batch lower what is held at once",
    ),
    "SR-R510": Entry(
        Exit.RESOURCES,
        "locked by {holder}   {folder}",
        "two processes writing one run folder would spoil both runs",
        "nothing was changed",
        "wait for that process or end it, or give this run a folder of its own: name=...",
    ),
    "SR-R520": Entry(
        Exit.RESOURCES,
        "process {rank} of {world} ended{words}",
        "{why}",
        "all processes ended with it; the last good checkpoint is intact",
        "{fix}",
    ),
    "SR-R521": Entry(
        Exit.RESOURCES,
        "process {rank} of {world} stands still   {place}",
        "it has been in one step for {seconds} s, and the others can't go on without it",
        "all processes ended; the last good checkpoint is intact",
        "look at that line; if a step may well take so long, set STILLROOM_PATIENCE (seconds); the same command goes "
        "on, with as many processes as there are",
    ),
    "SR-R522": Entry(
        Exit.USAGE,
        "--devices {devices}, but {starter} has started {here} on this machine",
        "each process trains on a device of its own",
        "nothing was trained",
        "leave out --devices, or have {starter} start as many",
    ),
    "SR-R523": Entry(
        Exit.USAGE,
        "{section}.batch = {batch} can't be shared equally by {parts}",
        "every process takes an equal part of each batch, cut into equal micro-batches, so that two learn as one would",
        "nothing was started",
        "set {section}.batch to {near}, or take another number of processes",
    ),
    "SR-R524": Entry(
        Exit.RESOURCES,
        "process {rank} on {host} does not see what process {other} wrote   {folder}",
        "all processes of a run read its folder, so their machines must share the disk it is on",
        "nothing was trained",
        "give a folder that every machine sees: --folder /SHARED/runs/NAME",
    ),
    "SR-R525": Entry(
        Exit.USAGE,
        "{starter} has started {world} processes, and {here} of them on this machine",
        "devices are told apart by a process's number on its machine, and every machine must have equally many",
        "nothing was trained",
        "start as many on each machine: --nproc-per-node of torchrun, --ntasks-per-node of srun",
    ),
    "SR-R530": Entry(
        Exit.RESOURCES,
        "torch.compile can't build the student's forward pass",
        "{problem}",
        "nothing was trained",
        "install a C++ compiler (g++, or name one in CXX), or train without: train.compile=false",
    ),
    "SR-E601": Entry(
        Exit.DIVERGED,
        "training diverged: {stage}, step {step}",
        "the numbers stayed infinite or undefined through two restores with halved learning rates: {terms}",
        "stopped; the weights before it and the number of the batch are in {folder}",
        "lower train.lr, use train.precision='float32', or look at that batch of images",
    ),
}

EXPORT: dict[str, Entry] = {
    "SR-X701": Entry(
        Exit.UNVERIFIED,
        "{problem}   {path}",
        "the exported file answers otherwise than the network it was made from",
        "the file is kept under this name, and no figure of it counts as verified",
        "train the student longer (train.epochs), for answers that are close calls flip first; or choose another "
        "student; or export only `bits = 32`; if the difference is acceptable, lower this file's gate in the recipe, "
        "for example `[[export]] agreement = 0.97`",
    ),
    "SR-X702": Entry(
        Exit.UNVERIFIED,
        "the target {target} needs packages that are not installed: {packages}",
        "without them the file can neither be written nor run and compared",
        "nothing was exported",
        "pip install 'stillroom[{target}]', or by themselves: pip install {packages}",
    ),
    "SR-X703": Entry(
        Exit.UNVERIFIED,
        "export to {target} failed   {path}",
        "{problem}",
        "no file was written; a file of an earlier export was left as it was",
        "choose a student that the target supports (`stillroom list students`), or see the whole message with -v",
    ),
    "SR-X704": Entry(
        Exit.MODEL,
        "{runtime} can't open the model   {path}",
        "{problem}",
        "the file was not run",
        "check that the file is whole and was made for this runtime; export it again if in doubt",
    ),
    "SR-X730": Entry(
        Exit.UNVERIFIED,
        "{target} has no operator {operator}   {path}",
        "the network needs it, and neither the target nor its converter has anything that computes it",
        "no file was written; a file of an earlier export was left as it was",
        "export to another target (`stillroom list targets`), or choose a student that does without the operator",
    ),
    "SR-X731": Entry(
        Exit.UNVERIFIED,
        "{target} can't hold {bits}-bit weights   {path}",
        "{problem}",
        "no file was written; a file of an earlier export was left as it was",
        "export with `bits = 8` or `bits = 32`, or to another target: onnx and openvino hold 4-bit weights",
    ),
    "SR-X732": Entry(
        Exit.UNVERIFIED,
        "nothing here converts to LiteRT",
        "{problem}; the converter's requirements clash with this program's, so it lives in an environment of its own",
        "nothing was exported",
        "make one and say where it is: python -m venv DIR; DIR/bin/pip install {pins}; "
        "export STILLROOM_LITERT=DIR/bin/python",
    ),
    "SR-X720": Entry(
        Exit.UNVERIFIED,
        "4 bits would not make this file smaller   {path}",
        "only linear layers are stored in 4 bits, and they hold {share:.0%} of this network's weights",
        "no file was written",
        "export `bits = 8`, or choose a student that is made of linear layers, such as a vision transformer",
    ),
    "SR-X741": Entry(
        Exit.UNVERIFIED,
        "wrong preprocessing: {problem}   {path}",
        "{cause}",
        "the file is kept under this name, and no figure of it counts as verified",
        "pixels go in as they are, 0..1, and the network normalises for itself: see to it that the file does just "
        "that once (student.mean and student.std, and what your own export code adds); then export again",
    ),
    "SR-X710": Entry(
        Exit.MODEL,
        "{metric} needs {package}, which is not installed",
        "the figure is that package's own, so that it means what it means elsewhere",
        "nothing was evaluated",
        "pip install 'stillroom[{extra}]'",
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
    "SR-B902": Entry(
        Exit.DONE,
        "drifting timing of {name}: the last third took {drift:.2f} times as long as the first",
        "the processor's clock changed while times were taken, for it grew hot or woke up; or another program began or "
        "ended",
        "the time is reported with a flag, and no claim rests on it",
        "let the machine rest and cool, and repeat `stillroom bench`",
    ),
    "SR-B910": Entry(
        Exit.RESOURCES,
        "can't reach {host}",
        "{problem}",
        "nothing was measured there",
        "try `ssh {host} true`: it must work without asking for anything (a key in ~/.ssh, the host known)",
    ),
    "SR-B911": Entry(
        Exit.RESOURCES,
        "{package} is not installed on {where}",
        "{runtime} files are measured with it, by {python}: {problem}",
        "nothing was measured there",
        "on {where}: {python} -m pip install {package}; or name another Python that has it: target.python",
    ),
    "SR-B912": Entry(
        Exit.RESOURCES,
        "measuring failed on {where}",
        "{problem}",
        "nothing was measured there, and nothing is left there",
        "check that the file is whole and the runtime there is as new as here; `target.python` names the Python",
    ),
    "SR-B913": Entry(
        Exit.RESOURCES,
        "measuring did not end on {where} within {seconds} s",
        "the connection hangs, or the device is far slower than this kind of file needs",
        "nothing was measured there",
        "try again, or take a smaller student",
    ),
    "SR-B914": Entry(
        Exit.USAGE,
        "not a host name   {host}",
        "a host is NAME, USER@NAME or a name of ~/.ssh/config: letters, digits and . _ - @ : % / [ ], no `-` in front",
        "nothing was started",
        "mend target.host; options belong into ~/.ssh/config",
    ),
    "SR-B915": Entry(
        Exit.USAGE,
        "files for {runtime} can't be measured in a process of their own",
        "the script that measures on a device knows {known}",
        "nothing was measured",
        "name one of those: target.runtime",
    ),
}

NETWORK: dict[str, Entry] = {
    "SR-N801": Entry(
        Exit.MODEL,
        "offline: {file} not in cache",
        "{problem}",
        "nothing was started",
        "run once where there is a network, which keeps the weights here, or give a file of weights",
    ),
    "SR-B930": Entry(
        Exit.TARGET_MISSED,
        "the target is missed: {why}, and the budget is {limits}",
        "what was measured in the end is beyond it",
        "everything is done and written down; the report says so beside the figures",
        "`stillroom plan` shows what each compression would come to; prune further (`[[compress]] name = "
        '"prune", macs = ...`), choose a smaller student or another runtime, or allow more in [target]',
    ),
    "SR-B931": Entry(
        Exit.TARGET_MISSED,
        "no compression of this student keeps within {limits} on {where}",
        "measured on untrained files: {rows}",
        "nothing was trained",
        "choose a smaller student or another runtime, or allow more in [target]; a compression that you name "
        "yourself in [[compress]] is trained whatever it comes to",
    ),
}

CATALOGUE: dict[str, Entry] = RECIPE | NETWORK | DATA | SECURITY | MODELS | TEACHERS | RESOURCES | EXPORT | BENCHMARK
