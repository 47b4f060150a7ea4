"""Average precision is faster-coco-eval's, and a resample of the images is what it says of images written out again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO, COCOeval_faster
from kit.answers import CLASSES, SIDE, count, drawn
from kit.targets import known

from stillroom.errors import StillroomError
from stillroom.metrics import _matches, average_precision
from stillroom.metrics._bootstrap import percentile_interval, resample_counts
from stillroom.metrics.average_precision import AveragePrecision, weighted_average_precision
from stillroom.types import Batch, Output


def scene(n: int, seed: int, *, ties: bool = False):
    """Images with crowds among the boxes, equal scores where `ties`, and one image where nobody looked."""
    output, batch, _ = drawn("boxes", n, seed)
    draw = torch.Generator().manual_seed(seed)
    batch.target["crowd"][:] = (torch.rand(batch.target["labels"].shape, generator=draw) < 0.2) & (
        batch.target["labels"] >= 0
    )
    batch.target["known"][n // 2] = False
    batch.target["size"][0] = 2000  # large objects too
    if ties:
        output.pred[..., 4] = (output.pred[..., 4] * 4).round() / 4
    return output, batch


def expected(output, batch, *, images=None):
    """By faster-coco-eval, its files written from the tensors one box at a time; `images` may name some several times.

    Written like a COCO file: sparse ids, and results loaded by its own `loadRes`.
    """
    files, found, order = {"images": [], "annotations": []}, [], torch.argsort(batch.keys).tolist()
    files["categories"] = [{"id": 10 * k + 3, "name": name} for k, name in enumerate(CLASSES)]
    chosen = order if images is None else [i for i in order for _ in range(images[order.index(i)])]
    target = batch.target
    for number, i in enumerate((i for i in chosen if target["known"][i]), start=100):
        h, w = target["size"][i].tolist()
        files["images"].append({"id": number, "height": h, "width": w, "file_name": f"{number}.png"})
        for box, label, crowd in zip(target["boxes"][i], target["labels"][i], target["crowd"][i], strict=True):
            if label >= 0:
                left, top, right, bottom = (
                    round(float(x) * side, 3) for x, side in zip(box, (w, h, w, h), strict=True)
                )
                size = [left, top, right - left, bottom - top]
                one = {"id": len(files["annotations"]) + 1, "image_id": number, "category_id": 10 * int(label) + 3}
                files["annotations"].append(one | {"bbox": size, "area": size[2] * size[3], "iscrowd": int(crowd)})
        for left, top, right, bottom, score, label in output.pred[i].double().tolist():
            if label >= 0:
                width, height = max(right - left, 0), max(bottom - top, 0)
                size = [left * w / SIDE, top * h / SIDE, width * w / SIDE, height * h / SIDE]
                found.append({"image_id": number, "category_id": 10 * int(label) + 3, "bbox": size, "score": score})
    truth = COCO(files)
    judged = COCOeval_faster(truth, truth.loadRes(found), "bbox", print_function=lambda *_: None)
    judged.run()
    return judged


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_every_figure_is_faster_coco_evals(seed, ties):
    output, batch = scene(12, seed, ties=ties)
    metric = AveragePrecision(classes=CLASSES)
    metric.update(output, batch)
    figures, judged = metric.compute(), expected(output, batch)
    names = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
    for name, value in zip(names, judged.stats, strict=False):
        assert (name in figures) == (value >= 0)
        if name in figures:
            assert figures[name].value == pytest.approx(value, abs=1e-12)
    precision = judged.eval["precision"][:, :, :, 0, -1]
    each = {name: precision[:, :, k].mean() for k, name in enumerate(CLASSES) if precision[0, 0, k] >= 0}
    assert figures["ap"].value == pytest.approx(each, abs=1e-12)
    assert metric.value() == figures["map"].value > 0.05
    assert figures["map"].n == 11


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_the_resample_that_takes_each_image_once_is_the_figure(seed, ties):
    output, batch = scene(10, seed, ties=ties)
    metric = AveragePrecision(classes=CLASSES)
    metric.update(output, batch)
    seen, figures = metric._boxes(), metric.compute()
    drawn_ = weighted_average_precision(seen.found, seen.truth, np.ones((1, 9), dtype=np.int64), len(CLASSES))[0]
    assert np.nanmean(drawn_) == pytest.approx(figures["map"].value, abs=1e-12)
    assert np.nanmean(drawn_[:, 0]) == pytest.approx(figures["map50"].value, abs=1e-12)
    each = {name: drawn_[k].mean() for k, name in enumerate(CLASSES) if not np.isnan(drawn_[k, 0])}
    assert each == pytest.approx(figures["ap"].value, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_resample_is_what_faster_coco_eval_says_of_images_written_out(seed):
    output, batch = scene(8, seed)
    metric = AveragePrecision(classes=CLASSES)
    metric.update(output, batch)
    seen, looked = metric._boxes(), batch.target["known"][torch.argsort(batch.keys)].tolist()
    times = np.random.default_rng(seed).integers(0, 4, 8)
    judged = expected(output, batch, images=times.tolist())
    mine = weighted_average_precision(seen.found, seen.truth, times[looked][None], len(CLASSES))
    assert np.nanmean(mine) == pytest.approx(judged.stats[0], abs=1e-12)


def test_more_than_a_hundred_boxes_of_a_class():
    output = Output(pred=torch.zeros(1, 130, 6))
    output.pred[0, :, :4] = torch.tensor([9.0, 9.0, 12.0, 12.0])
    output.pred[0, :, 4] = torch.linspace(1, 0.1, 130)
    output.pred[0, 105, :4] = torch.tensor([0.0, 0.0, 8.0, 8.0])  # the only right one comes too late
    batch = Batch(images=torch.zeros(1, 1, SIDE, SIDE), target=known([(0, 0, 0.5, 0.5, 0)]), keys=torch.tensor([5]))
    metric = AveragePrecision(classes=CLASSES)
    metric.update(output, batch)
    seen = metric._boxes()
    assert metric.value() == expected(output, batch).stats[0] == 0
    assert (
        np.nanmax(weighted_average_precision(seen.found, seen.truth, np.ones((1, 1), dtype=np.int64), len(CLASSES)))
        == 0
    )


def one(boxes, target, sides=(SIDE, SIDE)):
    """A metric that has seen one image; `boxes` are rows of 6."""
    batch = Batch(images=torch.zeros(1, 1, *sides), target=target, keys=torch.tensor([1]))
    metric = AveragePrecision(classes=CLASSES)
    metric.update(Output(pred=torch.tensor(boxes).view(1, -1, 6)), batch)
    return metric


def test_by_hand():
    """Two cats; one is found, after a box that is none: precision 1/2 up to recall 1/2, so 51 of 101 recalls at 1/2."""
    target = known([(0, 0, 0.5, 0.5, 2), (0.5, 0.5, 1, 1, 2)])
    metric = one([[0.0, 9, 4, 13, 0.9, 2], [0.0, 0, 8, 8, 0.5, 2], [8.0, 8, 16, 16, 0.4, 1]], target)
    figures = metric.compute()
    assert figures["map"].value == pytest.approx(51 / 101 / 2) == figures["ap"].value["cat"]
    assert figures["ap"].extra["n_by_class"] == {"cat": 2} and figures["map"].ci95 is None
    assert figures["map"].extra == {"boxes": 2}


def test_sizes_are_those_of_the_stored_image():
    """A half of 64 x 64 is at the bound of small and medium, and belongs to both; it was shown at 16 x 16."""
    target = known([(0, 0, 0.5, 0.5, 0)])
    figures = one([[0.0, 0, 8, 8, 0.9, 0]], target).compute()
    assert {"map_small", "map_medium"} <= set(figures) and "map_large" not in figures
    larger = target | {"size": torch.tensor([[500, 400]])}
    assert "map_large" in one([[0.0, 0, 8, 8, 0.9, 0]], larger).compute()
    tall = torch.tensor([[0.0, 0, 8, 16, 0.9, 0]])  # of an image shown 32 high and 16 wide
    assert one(tall.tolist(), target, sides=(32, 16)).value() == 1


def test_what_says_nothing():
    nothing = [[0.0, 0, 0, 0, 0, -1]]
    empty, crowded = known([]), known([(0, 0, 1, 1, 0)], crowd=[(0, 0)])
    unknown = known([(0, 0, 1, 1, 0)], unknown=[0])
    for target in (empty, crowded, unknown):
        for said in (nothing, [[0.0, 0, 8, 8, 0.9, 0]]):
            assert one(said, target).compute() == {} and one(said, target).value() == 0
    assert one(nothing, known([(0, 0, 0.5, 0.5, 0)])).compute()["map"].value == 0
    assert one([[0.0, 0, 8, 8, float("nan"), 0]], known([(0, 0, 0.5, 0.5, 0)])).value() == 0


def test_the_interval_is_of_resampled_images_and_always_the_same():
    output, batch = scene(30, 3)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    metrics = [
        count(AveragePrecision(classes=CLASSES), (output, batch, output), at) for at in (torch.arange(30), order)
    ]
    one_, other = (metric.compute() for metric in metrics)
    assert one_ == other
    assert one_["map"].ci95[0] < one_["map"].value < one_["map"].ci95[1]
    seen = metrics[0]._boxes()
    rng = np.random.default_rng(9)
    weights = np.stack([np.bincount(rng.integers(0, 29, 29), minlength=29) for _ in range(2000)])
    ends = np.percentile(
        np.nanmean(weighted_average_precision(seen.found, seen.truth, weights, len(CLASSES)), (1, 2)), (2.5, 97.5)
    )
    assert one_["map"].ci95 == pytest.approx(ends, abs=0.01)


def test_value_skips_the_resamples(monkeypatch):
    metric = AveragePrecision(classes=CLASSES)
    metric.update(*scene(6, 0))
    value = metric.compute()["map"].value
    monkeypatch.setattr(average_precision, "resample_counts", lambda *_: pytest.fail("resampled"))
    assert metric.value() == value


def test_resamples_are_drawn_evenly_and_by_content():
    weights = resample_counts(7, b"content", resamples=4000)
    assert (weights.sum(1) == 7).all() and weights.min() >= 0
    assert weights.mean(0) == pytest.approx(np.ones(7), abs=0.07)
    assert weights.var(0) == pytest.approx(np.full(7, 6 / 7), abs=0.12)
    assert (resample_counts(7, b"content", resamples=4000) == weights).all()
    assert (resample_counts(7, b"another", resamples=4000) != weights).any()


def test_interval_by_hand():
    assert percentile_interval(np.arange(101.0), 50.0) == (2.5, 97.5)
    assert percentile_interval(np.arange(101.0), 99.0) == (2.5, 99.0)
    assert percentile_interval(np.array([np.nan, np.nan, 1.0]), 1.0) is None


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(average_precision, "find_spec", lambda name: None)
    with pytest.raises(StillroomError, match="SR-X710") as caught:
        AveragePrecision(classes=CLASSES)
    assert "stillroom[detect]" in caught.value.fix


def test_working_in_small_pieces_changes_nothing(monkeypatch):
    output, batch = scene(10, 2)
    metric = AveragePrecision(classes=CLASSES)
    metric.update(output, batch)
    before = metric.compute()
    monkeypatch.setattr(_matches, "MAX_ELEMENTS", 50)
    assert metric.compute() == before
