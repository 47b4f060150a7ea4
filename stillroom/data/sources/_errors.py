"""Folders and annotation files that can't be read."""

from __future__ import annotations

from stillroom.data.errors import LEFT_OUT
from stillroom.errors import DataError, Exit, SecurityError


class DataNotFound(DataError):
    code = "SR-D101"
    what = "no such data   {path}"
    why = "there is no file or folder of that name{hint}"
    effect = "nothing was started"
    fix = "correct data.path; `digits` is the built-in data set"


class DataPermissionDenied(DataError):
    code = "SR-D104"
    what = "permission denied   {path}"
    why = "the file exists, but this user may not read it"
    effect = LEFT_OUT
    fix = "make it readable for this user, e.g. chmod u+r"


class ClassNotInTrain(DataError):
    code = "SR-D114"
    what = "class {name!r} is in {split} but not in train   {path}"
    why = "{images} images of a class without training images; the classes of train are {known}"
    effect = "nothing was started"
    fix = "rename the folder if it is a misspelling, else add the class to train or remove it from {split}"


class InvalidIdx(DataError):
    code = "SR-D116"
    what = "not a valid idx file   {path}"
    why = "{why}"
    effect = "nothing was started"
    fix = "fetch the file again"


class InvalidParquet(DataError):
    code = "SR-D117"
    what = "unusable parquet file   {path}"
    why = "{why}"
    effect = "nothing was started"
    fix = "name the columns with data.image and data.label: an image struct {{bytes, path}} and an integer or text"


class InvalidCoco(DataError):
    code = "SR-D120"
    what = "unusable COCO file   {path}"
    why = "{why}"
    effect = "nothing was started"
    fix = "correct or fetch the file again; needed are the lists images, annotations and categories of COCO's format"


class InvalidVoc(DataError):
    code = "SR-D121"
    what = "unusable VOC file   {path}"
    why = "{why}"
    effect = "nothing was started"
    fix = "correct or delete the file; each object needs a name and a bndbox with xmin, ymin, xmax and ymax"


class InvalidClassList(DataError):
    code = "SR-D132"
    what = "unusable list of classes   {path}"
    why = "{why}"
    effect = "nothing was started"
    fix = "write one line per class: VALUE NAME, with values in 0..255, or NAME alone"


class PathOutsideData(SecurityError):
    code = "SR-S201"
    exit = Exit.DATA
    what = "path leaves data root: {path}"
    why = "it leads to {target}, outside {root}"
    effect = "refused; nothing was read from there"
    fix = "copy the files into the folder, or set data.allow_outside=true if you put the link there yourself"
