"""Images, labels, boxes and masks that can't be used."""

from __future__ import annotations

from stillroom.errors import DataError

LEFT_OUT = "the image is left out: in train and val the next readable image takes its place, in test it is missing"


class UnreadableImage(DataError):
    code = "SR-D102"
    what = "unreadable image   {path}"
    why = "{why}"
    effect = LEFT_OUT
    fix = "repair or delete the file; data.max_bad=0 stops at the first one"


class NotAnImage(DataError):
    code = "SR-D103"
    what = "not an image ({bytes} bytes)   {path}"
    why = "{why}"
    effect = LEFT_OUT
    fix = "delete the file or fetch it again; supported are JPEG, PNG, WebP, GIF, BMP, TIFF, PPM and AVIF"


class TooManyPixels(DataError):
    code = "SR-D105"
    what = "image {width}×{height} exceeds data.max_pixels={limit}   {path}"
    why = "the header claims more pixels than the limit; nothing was decoded"
    effect = LEFT_OUT
    fix = "raise data.max_pixels if you trust the file, or remove it"


class ImageTooSmall(DataError):
    code = "SR-D106"
    what = "image {width}×{height} is too small   {path}"
    why = "an image one pixel wide or high has no content"
    effect = LEFT_OUT
    fix = "delete the file: it is most likely a placeholder or a tracking pixel"


class TooManyBadImages(DataError):
    code = "SR-D107"
    what = "{count} of {total} images can't be used, more than data.max_bad={limit:.4g}"
    why = "the first: {first}"
    effect = "stopped, because a data set with that many bad files is probably not the intended one"
    fix = "repair or delete the files in {csv}, or raise data.max_bad"


class NoImages(DataError):
    code = "SR-D108"
    what = "no images found   {path}"
    why = "{why}"
    effect = "nothing was started"
    fix = "point data.path at the folder whose subfolders are the classes, or that has the layout of the source"


class UnknownLayout(DataError):
    code = "SR-D109"
    what = "unknown layout   {path}"
    why = "{why}"
    effect = "nothing was started"
    fix = (
        "arrange it as CLASS/*.jpg or {{train,val,test}}/CLASS/*.jpg, or name the source with data.source; `stillroom "
        "list sources` lists them"
    )


class ClassMissingInSplit(DataError):
    code = "SR-D110"
    what = "class {name!r} has no image in {split}"
    why = "{images} {noun} of it elsewhere"
    effect = "the class is neither trained nor evaluated there"
    fix = "add images of it, or delete the class"


class TooFewClasses(DataError):
    code = "SR-D111"
    what = "{count} class(es) in the data"
    why = "classification needs at least two{names}"
    effect = "every network is correct on all images, so its results mean nothing"
    fix = "point data.path one folder higher, or add the other classes"


class DuplicatesAcrossSplits(DataError):
    code = "SR-D112"
    what = "{count} images are in more than one split"
    why = "same bytes: {examples}"
    effect = "the test result would partly measure memorisation"
    fix = "delete the copies from one of the splits"


class LabelOutOfRange(DataError):
    code = "SR-D113"
    what = "label out of range: {label}   {path}"
    why = "{count} image(s) have a label outside 0..{highest}"
    effect = "nothing was started"
    fix = "correct the labels; the label of an unlabelled image is -1"


class EmptySplit(DataError):
    code = "SR-D115"
    what = "no image left for {split}"
    why = "{images} images in {classes} class(es) are too few to split"
    effect = "nothing was started"
    fix = "add images (at least three per class), or change data.val and data.test"


class InvalidMask(DataError):
    code = "SR-D122"
    what = "unusable mask   {path}"
    why = "{why}"
    effect = LEFT_OUT
    fix = "save it as a grey or palette PNG of its image's size whose values are the classes, or delete the image"


class DegenerateBoxes(DataError):
    code = "SR-D123"
    what = "{count} box(es) without width or height"
    why = "in {images} image(s): {examples}"
    effect = "they are left out; an object without an area can't be detected"
    fix = "correct or delete them"


class BoxesOutsideImage(DataError):
    code = "SR-D124"
    what = "{count} box(es) reach beyond their image"
    why = "in {images} image(s): {examples}"
    effect = "they are clipped to the image, and left out if nothing remains"
    fix = "correct them; many of them mean that images were resized or rotated without their boxes"


class DuplicateBoxes(DataError):
    code = "SR-D125"
    what = "{count} duplicate box(es)"
    why = "same class and same coordinates, in {images} image(s): {examples}"
    effect = "duplicates are left out, because an object would count twice and could be detected only once"
    fix = "delete the copies"


class BoxesOfUnknownClass(DataError):
    code = "SR-D126"
    what = "{count} box(es) of an unknown class"
    why = "in {images} image(s): {examples}"
    effect = "they are left out, so their content counts as background"
    fix = "add the class to the list of classes, or delete the boxes"


class ImagesWithoutBoxes(DataError):
    code = "SR-D127"
    what = "{count} image(s) without a box"
    why = "{examples}"
    effect = "their whole content counts as background"
    fix = "nothing, if they contain no object; images that were never annotated belong in data.unlabelled"


class ImageSizeMismatch(DataError):
    code = "SR-D128"
    what = "{count} image(s) of another size than declared"
    why = "{examples}"
    effect = "boxes are taken relative to the declared size, and are misplaced if they refer to the actual size"
    fix = "correct width and height in the annotations, or restore the images"


class MaskSizeMismatch(DataError):
    code = "SR-D129"
    what = "{count} mask(s) of another size than their image"
    why = "{examples}"
    effect = "the aspect ratio agrees, so both are resized to one size, the mask by nearest-neighbour sampling"
    fix = "nothing, if the masks were made smaller on purpose"


class UnknownMaskValues(DataError):
    code = "SR-D130"
    what = "{count} mask(s) with values that are no class: {numbers}"
    why = "{examples}"
    effect = "these pixels count as void"
    fix = "name the values in classes.txt, or declare them void with data.void"


class VoidMasks(DataError):
    code = "SR-D131"
    what = "{count} mask(s) that are entirely void"
    why = "{examples}"
    effect = "these images contribute neither to training nor to evaluation"
    fix = "delete them, or correct data.void if it names a class"


class MissingAnnotationFiles(DataError):
    code = "SR-D133"
    what = "{count} image(s) without {kind}"
    why = "no annotation file of the same name: {examples}"
    effect = "they are left out"
    fix = "add the missing files, or delete the images"


class UnlabelledEvaluationImages(DataError):
    code = "SR-D141"
    what = "{count} image(s) of {split} have no label   {path}"
    why = "evaluation on {split} needs labels, and other images have them"
    effect = "nothing was started"
    fix = "label them or move them out of {split}; train may contain images without labels"


class LabelBudgetTooSmall(DataError):
    code = "SR-D144"
    what = "data.{key} = {amount} is not possible with {labelled} labelled training images"
    why = "every class needs an image, so a number from {least} to {most} is left"
    effect = "nothing was started"
    fix = "give a number in that range, or a share of the labelled training images below 1"
