"""Images whose label nobody knows: where they go, who bears them, and what is measured where there are no others."""

from __future__ import annotations

import copy
import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from kit.batches import batch_of
from kit.images import digit_folders, flat_digits
from kit.teachers import knowing
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from stillroom.config import recipe
from stillroom.config.schema import Augment
from stillroom.data.dataset import load_dataset
from stillroom.data.infer_source import infer_source
from stillroom.data.inspect import inspect
from stillroom.data.loader import Loader
from stillroom.data.sources.digits import Digits
from stillroom.data.sources.folder import Folder
from stillroom.data.sources.images import Images
from stillroom.data.sources.parquet import Parquet
from stillroom.data.subset import labelled_subset
from stillroom.distributed.processes import OneProcess
from stillroom.errors import StillroomError
from stillroom.evaluation.evaluate import evaluate
from stillroom.evaluation.validate import validate
from stillroom.models import create_model
from stillroom.pipeline.prepare import prepare
from stillroom.tasks._unlabelled import without_labels
from stillroom.tasks.classification import Classification
from stillroom.tasks.embedding import Embedding
from stillroom.training.linear_probe import linear_probe
from stillroom.types import Batch, Output

CLASSES = ("ant", "bee", "cat")


def code(call) -> str:
    with pytest.raises(StillroomError) as caught:
        call()
    return caught.value.code


def codes(source) -> list[str]:
    return [finding.code for finding in inspect(source, load_dataset(source))]


@pytest.fixture
def photos(tmp_path):
    return digit_folders(tmp_path / "photos", each=10, classes=3, side=8)


# class folders and further images -----------------------------------------------------------------------------------


def test_further_images_are_for_training_and_move_nobody_else(photos, tmp_path):
    flat_digits(tmp_path / "more" / "deep", count=40, start=900)
    before, source = load_dataset(Folder(path=str(photos))), Folder(path=str(photos), unlabelled=str(tmp_path / "more"))
    data = load_dataset(source)
    assert source.num_unlabelled == 40 and (source.labels[30:] == -1).all() and (source.labels[:30] >= 0).all()
    assert data.splits["val"].listed.tolist() == before.splits["val"].listed.tolist()
    assert data.splits["test"].listed.tolist() == before.splits["test"].listed.tolist()
    assert data.splits["train"].listed.tolist() == [*before.splits["train"].listed.tolist(), *range(30, 70)]
    assert (data.splits["train"].take(np.arange(len(data.splits["train"])))[1] == -1).sum() == 40
    assert data.summary()["unlabelled"] == 40 and before.summary()["unlabelled"] == 0
    assert data.summary()["per_class"] == before.summary()["per_class"]
    assert data.fingerprint != before.fingerprint and data.labelled
    assert codes(source) == []


