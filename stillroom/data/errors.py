"""Images, labels, boxes and masks that can't be used."""

from __future__ import annotations

from stillroom.errors import DataError

LEFT_OUT = "the image is left out; training takes the next readable one in its place, a test simply has one fewer"


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
    fix = "delete the file or fetch it again; read are JPEG, PNG, WebP, GIF, BMP, TIFF, PPM and AVIF"


class TooManyPixels(DataError):
    code = "SR-D105"
    what = "image {width}×{height} exceeds data.max_pixels={limit}   {path}"
    why = "the header claims more pixels than the limit; nothing was decoded"
    effect = LEFT_OUT
    fix = "raise data.max_pixels if you trust the file, or remove it"


class ImageTooSmall(DataError):
    code = "SR-D106"
    what = "image {width}×{height} is too small   {path}"
    why = "an image one pixel wide or high shows nothing"
    effect = LEFT_OUT
    fix = "delete the file: it is most likely a placeholder or a tracking pixel"


class TooManyBadImages(DataError):
    code = "SR-D107"
    what = "{count} of {total} images can't be used, more than data.max_bad={limit:.4g}"
    why = "the first: {first}"
    effect = "stopped, because a data set with that many bad files is probably not the one you meant"
    fix = "repair or delete the files in {csv}, or raise data.max_bad"


class NoImages(DataError):
    code = "SR-D108"
    what = "no images found   {path}"
    why = "{why}"
    effect = "nothing was started"
    fix = "point data.path at the folder whose subfolders are the classes, or that holds what its kind of data asks for"


class UnknownLayout(DataError):
    code = "SR-D109"
    what = "unknown layout   {path}"
    why = "{why}"
    effect = "nothing was started"
    fix = (
        "lay it out as CLASS/*.jpg or {{train,val,test}}/CLASS/*.jpg, or name the kind with data.source; `stillroom "
        "list sources` has them all"
    )


class ClassMissingInSplit(DataError):
    code = "SR-D110"
    what = "class {name!r} has no image in {split}"
    why = "{images} {noun} of it elsewhere"
    effect = "nothing is learnt or measured about that class there"
    fix = "add images of it, or delete the class"


class TooFewClasses(DataError):
    code = "SR-D111"
    what = "{count} class(es) in the data"
    why = "telling classes apart needs two at least{names}"
    effect = "any network is right on all of them, so its figures mean nothing"
    fix = "point data.path one folder higher, or add the other classes"


class DuplicatesAcrossSplits(DataError):
    code = "SR-D112"
    what = "{count} images are in more than one split"
    why = "same bytes: {examples}"
    effect = "the test figure would be partly remembered, not recognised"
    fix = "delete the copies from one of the splits"


class LabelOutOfRange(DataError):
    code = "SR-D113"
    what = "label out of range: {label}   {path}"
    why = "{count} image(s) have a label outside 0..{highest}"
    effect = "nothing was started"
    fix = "correct the labels; -1 alone stands for an image whose class is unknown"


class EmptySplit(DataError):
    code = "SR-D115"
    what = "no image left for {split}"
    why = "{images} images in {classes} class(es) are too few to share out"
    effect = "nothing was started"
    fix = "add images (three of each class at least), or change data.val and data.test"


class InvalidMask(DataError):
    code = "SR-D122"
    what = "unusable mask   {path}"
    why = "{why}"
    effect = LEFT_OUT
    fix = "save it as a grey or palette PNG of its image's size whose numbers are the classes, or delete the image"


class DegenerateBoxes(DataError):
    code = "SR-D123"
    what = "{count} box(es) without width or height"
    why = "in {images} image(s): {examples}"
    effect = "they are left out; an object without an area can't be found"
    fix = "correct or delete them"


class BoxesOutsideImage(DataError):
    code = "SR-D124"
    what = "{count} box(es) reach beyond their image"
    why = "in {images} image(s): {examples}"
    effect = "they are cut at the edge, and left out where nothing remains"
    fix = "correct them; many of them mean that images were resized or turned without their boxes"


class DuplicateBoxes(DataError):
    code = "SR-D125"
    what = "{count} box(es) are there twice"
    why = "same class and same place, in {images} image(s): {examples}"
    effect = "the second is left out; else an object would count twice, and only one of the two could be found"
    fix = "delete the copies"


class BoxesOfUnknownClass(DataError):
    code = "SR-D126"
    what = "{count} box(es) of an unknown class"
    why = "in {images} image(s): {examples}"
    effect = "they are left out, so what lies in them counts as background"
    fix = "add the class to the list of classes, or delete the boxes"


class ImagesWithoutBoxes(DataError):
    code = "SR-D127"
    what = "{count} image(s) without a box"
    why = "{examples}"
    effect = "everything in them counts as background"
    fix = "nothing, if there is no object in them; images that were never annotated belong in data.unlabelled"


class ImageSizeMismatch(DataError):
    code = "SR-D128"
    what = "{count} image(s) of another size than declared"
    why = "{examples}"
    effect = "boxes are read as parts of the declared size, and lie wrong if they were drawn in the file's"
    fix = "correct width and height in the annotations, or restore the images"


class MaskSizeMismatch(DataError):
    code = "SR-D129"
    what = "{count} mask(s) of another size than their image"
    why = "{examples}"
    effect = "the aspect is the same, so both are stretched to one size, the mask by its nearest pixels"
    fix = "nothing, if the masks were made smaller on purpose"


class UnknownMaskValues(DataError):
    code = "SR-D130"
    what = "{count} mask(s) with numbers that are no class: {numbers}"
    why = "{examples}"
    effect = "these pixels count as void"
    fix = "name the numbers in classes.txt, or call them void with data.void"


class VoidMasks(DataError):
    code = "SR-D131"
    what = "{count} mask(s) with nothing but void"
    why = "{examples}"
    effect = "nothing is learnt from these images, and nothing measured"
    fix = "delete them, or correct data.void if it names a class"


class MissingAnnotationFiles(DataError):
    code = "SR-D133"
    what = "{count} image(s) without {kind}"
    why = "there is no file of that name beside: {examples}"
    effect = "they are left out"
    fix = "add the missing files, or delete the images"


class UnlabelledEvaluationImages(DataError):
    code = "SR-D141"
    what = "{count} image(s) of {split} have no label   {path}"
    why = "what is measured on {split} needs labels, and other images have them"
    effect = "nothing was started"
    fix = "label them or move them out of {split}; train may contain images without labels"
