"""Names of splits, and the split folders of a data folder."""

from __future__ import annotations

import os

from stillroom.data.errors import UnknownLayout
from stillroom.data.sources._paths import printable

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
ORDER = ("train", "val", "test")


def split_folders(root: str) -> dict[str, str]:
    """Split name -> folder; the single name "" if there is no folder `train` in the root.

    Raises:
        UnknownLayout: SR-D109, there are split folders but no train, or one split has two folders.
    """
    folders = [entry for entry in visible_entries(root) if entry.is_dir()]
    splits = [entry for entry in folders if entry.name.lower() in SPLITS]
    names = [SPLITS[entry.name.lower()] for entry in splits]
    if "train" not in names:
        if splits and len(splits) == len(folders):
            raise UnknownLayout(path=printable(root), why=f"there is a folder {splits[0].name}, but none called train")
        return {"": root}
    if len(names) != len(set(names)):
        raise UnknownLayout(path=printable(root), why="one split has two folders, such as val and valid")
    return dict(
        sorted(zip(names, (entry.path for entry in splits), strict=True), key=lambda pair: ORDER.index(pair[0]))
    )


def visible_entries(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder except hidden ones, sorted."""
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