def test_several_folders_wherever_they_lie(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flat_digits(photos / "unsorted", count=5, start=900)  # among the classes, and none of them
    flat_digits(tmp_path / "here", count=6, start=910)
    flat_digits(tmp_path / "beside", count=7, start=920)
    named = ["unsorted", "here", "../beside"]
    source = Folder(path="photos", unlabelled=named)
    assert source.unlabelled is named and source.num_unlabelled == 18 and source.classes == ("0", "1", "2")
    assert [source.name(item) for item in (30, 35, 47)] == [
        "photos/unsorted/0900.png",
        "here/0910.png",
        "beside/0926.png",
    ]
    assert Folder(path="photos").classes == ("0", "1", "2", "unsorted"), "unless somebody says so, it is a class"


def test_further_folders_that_are_none_are_refused(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    assert code(lambda: Folder(path=str(photos), unlabelled="nowhere")) == "SR-D101"
    assert code(lambda: Folder(path=str(photos), unlabelled=str(tmp_path / "empty"))) == "SR-D108"
    assert code(lambda: Folder(path=str(photos), unlabelled="0/00.png")) == "SR-D109"
    flat_digits(tmp_path / "away", count=1)
    (tmp_path / "empty" / "link.png").symlink_to(tmp_path / "away" / "0000.png")
    assert code(lambda: Folder(path=str(photos), unlabelled=str(tmp_path / "empty"))) == "SR-S201"
    assert Folder(path=str(photos), unlabelled=str(tmp_path / "empty"), allow_outside=True).num_unlabelled == 1


def test_a_test_image_among_the_further_ones_is_told(photos, tmp_path):
    held_out = load_dataset(Folder(path=str(photos))).splits["test"]
    flat_digits(tmp_path / "more", count=4, start=900)
    copied = tmp_path / "more" / "copied.png"
    copied.write_bytes(Path(held_out.name_of(int(held_out.listed[0]))).read_bytes())
    source = Folder(path=str(photos), unlabelled=str(tmp_path / "more"))
    found = inspect(source, load_dataset(source))
    assert [finding.code for finding in found] == ["SR-D112"]
    assert str(copied) in str(found[0].failure) and "test: " in str(found[0].failure)


# other sources ------------------------------------------------------------------------------------------------------


def rows(labels, start=0) -> pa.Table:
    images = []
    for scan in load_digits().images[start : start + len(labels)]:
        Image.fromarray(scan.astype(np.uint8) * 15).save(file := io.BytesIO(), "PNG")
        images.append({"bytes": file.getvalue(), "path": None})
    return pa.table({"image": images, "label": pa.array(labels)})


def test_rows_without_a_label_are_for_training(tmp_path):
    labels = [number % 2 if number < 40 else None for number in range(60)]
    pq.write_table(rows(labels), tmp_path / "photos.parquet")
    source = Parquet(path=str(tmp_path / "photos.parquet"))
    data = load_dataset(source)
    assert data.summary()["unlabelled"] == 20 and codes(source) == []
    assert (source.labels[np.concatenate([data.splits[name].listed for name in ("val", "test")])] >= 0).all()
    assert set(range(40, 60)) <= set(data.splits["train"].listed.tolist())


def test_a_published_test_split_without_labels_is_refused(tmp_path):
    pq.write_table(rows([number % 2 for number in range(40)]), tmp_path / "train.parquet")
    pq.write_table(rows([0, 1] + [-1] * 10, start=100), tmp_path / "test.parquet")
    source = Parquet(path=str(tmp_path))
    assert codes(source) == ["SR-D141"]
    source.labels[3] = -2  # nobody's way to say unknown
    assert codes(source) == ["SR-D113", "SR-D141"]


def test_a_flat_folder_is_found_and_split(tmp_path):
    flat_digits(tmp_path / "flat" / "2024", count=10)
    flat_digits(tmp_path / "flat", count=30, start=10)
    assert infer_source(str(tmp_path / "flat")) == "folder", "folders with images are taken for classes"
    data = load_dataset(Images(path=str(tmp_path / "flat")))
    assert not data.labelled and data.classes == () and data.kind == "labels"
    assert {name: len(split.listed) for name, split in data.splits.items()} == {"train": 26, "val": 6, "test": 8}
    assert data.summary()["unlabelled"] == 40 and codes(data.source) == []
    os.rename(tmp_path / "flat" / "2024", tmp_path / "elsewhere")
    assert infer_source(str(tmp_path / "flat")) == "images"
    assert load_dataset(Images(path=str(tmp_path / "flat"), classes=CLASSES)).classes == CLASSES


def test_a_flat_folder_may_be_split_by_its_owner(tmp_path):
    for split, start in (("train", 0), ("validation", 20), ("test", 25)):
        flat_digits(tmp_path / split, count=5 if start else 20, start=start)
    assert infer_source(str(tmp_path)) == "images"
    splits = load_dataset(Images(path=str(tmp_path))).splits
    assert {name: len(split.listed) for name, split in splits.items()} == {"train": 20, "val": 5, "test": 5}
    assert splits["val"].name_of(int(splits["val"].listed[0])).endswith("validation/0020.png")
    assert code(lambda: Images(path=str(tmp_path / "nowhere"))) == "SR-D101"
    assert code(lambda: Images(path=str(tmp_path / "test" / "0025.png"))) == "SR-D109"
    (tmp_path / "empty").mkdir()
    assert code(lambda: Images(path=str(tmp_path / "empty"))) == "SR-D108"


def test_what_is_known_of_a_split_is_a_split(photos, tmp_path):
    flat_digits(tmp_path / "more", count=40, start=900)
    whole = load_dataset(Folder(path=str(photos), unlabelled=str(tmp_path / "more"))).splits["train"]
    alone = load_dataset(Folder(path=str(photos))).splits["train"]
    part = labelled_subset(whole)
    assert len(part) == len(alone) == 21 and part.items.tolist() == alone.items.tolist() == part.listed.tolist()
    assert part.labels.tolist() == alone.labels.tolist() and part.name_of(3) == alone.name_of(3)
    one, other = (Loader(split, batch=8, seed=3, augment=Augment(rotate=9, mixup=0.2)).at(2) for split in (part, alone))
    assert torch.equal(one.images, other.images) and torch.equal(one.target, other.target)
    assert torch.equal(one.keys, other.keys) and (one.target >= 0).all()
    assert labelled_subset(alone) is alone


# who reads labels ---------------------------------------------------------------------------------------------------


def test_a_head_is_fitted_to_what_is_known():
    """As to the same images without the others, bit for bit."""
    heads = []
    for blind in (False, True):
        source = Digits()
        data = load_dataset(source)
        items = data.splits["train"].listed
        if blind:
            source.labels[items[::2]] = -1
        else:
            data.splits["train"]._items = items[1::2]
        torch.manual_seed(0)
        network = create_model("resnet8", classes=10, channels=1, size=8)
        data.splits["train"].in_memory = False
        assert linear_probe(network, data.splits["train"], data.splits["val"], device=torch.device("cpu")) > 0.7
        heads.append(network.heads()[0].weight)
    torch.testing.assert_close(*heads, atol=1e-6, rtol=0)


def test_unknown_labels_count_in_no_figure():
    pred = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 2, 0], [float("nan"), 0, 0]])
    batch = batch_of(4, torch.tensor([0, 0, -1, -1]))
    figures = {}
    for metric in Classification().metrics(CLASSES):
        metric.update(Output(pred=pred), batch)
        figures |= metric.compute()
    assert (figures["accuracy"].value, figures["accuracy"].n) == (0.5, 2)
    assert figures["recall"].value == {"ant": 0.5}
    assert Classification().score_per_image(Output(pred=pred), batch).tolist() == [1, 0, 1, 1]
    assert Classification().drawable_target(batch, 2) == {} and Classification().drawable_target(batch, 0) == {
        "class": 0
    }


