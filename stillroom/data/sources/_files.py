"""Image files that a list names: read below one folder, links that lead out of it refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from stillroom.data.decode import SUFFIXES
from stillroom.data.errors import NoImages, UnknownLayout
from stillroom.data.sources.source import existing_path, printable, read_file, require_inside


class ImageFiles:
    """Some files, by number.

    Args:
        paths: whole paths, in order.
        roots: for each the folder that it must not leave, real; None: it may lie anywhere.

    Raises:
        PathOutsideData: SR-S201, a file lies, every link followed, outside of its folder.
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
    """Image files of which nobody knows what they show.

    Attributes:
        folders: the folders that they lie in, real.
    """

    def __init__(self, folders: Sequence[str], *, allow_outside: bool):
        held = {folder: images_below(folder) for folder in folders}
        for folder, paths in held.items():
            if not paths:
                raise NoImages(path=printable(folder), why="no file in it has the suffix of an image")
        roots = [None if allow_outside else os.path.realpath(folder) for folder in held for _ in held[folder]]
        super().__init__([path for paths in held.values() for path in paths], roots)
        self.folders = {os.path.realpath(folder) for folder in folders}


def unlabelled_images(unlabelled: str | Sequence[str], *, below: str, allow_outside: bool) -> UnlabelledFiles:
    """All images in the folders that the argument `unlabelled` names, see `folder_at`, and in folders inside them.

    Raises:
        StillroomError: SR-D101 one isn't there, SR-D108 one holds no image, SR-D109 one is a file, SR-S201 a link leads
            outside.
    """
    named = [unlabelled] if isinstance(unlabelled, str) else unlabelled
    return UnlabelledFiles([resolve_folder(path, below=below) for path in named], allow_outside=allow_outside)


def resolve_folder(path: str, *, below: str) -> str:
    """A folder that an argument names: absolute, below the data's own, or as seen from where the command is given.

    Raises:
        StillroomError: SR-D101 it isn't there, SR-D109 it is a file.
    """
    here = os.path.expanduser(path)
    inner = os.path.normpath(os.path.join(below, here))
    found = existing_path(here if os.path.exists(here) and not os.path.exists(inner) else inner)
    if not found.is_dir():
        raise UnknownLayout(path=printable(str(found)), why="it is a file, not a folder")
    return str(found)


def images_below(folder: str) -> list[str]:
    """Paths of all image files in a folder and its folders, sorted; hidden ones left out."""
    return sorted(_walk(folder, lambda name: os.path.splitext(name)[1].lower() in SUFFIXES))


def images_by_stem(folder: str) -> dict[str, str]:
    """Name without suffix -> path of the image files right in a folder."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    images = [name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")]
    return {os.path.splitext(name)[0]: os.path.join(folder, name) for name in images}


def _walk(folder: str, wanted: Callable[[str], bool]) -> Iterable[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (os.path.join(parent, name) for name in names if wanted(name) and not name.startswith("."))
