"""Lists of image files, each confined to its folder, and the search for image files in folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from stillroom.data.decode import SUFFIXES
from stillroom.data.errors import NoImages, UnknownLayout
from stillroom.data.sources._paths import existing_path, printable, read_file, require_inside


class ImageFiles:
    """Files by index.

    Args:
        paths: full paths, in order.
        roots: for each path the folder (a real path) that it must stay inside; None for no restriction.

    Raises:
        PathOutsideData: SR-S201, a path, with all links resolved, lies outside of its folder.
    """

    def __init__(self, paths: Sequence[str], roots: Sequence[str | None]):
        for path, root in zip(paths, roots, strict=True):
            if root is not None:
                require_inside(path, root=root, shown=printable(path))
        self._paths = list(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, item: int) -> str:
        """The path."""
        return printable(self._paths[item])

    def read(self, item: int) -> bytes:
        """The file's bytes."""
        return read_file(self._paths[item], name=self.name(item))


class UnlabelledFiles(ImageFiles):
    """Unlabelled image files.

    Attributes:
        folders: the folders of the files, as real paths.
    """

    def __init__(self, folders: Sequence[str], *, allow_outside: bool):
        found = {folder: images_below(folder) for folder in folders}
        for folder, paths in found.items():
            if not paths:
                raise NoImages(path=printable(folder), why="no file in it has the suffix of an image")
        roots = [None if allow_outside else os.path.realpath(folder) for folder in found for _ in found[folder]]
        super().__init__([path for paths in found.values() for path in paths], roots)
        self.folders = {os.path.realpath(folder) for folder in folders}


def unlabelled_images(unlabelled: str | Sequence[str], *, below: str, allow_outside: bool) -> UnlabelledFiles:
    """All images below the folders in the argument `unlabelled`, see `resolve_folder`.

    Raises:
        StillroomError: SR-D101 a folder does not exist, SR-D108 one contains no image, SR-D109 one is a file, SR-S201 a
            link leads outside.
    """
    folders = [unlabelled] if isinstance(unlabelled, str) else unlabelled
    return UnlabelledFiles([resolve_folder(path, below=below) for path in folders], allow_outside=allow_outside)


def resolve_folder(path: str, *, below: str) -> str:
    """The folder of an argument: absolute, relative to `below`, or relative to the working directory.

    Raises:
        StillroomError: SR-D101 it does not exist, SR-D109 it is a file.
    """
    here = os.path.expanduser(path)
    inner = os.path.normpath(os.path.join(below, here))
    found = existing_path(here if os.path.exists(here) and not os.path.exists(inner) else inner)
    if not found.is_dir():
        raise UnknownLayout(path=printable(str(found)), why="it is a file, not a folder")
    return str(found)


def images_below(folder: str) -> list[str]:
    """Paths of all image files in a folder and its subfolders, sorted; hidden files are left out."""
    return sorted(_walk(folder, lambda name: os.path.splitext(name)[1].lower() in SUFFIXES))


def images_by_stem(folder: str) -> dict[str, str]:
    """Name without suffix -> path, for the image files directly in a folder."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    images = [name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")]
    return {os.path.splitext(name)[0]: os.path.join(folder, name) for name in images}


def _walk(folder: str, wanted: Callable[[str], bool]) -> Iterable[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in names if wanted(name) and not name.startswith("."))
