"""VOC's xml: what its numbers mean, and everything that can be wrong with it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kit.annotations import code, picture, why
from kit.scenes import voc_scenes
from PIL import Image

from stillroom.data.sources.voc import Voc


def xml(root: Path, name: str, *objects: str, size="<size><width>64</width><height>48</height></size>") -> None:
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{''.join(objects)}</annotation>")


def thing(name="cat", box=(5, 6, 20, 30), difficult="") -> str:
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    hard = f"<difficult>{difficult}</difficult>" if difficult else ""
    return f"<object><name>{name}</name>{hard}<bndbox>{sides}</bndbox></object>"


def one(tmp_path: Path, *objects: str, **arguments) -> Voc:
    picture(tmp_path / "JPEGImages" / "a.jpg", size=(64, 48))
    xml(tmp_path, "a", *objects)
    return Voc(path=str(tmp_path), **arguments)


def test_what_the_numbers_of_a_box_mean(tmp_path):
    """VOC counts pixels from 1 and names the first and the last; many tools name the edges."""
    assert one(tmp_path, thing()).boxes(0).boxes.tolist() == [[4, 5, 20, 30]]
    assert one(tmp_path, thing(), pixels="edges").boxes(0).boxes.tolist() == [[5, 6, 20, 30]]
    assert one(tmp_path, thing(box=(1, 1, 64, 48))).boxes(0).boxes.tolist() == [[0, 0, 64, 48]]
    slip = one(tmp_path, thing(box=(9, 9, 9, 20))).boxes(0).boxes[0]
    assert slip[0] == slip[2] and slip[1] < slip[3], "no object is one pixel wide"
    assert one(tmp_path, thing(box=(1.5, 2.5, 3, 4))).boxes(0).boxes.tolist() == [[0.5, 1.5, 3, 4]]


def test_difficult_objects(tmp_path):
    things = thing(difficult="1"), thing(difficult="0"), thing()
    assert one(tmp_path, *things).boxes(0).crowd.tolist() == [True, False, False]
    assert one(tmp_path, *things, difficult="keep").boxes(0).crowd.tolist() == [False] * 3
    assert len(one(tmp_path, *things, difficult="drop").boxes(0).boxes) == 2


@pytest.mark.parametrize("arguments", [{"difficult": "hide"}, {"pixels": "corners"}])
def test_arguments_that_are_none(tmp_path, arguments):
    with pytest.raises(ValueError, match=f"^{next(iter(arguments))} is "):
        one(tmp_path, thing(), **arguments)


def test_classes_may_be_given(tmp_path):
    things = thing("dog"), thing("cat"), thing("owl")
    assert one(tmp_path, *things).classes == ("cat", "dog", "owl")
    source = one(tmp_path, *things, classes=("owl", "dog"))
    assert source.classes == ("owl", "dog") and source.boxes(0).labels.tolist() == [1, -1, 0]


def test_lists_decide_what_is_read(tmp_path):
    root = voc_scenes(tmp_path, images=8)
    lists = root / "ImageSets" / "Main"
    (lists / "train.txt").write_text("0000 1\n\n0001 -1\n0000\nnowhere\n")
    source = Voc(path=str(root))
    assert [Path(source.name(i)).stem for i in source.splits["train"]] == ["0000", "0001"]
    assert source.skipped == [str(root / "JPEGImages" / "nowhere")]
    for file in lists.iterdir():
        file.unlink()
    assert len(Voc(path=str(root)).labels) == 8 and Voc(path=str(root)).splits == {}
    (root / "Annotations" / "0003.xml").unlink()
    assert [Path(name).stem for name in Voc(path=str(root)).skipped] == ["0003"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no element found"),
        ("<annotation><object>", "no element found"),
        (f"<annotation>{thing()}".replace("<xmin>5</xmin>", "") + "</annotation>", "an object 'cat' has no xmin"),
        (f"<annotation>{thing(box=('x', 1, 2, 3))}</annotation>", "could not convert string to float"),
    ],
)
def test_files_that_are_not_voc_s(tmp_path, text, expected):
    one(tmp_path, thing())
    (tmp_path / "Annotations" / "a.xml").write_text(text)
    assert expected in why(lambda: Voc(path=str(tmp_path)))
    assert code(lambda: Voc(path=str(tmp_path))) == "SR-D121"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused_before_they_unpack(tmp_path, encoding):
    one(tmp_path, thing())
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]><annotation><object><name>&l11;</name></object></annotation>'
    head = f'<?xml version="1.0" encoding="{encoding}"?>'
    (tmp_path / "Annotations" / "a.xml").write_bytes((head + bomb).encode(encoding))
    assert "declares a document type" in why(lambda: Voc(path=str(tmp_path)))


def test_missing_parts(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    assert code(lambda: Voc(path=str(tmp_path))) == "SR-D109"
    (tmp_path / "Annotations").mkdir()
    assert code(lambda: Voc(path=str(tmp_path))) == "SR-D108"
    assert code(lambda: Voc(path=str(tmp_path / "nowhere"))) == "SR-D101"


def test_links_that_lead_outside(tmp_path):
    root = voc_scenes(tmp_path / "data", images=6)
    picture(tmp_path / "secret.png")
    image = root / "JPEGImages" / "0000.png"
    image.unlink()
    image.symlink_to(tmp_path / "secret.png")
    assert code(lambda: Voc(path=str(root))) == "SR-S201"
    assert len(Voc(path=str(root), allow_outside=True).labels) == 6
    image.unlink()
    shutil.copy(tmp_path / "secret.png", image)
    note = root / "Annotations" / "0001.xml"
    note.rename(tmp_path / "0001.xml")
    note.symlink_to(tmp_path / "0001.xml")
    assert code(lambda: Voc(path=str(root))) == "SR-S201"


def test_a_size_that_is_not_declared(tmp_path):
    picture(tmp_path / "JPEGImages" / "a.jpg", size=(64, 48))
    for size in ("", "<size><width>0</width><height>0</height></size>"):
        xml(tmp_path, "a", thing(), size=size)
        assert Voc(path=str(tmp_path)).boxes(0).size == (48, 64)


def test_an_image_on_its_side_has_the_size_that_is_seen(tmp_path):
    picture(tmp_path / "JPEGImages" / "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "JPEGImages" / "a.jpg", exif=exif)
    xml(tmp_path, "a", thing(), size="")
    assert Voc(path=str(tmp_path)).boxes(0).size == (64, 48)
