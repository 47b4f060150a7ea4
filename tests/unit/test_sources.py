"""Folder, parquet and idx, on files made here from real digits, and on the larger real sets where they are."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from stillroom.data.decode import decode
from stillroom.data.infer_source import infer_source
from stillroom.data.sources.digits import Digits
from stillroom.data.sources.folder import Folder
from stillroom.data.sources.idx import Idx
from stillroom.data.sources.parquet import Parquet
from stillroom.errors import StillroomError

DATA = load_digits()
PIXELS = (DATA.images * 15).astype(np.uint8)


def png(item: int, mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS[item]).convert(mode).save(file, "PNG")
    return file.getvalue()


def put(path: Path, item: int, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(item, mode))


def code(call) -> str:
    with pytest.raises(StillroomError) as caught:
        call()
    assert caught.value.exit == 3
    return caught.value.code


# folder -------------------------------------------------------------------------------------------------------------


def test_class_folders(tmp_path):
    for item in range(40):
        put(tmp_path / f"class {DATA.target[item]}" / "deep" / f"{item:03}.PNG", item)
    (tmp_path / "class 0" / "notes.txt").write_text("x")
    (tmp_path / "class 0" / ".hidden.png").write_bytes(png(0))
    (tmp_path / ".git").mkdir()
    (tmp_path / "README").write_text("x")
    source = Folder(path=str(tmp_path))
    assert source.classes == tuple(f"class {k}" for k in range(10))
    assert source.channels == 1
    assert source.splits == {}
    assert len(source.labels) == 40
    assert source.ignored == 2, "the text and README; hidden files aren't even counted"
    for item, label in enumerate(source.labels):
        number = int(Path(source.name(item)).stem)
        assert DATA.target[number] == label
        assert np.array_equal(decode(source.read(item), channels=1)[:, :, 0], PIXELS[number])


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path, val):
    for item in range(60):
        split = ("train", val, "test")[item % 3]
        put(tmp_path / split / str(DATA.target[item]) / f"{item}.png", item, "RGB")
    put(tmp_path / "thrown away" / "x" / "1.png", 1)
    source = Folder(path=str(tmp_path))
    assert source.channels == 3
    assert list(source.splits) == ["train", "val", "test"]
    for place, (name, items) in enumerate(source.splits.items()):
        assert len(items) == 20, name
        assert {int(Path(source.name(i)).stem) % 3 for i in items} == {place}


def test_a_split_may_lack_a_class_but_not_bring_one(tmp_path):
    put(tmp_path / "train" / "cat" / "1.png", 1)
    put(tmp_path / "train" / "dog" / "2.png", 2)
    put(tmp_path / "test" / "cat" / "3.png", 3)
    (tmp_path / "test" / "empty").mkdir()
    assert Folder(path=str(tmp_path)).labels.tolist() == [0, 1, 0]
    put(tmp_path / "test" / "Dog" / "4.png", 4)
    with pytest.raises(StillroomError, match="class 'Dog' is in test but not in train") as caught:
        Folder(path=str(tmp_path))
    assert caught.value.code == "SR-D114"


def test_layouts_that_mean_nothing(tmp_path):
    assert code(lambda: Folder(path=str(tmp_path / "no"))) == "SR-D101"
    assert code(lambda: Folder(path=str(tmp_path))) == "SR-D109"
    put(tmp_path / "a.png", 0)
    assert code(lambda: Folder(path=str(tmp_path))) == "SR-D109", "images, but no class folders"
    assert code(lambda: Folder(path=str(tmp_path / "a.png"))) == "SR-D109"
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "x.doc").write_text("x")
    assert code(lambda: Folder(path=str(tmp_path))) == "SR-D108"
    put(tmp_path / "split" / "test" / "cat" / "1.png", 1)
    assert code(lambda: Folder(path=str(tmp_path / "split"))) == "SR-D109", "test, but no train"


def test_the_nearest_name_is_suggested(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(StillroomError, match="did you mean 'photos'"):
        Folder(path=str(tmp_path / "photo"))


def test_links_may_not_leave_the_folder(tmp_path):
    put(tmp_path / "outside" / "secret.png", 5)
    root = tmp_path / "data"
    put(root / "cat" / "1.png", 1)
    put(root / "dog" / "2.png", 2)
    (root / "dog" / "inner.png").symlink_to(root / "cat" / "1.png")
    assert len(Folder(path=str(root)).labels) == 3, "links within the folder are fine"
    for link, target in (
        ("dog/3.png", "../../outside/secret.png"),
        ("dog/more", "../../outside"),
        ("bird", "../outside"),
    ):
        (root / link).symlink_to(target)
        with pytest.raises(StillroomError, match="path leaves data root") as caught:
            Folder(path=str(root))
        assert caught.value.code == "SR-S201" and caught.value.exit == 3
        assert link.split("/")[-1] in caught.value.what and "outside" in caught.value.why
        assert len(Folder(path=str(root), allow_outside=True).labels) == 4
        (root / link).unlink()


def test_a_ring_of_links_ends(tmp_path):
    put(tmp_path / "cat" / "1.png", 1)
    put(tmp_path / "dog" / "2.png", 2)
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    assert len(Folder(path=str(tmp_path)).labels) == 2


def test_odd_names_survive(tmp_path):
    strange = os.path.join(os.fsencode(tmp_path), b"c\xe4t")
    os.mkdir(strange)
    for name in (b"caf\xe9.png", b"x" * 251 + b".png", b"new\nline.png", b"{brace}.png"):
        with open(os.path.join(strange, name), "wb") as file:
            file.write(png(7))
    put(tmp_path / "dög" / "ü.png", 8)
    source = Folder(path=str(tmp_path))
    assert source.classes == ("c\\xe4t", "dög")
    for item in range(5):
        json.dumps(source.name(item)).encode("utf-8")
        assert decode(source.read(item), channels=1).shape == (8, 8, 1)
    assert any("caf\\xe9.png" in source.name(item) for item in range(5))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path):
    put(tmp_path / "cat" / "1.png", 1)
    put(tmp_path / "dog" / "2.png", 2)
    (tmp_path / "dog" / "2.png").chmod(0)
    source = Folder(path=str(tmp_path))
    assert code(lambda: source.read(1)) == "SR-D104"


def test_permission_denied_and_vanished_files_have_codes(tmp_path, monkeypatch):
    put(tmp_path / "cat" / "1.png", 1)
    put(tmp_path / "dog" / "2.png", 2)
    source = Folder(path=str(tmp_path))
    (tmp_path / "dog" / "2.png").unlink()
    assert code(lambda: source.read(1)) == "SR-D102"

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    assert code(lambda: source.read(0)) == "SR-D104"


# parquet ------------------------------------------------------------------------------------------------------------


def table(items, *, image="image", label="label", names=None, texts=None, **columns) -> pa.Table:
    images = pa.array([{"bytes": png(i, "RGB"), "path": f"{i}.png"} for i in items])
    labels = pa.array([texts[DATA.target[i]] for i in items] if texts else [int(DATA.target[i]) for i in items])
    made = pa.table({image: columns.get("images", images), label: columns.get("labels", labels)})
    if names:
        features = {"info": {"features": {"image": {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}}}
        made = made.replace_schema_metadata({"huggingface": json.dumps(features)})
    return made


def test_parquet_folder_with_named_classes(tmp_path):
    names = [f"digit {k}" for k in range(10)]
    pq.write_table(table(range(50), names=names), tmp_path / "train-00000-of-00002.parquet", row_group_size=20)
    pq.write_table(table(range(50, 70), names=names), tmp_path / "train-00001-of-00002.parquet")
    (tmp_path / "test").mkdir()
    pq.write_table(table(range(70, 90), names=names), tmp_path / "test" / "0000.parquet")
    pq.write_table(table(range(90, 100), names=names), tmp_path / "validation-00000.parquet")
    source = Parquet(path=str(tmp_path))
    assert source.classes == tuple(names)
    assert {split: len(items) for split, items in source.splits.items()} == {"train": 70, "test": 20, "val": 10}
    order = np.concatenate([source.splits[split] for split in ("train", "test", "val")])
    assert source.labels[order].tolist() == DATA.target[:100].tolist()
    for place, item in enumerate(order):
        assert np.array_equal(decode(source.read(int(item)), channels=1)[:, :, 0], PIXELS[place])
    assert source.name(int(source.splits["train"][63])).endswith("train-00001-of-00002.parquet row 13")


def test_parquet_reads_a_row_group_when_asked_and_not_before(tmp_path):
    pq.write_table(table(range(60)), tmp_path / "train.parquet", row_group_size=20)
    pq.write_table(table(range(60, 80)), tmp_path / "test.parquet")
    source = Parquet(path=str(tmp_path), channels=3)
    assert source._row_groups == {}
    source.read(int(source.splits["train"][25]))
    assert len(source._row_groups) == 1


def test_parquet_labels_as_text_as_bare_numbers_and_missing(tmp_path):
    file = tmp_path / "data.parquet"
    texts = list("jihgfedcba")
    pq.write_table(table(range(100), texts=texts), file)
    source = Parquet(path=str(file))
    assert source.classes == tuple("abcdefghij") and source.splits == {}
    assert source.labels.tolist() == (9 - DATA.target[:100]).tolist()
    pq.write_table(table(range(3), labels=pa.array([30, 7, 30])), file)
    source = Parquet(path=str(file))
    assert source.classes == ("7", "30") and source.labels.tolist() == [1, 0, 1]
    pq.write_table(table(range(3), labels=pa.array([1, None, -1])), file)
    assert Parquet(path=str(file)).labels.tolist() == [0, -1, -1]


def test_parquet_with_plain_bytes_and_other_column_names(tmp_path):
    file = tmp_path / "data.parquet"
    pq.write_table(table(range(20), image="img", label="fine", images=pa.array([png(i) for i in range(20)])), file)
    with pytest.raises(StillroomError, match=r"no column 'image' \(data.image\); did you mean 'img'") as caught:
        Parquet(path=str(file))
    assert caught.value.code == "SR-D117"
    source = Parquet(path=str(file), image="img", label="fine")
    assert source.channels == 1
    assert source.read(3) == png(3)


def test_parquet_that_is_none(tmp_path):
    assert code(lambda: Parquet(path=str(tmp_path))) == "SR-D109"
    (tmp_path / "a.parquet").write_text("PAR1 not really")
    assert code(lambda: Parquet(path=str(tmp_path))) == "SR-D117"
    pq.write_table(table([]), tmp_path / "a.parquet")
    assert code(lambda: Parquet(path=str(tmp_path))) == "SR-D108"
    pq.write_table(table(range(2), labels=pa.array([0.5, 1.5])), tmp_path / "a.parquet")
    assert code(lambda: Parquet(path=str(tmp_path))) == "SR-D117"


def test_parquet_rows_with_a_path_stay_in_the_folder(tmp_path):
    root = tmp_path / "data"
    put(root / "images" / "0.png", 0)
    put(tmp_path / "secret.png", 1)
    rows = [{"bytes": None, "path": "images/0.png"}, {"bytes": png(2), "path": "../ignored.png"}]
    pq.write_table(table(range(2), images=pa.array(rows)), root / "a.parquet")
    assert Parquet(path=str(root)).read(0) == png(0)
    for path in ("../secret.png", str(tmp_path / "secret.png")):
        rows[1] = {"bytes": None, "path": path}
        pq.write_table(table(range(2), images=pa.array(rows)), root / "a.parquet")
        with pytest.raises(StillroomError, match=r"path leaves data root.*row 1 ") as caught:
            Parquet(path=str(root))
        assert caught.value.code == "SR-S201" and caught.value.exit == 3
        assert Parquet(path=str(root), allow_outside=True).read(1) == png(1)


# idx ----------------------------------------------------------------------------------------------------------------


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_idx(folder: Path, split: str, items: slice, *, packed: bool, dot: bool = False) -> None:
    folder.mkdir(exist_ok=True)
    for what, values in (("images", PIXELS[items]), ("labels", DATA.target[items].astype(np.uint8))):
        name = f"{split}-{what}{'.' if dot else '-'}idx{values.ndim}-ubyte{'.gz' if packed else ''}"
        blob = idx(values)
        (folder / name).write_bytes(gzip.compress(blob, 1) if packed else blob)


@pytest.mark.parametrize(("packed", "dot"), [(True, False), (False, False), (False, True)])
def test_idx(tmp_path, packed, dot):
    write_idx(tmp_path / "a", "train", slice(0, 100), packed=packed, dot=dot)
    write_idx(tmp_path / "a", "t10k", slice(100, 130), packed=packed, dot=dot)
    source = Idx(path=str(tmp_path / "a"))
    assert source.channels == 1 and source.classes == tuple("0123456789")
    assert source.splits["train"].tolist() == list(range(100)) and source.splits["test"].tolist() == list(
        range(100, 130)
    )
    assert source.labels.tolist() == DATA.target[:130].tolist()
    assert all(np.array_equal(source.read(item), PIXELS[item]) for item in range(130))
    assert "t10k-images" in source.name(105) and source.name(105).endswith("[5]")
    assert Idx(path=str(tmp_path / "a"), classes=tuple("abcdefghij")).classes[3] == "d"


def test_fashion_mnist_is_known_by_its_folder(tmp_path):
    write_idx(tmp_path / "Fashion-MNIST", "train", slice(0, 100), packed=True)
    assert Idx(path=str(tmp_path / "Fashion-MNIST")).classes[9] == "ankle boot"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda blob: blob[:50], "100 × 8 × 8 bytes, there are 34"),
        (lambda blob: blob + b"x", "there are more"),
        (lambda blob: blob[:10], "it starts with 00 00 08 03"),
        (lambda blob: b"\x89PNG" + blob[4:], "it starts with 89 50 4e 47"),
        (lambda blob: blob[:4] + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1), "header"),
    ],
)
def test_idx_headers_are_checked(tmp_path, spoil, why):
    write_idx(tmp_path, "train", slice(0, 100), packed=False)
    file = tmp_path / "train-images-idx3-ubyte"
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(StillroomError, match=why) as caught:
        Idx(path=str(tmp_path))
    assert caught.value.code == "SR-D116"


def test_idx_files_that_do_not_belong_together(tmp_path):
    assert code(lambda: Idx(path=str(tmp_path))) == "SR-D109"
    write_idx(tmp_path, "train", slice(0, 100), packed=True)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(99, np.uint8)))
    assert code(lambda: Idx(path=str(tmp_path))) == "SR-D116"
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8b broken")
    assert code(lambda: Idx(path=str(tmp_path))) == "SR-D116"
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    assert code(lambda: Idx(path=str(tmp_path))) == "SR-D109"


# digits, guess and the larger sets ----------------------------------------------------------------------------------


def test_digits_are_scikit_learn_s():
    source = Digits()
    assert len(source.labels) == 1797 and source.labels.tolist() == DATA.target.tolist()
    levels = {round(level * 255 / 16 + 1e-9) for level in range(17)}
    assert {int(v) for item in range(100) for v in source.read(item).ravel()} == levels
    assert np.abs(source.read(5) / 255 - DATA.images[5] / 16).max() < 1 / 500


def test_guess(tmp_path):
    assert infer_source("digits") == "digits"
    put(tmp_path / "photos" / "train" / "cat" / "1.png", 1)
    assert infer_source(str(tmp_path / "photos")) == "folder"
    write_idx(tmp_path / "mnist", "train", slice(0, 10), packed=True)
    assert infer_source(str(tmp_path / "mnist")) == "idx"
    (tmp_path / "hub" / "data").mkdir(parents=True)
    pq.write_table(table(range(3)), tmp_path / "hub" / "data" / "train.parquet")
    assert (
        infer_source(str(tmp_path / "hub"))
        == infer_source(str(tmp_path / "hub" / "data" / "train.parquet"))
        == "parquet"
    )
    assert code(lambda: infer_source(str(tmp_path / "nowhere"))) == "SR-D101"
    (tmp_path / "empty").mkdir()
    assert code(lambda: infer_source(str(tmp_path / "empty"))) == "SR-D109"
    put(tmp_path / "hub" / "cat" / "1.png", 1)
    with pytest.raises(StillroomError, match="it could be folder or parquet"):
        infer_source(str(tmp_path / "hub"))


def test_the_larger_sets(shared):
    fashion = Idx(path=str(shared / "fashion_mnist"))
    assert {k: len(v) for k, v in fashion.splits.items()} == {"train": 60_000, "test": 10_000}
    assert fashion.classes[0] == "t-shirt" and np.bincount(fashion.labels).tolist() == [7000] * 10
    cifar = Parquet(path=str(shared / "cifar10"))
    assert {k: len(v) for k, v in cifar.splits.items()} == {"train": 25_000, "test": 10_000}
    assert cifar.classes[0] == "airplane" and cifar.channels == 3
    assert decode(cifar.read(0), channels=3).shape == (32, 32, 3)
    flowers = Folder(path=str(shared / "flowers224"))
    assert {k: len(v) for k, v in flowers.splits.items()} == {"train": 350, "val": 120}
    assert len(flowers.classes) == 5 and flowers.channels == 3