# no label at all ----------------------------------------------------------------------------------------------------


def said(*classes) -> Output:
    return Output(pred=torch.eye(3)[torch.tensor(classes)] * 3)


def unlabelled(count: int) -> Batch:
    return batch_of(count, torch.full((count,), -1))


def test_the_figure_is_the_share_on_which_the_teacher_says_the_same():
    task = without_labels(Classification(smoothing=0.1))
    told = batch_of(4, said(0, 1, 2, 2))
    metrics = task.metrics(CLASSES), task.metrics(CLASSES)
    metrics[0][0].update(said(0, 1, 2, 0), told)
    metrics[0][0].update(said(0, 0, 0, 0), unlabelled(4), said(0, 0, 0, 0))  # nobody knows: not counted
    (figure,) = metrics[0][0].compute().items()
    assert figure[0] == task.info.headline == "teacher_agreement"
    assert (figure[1].value, figure[1].n) == (0.75, 4) and figure[1].ci95[0] < 0.75 < figure[1].ci95[1]
    metrics[1][0].merge(metrics[0][0].state())
    assert metrics[1][0].value() == 0.75
    assert task.score_per_image(said(0, 1, 2, 0), told).tolist() == [1, 1, 1, 0]
    assert task.score_per_image(said(0, 1, 2, 0), unlabelled(4)).tolist() == [0, 0, 0, 0]
    assert (
        task.drawable_target(told, 0) == {} and task.chance_level(3) == 0 and "accuracy" not in str(task.info).lower()
    )


def test_no_label_teaches_and_the_rest_is_as_in_the_task():
    task = without_labels(Classification(smoothing=0.1))
    assert task.loss(said(0, 1), unlabelled(2)) == {} and not task.has_label_loss and task.finetune == "none"
    assert (task.target_kind, task.output_kind, task.min_agreement[8], task.smoothing) == (
        "labels",
        "classes",
        0.98,
        0.1,
    )
    assert task.num_outputs(7) == 7 and task.decode(said(2, 1)).tolist() == [2, 1]
    again = copy.deepcopy(task)
    assert again.smoothing == 0.1 and again.info == task.info
    with pytest.raises(AttributeError):
        task.nothing  # noqa: B018


def test_vectors_agree_by_whom_they_find_nearest():
    torch.manual_seed(0)
    task, vectors = without_labels(Embedding()), torch.randn(20, 6)
    turned = vectors @ torch.linalg.qr(torch.randn(6, 6))[0]  # distances stay
    found = {}
    for name, pred in {"turned": turned, "other": torch.randn(20, 4)}.items():
        metric, *_ = task.metrics(())
        metric.update(
            task.postprocess(Output(pred=pred), None), batch_of(20, task.postprocess(Output(pred=vectors), None))
        )
        found[name] = metric.compute()["teacher_agreement"].value
    assert found["turned"] == 1 and found["other"] < 0.5


