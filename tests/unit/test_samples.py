"""Which images are kept to look at, and what is written of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.stand_ins import Boxes, Logits, Masks, Vectors
from PIL import Image
from torch import Tensor

from stillroom.evaluation.gallery import DENSE, EACH, SIDE, SampleGallery, thumbnail
from stillroom.tasks.classification import Classification
from stillroom.types import Batch, Output

NAMES = ("teacher", "baseline", "student", "onnx-32", "onnx-8")


def keep(samples: SampleGallery, task: Any, name: str, batch: Batch, answer: Output) -> None:
    """As `evaluate` hands it over."""
    samples.keep(name, batch, answer, task.score_per_image(answer, batch).float())


def shown(
    folder: Path, task: Any, answers: dict[str, Tensor], target: Tensor, *, side: int = 8, batch: int = 32
) -> list[dict[str, Any]]:
    """What `probe.json` says after one pass over images whose level is their place."""
    samples = SampleGallery(answers, task)
    levels = torch.linspace(0, 1, len(target))[:, None, None, None].expand(-1, 1, side, side)
    for start in range(0, len(target), batch):
        rows = slice(start, start + batch)
        part = Batch(images=levels[rows], target=target[rows], keys=torch.arange(len(target))[rows] + 1000)
        for name, pred in answers.items():
            keep(samples, task, name, part, Output(pred=pred[rows]))
    samples.write(folder, ("a", "b", "c"), lambda key: f"image {key}")
    found: list[dict[str, Any]] = json.loads((folder / "probe.json").read_text())["images"]
    return found


def logits(count: int, wrong: float, seed: int, target: Tensor) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    found = torch.randn((count, 3), generator=rng)
    found[torch.arange(count), target] += 3 * (torch.rand(count, generator=rng) > wrong)
    return found


def firsts(right: dict[str, Tensor], named: dict[str, Tensor]) -> Iterator[Tensor]:
    """The kinds as they are for answers that are right or wrong."""
    teacher, baseline, student = (right[name] for name in ("teacher", "baseline", "student"))
    yield from (teacher & ~student, student & ~teacher, ~student & ~teacher, student & ~baseline, baseline & ~student)
    yield from (named[name] != named["student"] for name in ("onnx-32", "onnx-8"))
    yield torch.ones_like(student)


@pytest.mark.parametrize("batch", [32, 7, 300])
def test_of_right_and_wrong_the_first_of_each_kind_are_kept(tmp_path: Path, batch: int) -> None:
    target = torch.arange(300) % 3
    wrong = {"teacher": 0.1, "baseline": 0.5, "student": 0.3, "onnx-32": 0.3, "onnx-8": 0.35}
    answers = {name: logits(300, share, seed, target) for seed, (name, share) in enumerate(wrong.items())}
    named = {name: pred.argmax(1) for name, pred in answers.items()}
    right = {name: found == target for name, found in named.items()}
    kept = {row for kind in firsts(right, named) for row in kind.nonzero().flatten().tolist()[:EACH]}
    found = shown(tmp_path, Classification(), answers, target, batch=batch)
    assert [image["key"] - 1000 for image in found] == sorted(kept)
    for image in found:
        row = image["key"] - 1000
        assert image["name"] == f"image {image['key']}" and image["truth"] == {"class": int(target[row])}
        assert image["scores"] == {name: float(hits[row]) for name, hits in right.items()}
        assert image["apart"] == {name: float(named[name][row] != named["student"][row]) for name in NAMES[3:]}
        for name, pred in answers.items():
            assert image["answers"][name]["logits"] == pytest.approx(pred[row].tolist())
        with Image.open(tmp_path / image["file"]) as picture:
            assert picture.size == (SIDE, SIDE) and picture.getpixel((0, 0)) == round(255 * row / 299)


class Given(Vectors):
    """Whose answers are their own scores."""

    def score_per_image(self, answer: Output, batch: Batch) -> Tensor:
        return answer.pred[:, 0]


@pytest.mark.parametrize("batch", [1, 16, 200])
def test_the_largest_gaps_of_the_whole_pass_are_kept(tmp_path: Path, batch: int) -> None:
    rng = torch.Generator().manual_seed(0)
    teacher, student = torch.rand((200, 1), generator=rng), torch.rand((200, 1), generator=rng)
    teacher[50:54], student[50:54] = 1.0, 0.0  # four equal gaps, the largest there are
    found = shown(tmp_path, Given(), {"teacher": teacher, "student": student}, torch.zeros(200).long(), batch=batch)
    gaps = {"t": teacher - student, "s": student - teacher, "n": 1 - torch.maximum(teacher, student)}
    largest = {row for gap in gaps.values() for row in gap[:, 0].argsort(descending=True)[:EACH].tolist()}
    assert {image["key"] - 1000 for image in found} == largest | set(range(EACH))


def test_of_equal_gaps_the_earlier_stays_also_when_rounding_says_otherwise(tmp_path: Path) -> None:
    teacher, student = torch.full((60, 1), 0.7), torch.full((60, 1), 0.3)
    teacher[30:] += 1e-7
    found = shown(tmp_path, Given(), {"teacher": teacher, "student": student}, torch.zeros(60).long())
    assert [image["key"] for image in found] == list(range(1000, 1000 + EACH))


def test_without_a_student_the_first_images_are_kept(tmp_path: Path) -> None:
    target = torch.zeros(40).long()
    found = shown(tmp_path, Logits(), {"teacher": torch.randn((40, 3))}, target)
    assert [image["key"] for image in found] == list(range(1000, 1000 + EACH))


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    pred = torch.full((2, 3), float("nan"))
    boxes = torch.tensor([[[0.1, 0.2, float("inf"), 0.4, 0.9, 1.0]]] * 2)
    one = shown(tmp_path / "a", Given(), {"student": pred}, torch.zeros(2).long())
    two = shown(tmp_path / "b", Boxes(8), {"student": boxes}, boxes)
    assert one[0]["answers"]["student"]["vector"] == [None] * 3 and one[0]["scores"]["student"] is None
    assert two[0]["answers"]["student"]["boxes"] == [[0.1, 0.2, None, 0.4, 1.0, 0.9]]


def test_masks_are_grey_pictures_of_class_numbers(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    target = torch.randint(-1, 3, (3, 100, 100), generator=rng)
    said = target.clamp(min=0)
    said[1, :50] = 2
    found = shown(tmp_path, Masks(), {"teacher": target.clamp(min=0), "student": said}, target, side=100)
    assert found[0]["scores"]["student"] == 1.0 and found[1]["scores"]["student"] < 0.8
    for row, image in enumerate(found):
        number = image["file"].removesuffix(".png")
        assert image["answers"]["student"] == {"mask": f"{number}-student.png"}
        with Image.open(tmp_path / image["answers"]["student"]["mask"]) as mask:
            assert mask.mode == "L" and np.array_equal(np.asarray(mask), said[row].numpy())
        with Image.open(tmp_path / image["truth"]["mask"]) as mask:
            assert np.array_equal(np.asarray(mask), np.where(target[row] < 0, 255, target[row]))


def test_boxes_are_written_in_shares_of_an_image_that_is_no_square(tmp_path: Path) -> None:
    class Pixels(Logits):
        def drawable(self, answer: Output, row: int) -> dict[str, Any]:
            return {"boxes": [[10.0, 20.0, 40.0, 30.0, 2, 0.75]]}

        def drawable_target(self, batch: Batch, row: int) -> dict[str, Any]:
            return {"boxes": [[0.25, 0.5, 1.0, 0.75, 2, 1.0]]}

    task = Pixels()
    samples = SampleGallery(["student"], task)
    batch = Batch(images=torch.rand((1, 3, 40, 80)), target=torch.zeros(1).long(), keys=torch.zeros(1).long())
    keep(samples, task, "student", batch, Output(pred=torch.rand((1, 3))))
    samples.write(tmp_path, ("a", "b", "c"), str)
    (image,) = json.loads((tmp_path / "probe.json").read_text())["images"]
    assert image["answers"]["student"] == {"boxes": [[0.125, 0.5, 0.5, 0.75, 2, 0.75]]}
    assert image["truth"] == {"boxes": [[0.25, 0.5, 1.0, 0.75, 2, 1.0]]}
    with Image.open(tmp_path / image["file"]) as picture:
        assert picture.size == (96, 48)


def test_large_masks_and_their_images_shrink_alike(tmp_path: Path) -> None:
    target = torch.zeros((1, 600, 600)).long()
    target[:, :300] = 2
    (image,) = shown(tmp_path, Masks(), {"student": target}, target, side=600)
    with Image.open(tmp_path / image["file"]) as picture, Image.open(tmp_path / image["truth"]["mask"]) as mask:
        assert picture.size == mask.size == (DENSE, DENSE)
        assert set(np.unique(np.asarray(mask)[: DENSE // 2])) == {2} and set(np.unique(mask)) == {0, 2}


@pytest.mark.parametrize(
    ("size", "dense", "made"),
    [
        ((8, 8), False, (SIDE, SIDE)),
        ((600, 300), False, (SIDE, SIDE)),
        ((200, 200), True, (200, 200)),
        ((600, 300), True, (DENSE // 2, DENSE)),
        ((16, 16), True, (SIDE, SIDE)),
    ],
)
def test_thumbnails_are_never_larger_than_need_be(size: tuple[int, int], dense: bool, made: tuple[int, int]) -> None:
    assert thumbnail(torch.rand((3, *size)), dense=dense).size == made


def test_an_image_that_comes_twice_is_kept_once(tmp_path: Path) -> None:
    task = Given()
    samples = SampleGallery(["student"], task)
    batch = Batch(images=torch.rand((3, 1, 8, 8)), target=torch.zeros(3).long(), keys=torch.tensor([5, 6, 5]))
    for _ in range(2):
        keep(samples, task, "student", batch, Output(pred=torch.rand((3, 2))))
    samples.write(tmp_path, ("a",), str)
    assert [image["key"] for image in json.loads((tmp_path / "probe.json").read_text())["images"]] == [5, 6]
