"""Each thing that can be wrong, put into a folder of real digits, is found; and nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from stillroom.data.dataset import load_dataset
from stillroom.data.inspect import inspect, raise_first_error, summary
from stillroom.data.sources._errors import DataPermissionDenied
from stillroom.data.sources.digits import Digits
from stillroom.data.sources.folder import Folder
from stillroom.errors import StillroomError

DATA = load_digits()
PIXELS = (DATA.images * 15).astype(np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for item in range(90):
        path = tmp_path / ("train", "val", "test")[item % 3] / f"class{DATA.target[item] % 3}" / f"{item:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[item]).save(path)
    return tmp_path


def look(root: Path, **options):
    source = Folder(path=str(root))
    return inspect(source, load_dataset(source, max_bad=1.0), **options)


def codes(findings) -> list[str]:
    return [finding.code for finding in findings]


def test_a_sound_folder_and_the_digits_give_no_finding(root):
    assert look(root, deep=True) == []
    assert inspect(Digits(), load_dataset(Digits())) == []


def test_empty_and_text_files_are_found_before_training_in_test_too(root):
    (root / "train" / "class1" / "x.jpg").touch()
    (root / "test" / "class2" / "y.jpg").write_text("hello")
    found = look(root)
    assert codes(found) == ["SR-D103", "SR-D103"]
    assert "not an image (0 bytes)" in str(found[1].failure) + str(found[0].failure)
    raise_first_error(found)


def test_permission_denied_is_found(root, monkeypatch):
    from stillroom.data.sources import _paths

    allowed = _paths.read_file

    def read(path: str, *, name: str) -> bytes:
        if path.endswith("0003.png"):
            raise DataPermissionDenied(path=name)
        return allowed(path, name=name)

    monkeypatch.setattr("stillroom.data.sources.folder.read_file", read)
    assert codes(look(root)) == ["SR-D104"]


def test_truncation_is_found_by_looking_deeper(root):
    path = root / "val" / "class0" / "0010.png"
    path = path if path.exists() else next((root / "val" / "class0").iterdir())
    path.write_bytes(path.read_bytes()[:-40])
    assert look(root) == []
    assert codes(look(root, deep=True)) == ["SR-D102"]
    source = Folder(path=str(root))
    data = load_dataset(source, max_bad=1.0)
    data.splits["val"].images(np.arange(3))
    assert codes(inspect(source, data)) == ["SR-D102"], "met while decoding, so known"


def test_an_empty_class(root):
    (root / "train" / "class9").mkdir()
    shutil.rmtree(root / "val" / "class1")
    found = look(root)
    assert codes(found) == ["SR-D110", "SR-D110"]
    assert "class 'class1' has no image in val" in str(found[0].failure)
    assert "class 'class9' has no image in train and val and test" in str(found[1].failure)
    raise_first_error(found)


def test_a_single_class_is_told(root):
    for split in ("train", "val", "test"):
        shutil.rmtree(root / split / "class1")
        shutil.rmtree(root / split / "class2")
    found = look(root)
    assert codes(found) == ["SR-D111"]
    assert "only 'class0' has images" in str(found[0].failure)
    raise_first_error(found)  # somebody who is still collecting images may go on


def test_copies_across_splits_are_found_by_content(root):
    first = sorted((root / "train" / "class0").iterdir())[0]
    shutil.copy(first, root / "test" / "class0" / "renamed.png")
    shutil.copy(first, root / "train" / "class0" / "again.png")  # a copy within a split leaks nothing
    found = look(root)
    assert codes(found) == ["SR-D112"]
    text = str(found[0].failure)
    assert "1 images are in more than one split" in text and "renamed.png" in text
    raise_first_error(found)


@pytest.mark.parametrize("label", [-2, 10])
def test_a_label_out_of_range_is_refused(label):
    source = Digits()
    source.labels[17] = label
    found = inspect(source, load_dataset(source))
    assert codes(found) == ["SR-D113"]
    with pytest.raises(StillroomError, match=rf"label out of range: {label}   digit 17"):
        raise_first_error(found)


def test_errors_come_first_and_the_summary_is_plain_data(root):
    import json

    (root / "train" / "class9").mkdir()
    source = Folder(path=str(root))
    source.labels[5] = 77
    data = load_dataset(source)
    told = summary(data, inspect(source, data))
    assert [one["severity"] for one in told["findings"]] == ["error", "warning"]
    assert told["findings"][0]["code"] == "SR-D113" and told["images"]["train"] == 30
    json.dumps(told)