def test_the_teacher_knows_and_is_not_judged_by_itself():
    answers = {"teacher": (0, 1, 2, 2), "student": (0, 1, 1, 2), "file": (0, 1, 1, 1)}
    speakers = {name: (lambda images, name=name: said(*answers[name])) for name in answers}
    kept = {}
    found = evaluate(
        speakers,
        [unlabelled(4)],
        without_labels(Classification()),
        CLASSES,
        against={"student": "teacher", "file": "student"},
        reference="teacher",
        keep=lambda name, batch, answer, right: kept.update({name: right.tolist()}),
    )
    assert "teacher_agreement" not in found.figures["teacher"]
    assert found.figures["student"]["teacher_agreement"].value == 0.75 == found.figures["student"]["agreement"].value
    assert found.figures["file"]["teacher_agreement"].value == 0.5
    assert found.figures["file"]["agreement"].value == 0.75, "with the student, as ever"
    assert kept == {"teacher": [1, 1, 1, 1], "student": [1, 1, 0, 1], "file": [1, 1, 0, 0]}
    assert found.targets is None


def test_selection_asks_the_teacher_too():
    data = load_dataset(Digits())
    torch.manual_seed(0)
    one, other = (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for _ in range(2))
    first, second = (lambda images, net=net: Output(pred=net(images)) for net in (one, other))
    task, split = without_labels(Classification()), data.splits["val"]
    assert validate(first, task, split, data.classes, batch=50, reference=first) == 1
    images = split.images(np.arange(len(split))).float() / 255
    with torch.no_grad():
        alike = (one(images).argmax(1) == other(images).argmax(1)).float().mean().item()
    assert validate(first, task, split, data.classes, batch=50, reference=second) == pytest.approx(alike)
    assert validate(first, task, split, data.classes, batch=50) == 0, "nobody knows"


# from a recipe ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    home = tmp_path_factory.mktemp("flat")
    flat_digits(home / "photos", count=60)
    knowing(home / "teacher.safetensors", steps=1)
    return home


def asked(flat, **more):
    """A recipe of the flat folder; dotted keys with two underscores."""
    teacher = {"network": "resnet8", "weights": str(flat / "teacher.safetensors")}
    words = {"data": f"{flat}/photos", "teacher": teacher, "student": "resnet8"}
    return recipe.read(None, words | {key.replace("__", "."): value for key, value in more.items()})


def prepared(flat, **more):
    return prepare(asked(flat, **more), OneProcess())


def test_the_classes_are_the_teachers(flat):
    one = prepared(flat)
    assert one.data.classes == tuple("0123456789") and one.task.info.truth == "teacher"
    assert one.label_weight == 0, "so that methods are chosen as where there are no labels"
    assert prepared(flat, teacher__class_map=[4, 2, 7]).data.classes == ("0", "1", "2")
    named = prepared(flat, data__classes=[f"digit {k}" for k in range(10)]).data
    assert named.classes[3] == "digit 3" and named.fingerprint != one.data.fingerprint
    vectors = prepared(flat, task="embedding", methods="cosine")
    assert vectors.data.classes == () and vectors.task.info.headline == "teacher_agreement"
    assert one.initial_student().classes == 10


def test_classes_that_do_not_fit_the_teacher_are_refused(flat):
    assert code(prepared(flat, data__classes=["a", "b"]).initial_teachers) == "SR-M301"


def test_what_would_teach_nothing_is_refused(flat):
    found = []
    for more in (
        {"teacher__finetune": "head"},
        {"teacher__finetune": "all"},
        {"methods": []},
        {"methods": ["hinton", "dkd"]},
        {"teachers": [{"network": "resnet8", "weights": "none"}]},
    ):
        with pytest.raises(StillroomError) as caught:
            prepared(flat, **more)
        found.append((caught.value.code, caught.value.what))
    assert found == [
        ("SR-D140", "no image has a label, and teacher.finetune is 'head'"),
        ("SR-D140", "no image has a label, and teacher.finetune is 'all'"),
        ("SR-D142", "no image has a label, and there are no methods"),
        ("SR-D142", "no image has a label, and dkd set the true class apart"),
        ("SR-D140", "no image has a label, and teachers[0].finetune is 'all'"),
    ]
    assert prepared(flat, methods="auto").methods[0].name == "auto"
