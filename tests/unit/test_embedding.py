"""The embedding task: its answer, its words, and what its metrics say of vectors that are odd, few or unlabelled."""

from __future__ import annotations

import io
import json

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_digits

from stillroom.metrics.neighbours import Neighbours
from stillroom.metrics.probe import Probe
from stillroom.metrics.retrieval import Retrieval
from stillroom.tasks.embedding import Embedding
from stillroom.types import Batch, Output

CLASSES = ("ant", "bee", "cat")


def batch_of(labels, keys=None) -> Batch:
    labels = torch.as_tensor(labels)
    keys = torch.arange(len(labels)) if keys is None else torch.as_tensor(keys)
    return Batch(images=torch.zeros(len(labels), 3, 4, 4), target=labels, keys=keys)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def figures(metric, pred, batch, reference=None):
    metric.update(Output(pred=pred), batch, None if reference is None else Output(pred=reference))
    return metric.compute()


def test_the_answer_has_length_one_and_the_same_direction() -> None:
    pred = draw(5, 7) * 30
    answer = Embedding().answer(Output(pred=pred), torch.zeros(5, 3, 4, 4)).pred
    torch.testing.assert_close(answer.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(answer * pred.norm(dim=1, keepdim=True), pred)


def test_a_vector_of_zeros_stays_finite_and_half_precision_does_not_overflow() -> None:
    images = torch.zeros(1, 3, 4, 4)
    assert torch.equal(Embedding().answer(Output(pred=torch.zeros(1, 4)), images).pred, torch.zeros(1, 4))
    large = torch.full((1, 4), 6e4, dtype=torch.float16)  # whose squares float16 can't hold
    torch.testing.assert_close(Embedding().answer(Output(pred=large), images).pred, torch.full((1, 4), 0.5))


def test_the_answer_is_the_same_in_onnxruntime() -> None:
    class Whole(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return Embedding().answer(Output(pred=images.flatten(1)), images).pred

    images, file = draw(3, 1, 4, 4), io.BytesIO()
    batch = {0: torch.export.Dim("batch")}
    torch.onnx.export(Whole().eval(), (images,), dynamic_shapes=(batch,), dynamo=True, verbose=False).save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    other = draw(5, 1, 4, 4, seed=1)
    (said,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    np.testing.assert_allclose(said, Whole()(other).numpy(), atol=1e-6)


def test_labels_teach_nothing() -> None:
    task = Embedding()
    assert task.loss(Output(pred=draw(3, 4)), batch_of([0, 1, -1])) == {}
    assert task.outputs(3) is None and task.taught is False and task.finetune == "none"
    assert task.gallery == ("train",) and task.about.headline == "knn"
    assert task.chance(4) == 0.25 and task.chance(0) == 0


def test_k_below_one_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^k must be at least 1, got 0"):
        Embedding(k=0)


def test_k_reaches_the_metric() -> None:
    # query 0 is nearest to one image of its own class, and then to two of another
    pred = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [1.0, 0.3]])
    batch = batch_of([0, 0, 1, 1])
    for k, knn in ((1, 1.0), (3, 0.0)):
        first, *_ = Embedding(k=k).metrics(CLASSES, gallery=(1, 2, 3))
        assert figures(first, pred, batch)["knn"].value == knn


def test_same_is_the_cosine_and_exactly_one_for_equal_vectors() -> None:
    task, images = Embedding(), torch.zeros(4, 3, 4, 4)
    one = task.answer(Output(pred=draw(4, 33)), images)
    assert torch.equal(task.same(one, one), torch.ones(4))
    turned = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [float("nan"), 0.0]])
    other = torch.tensor([[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
    said = task.same(Output(pred=turned), Output(pred=other))
    torch.testing.assert_close(said, torch.tensor([0.6, 0.0, 0.0, 0.0]))
    assert torch.equal(task.same(one, Output(pred=draw(4, 5))), torch.zeros(4))


def test_sketch_and_truth_can_be_written() -> None:
    task, answer = Embedding(), Output(pred=torch.tensor([[0.6, 0.8], [1.0, 0.0]]))
    assert json.loads(json.dumps(task.sketch(answer, 0)))["vector"] == pytest.approx([0.6, 0.8])
    assert task.truth(batch_of([2, -1]), 0) == {"class": 2} and task.truth(batch_of([2, -1]), 1) == {}
    assert torch.equal(task.score(answer, batch_of([0, 1])), torch.zeros(2))
    assert torch.equal(task.decode(answer), answer.pred)


def test_real_digits_lie_near_their_like_and_random_vectors_do_not() -> None:
    digits = load_digits()
    pixels, labels = torch.from_numpy(digits.data[:300]).float(), torch.from_numpy(digits.target[:300])
    names = tuple(map(str, range(10)))
    said = {}
    for word, pred in (("pixels", pixels), ("noise", draw(300, 64))):
        metrics = Embedding().metrics(names, gallery=range(200))
        said[word] = {k: f.value for metric in metrics for k, f in figures(metric, pred, batch_of(labels)).items()}
    assert list(said["pixels"]) == ["knn", "recall_at_1", "recall_at_5", "recall_at_10", "probe"]
    assert said["pixels"]["knn"] > 0.9 and said["pixels"]["probe"] > 0.9 and said["pixels"]["recall_at_1"] > 0.9
    assert said["noise"]["knn"] < 0.25 and said["noise"]["probe"] < 0.25 and said["noise"]["recall_at_1"] < 0.25


def test_all_labels_unknown_leave_the_agreement_alone() -> None:
    batch, pred = batch_of([-1] * 6), draw(6, 4)
    for metric in Embedding().metrics(CLASSES, gallery=(0, 1, 2)):
        assert figures(metric, pred, batch) == {} and metric.value() == 0
    agreement = figures(Embedding().agreement(CLASSES, gallery=(0, 1, 2)), pred, batch, pred)["agreement"]
    assert (agreement.value, agreement.n) == (1.0, 3)
    assert agreement.extra == {"max_difference": 0.0, "mean_difference": 0.0}


def test_unlabelled_images_neither_ask_nor_answer() -> None:
    # the unlabelled image of the gallery is nearest to both queries, and does not vote
    pred = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.9], [0.9, 1.0], [0.5, 0.5]])
    found = figures(Retrieval(classes=CLASSES, gallery=(0, 1, 2), k=1), pred, batch_of([0, 1, -1, 0, 1, -1]))["knn"]
    assert (found.value, found.n) == (1.0, 2)


def test_widths_may_differ_and_then_no_difference_is_claimed() -> None:
    angles = torch.tensor([0.0, 0.1, 1.0, 1.15, 2.0])
    flat = torch.stack([angles.cos(), angles.sin()], 1)
    found = figures(Neighbours(classes=CLASSES), flat, batch_of([0] * 5), torch.cat([flat, flat], 1))["agreement"]
    assert (found.value, found.extra) == (1.0, {})


def test_copies_in_the_gallery_are_no_disagreement() -> None:
    pred = draw(8, 6)
    pred[1] = pred[0]  # which of the two is nearest is anybody's choice
    moved = pred + 1e-7 * draw(8, 6, seed=1)
    metric = Neighbours(classes=CLASSES, gallery=(0, 1, 2, 3))
    assert figures(metric, pred, batch_of([0] * 8), moved)["agreement"].value == 1.0


def test_a_network_that_always_says_the_same_agrees_with_no_other() -> None:
    pred, dull = draw(40, 6), torch.ones(40, 6)
    for said, expected in ((pred, dull), (dull, pred)):
        found = figures(Neighbours(classes=CLASSES, gallery=range(30)), said, batch_of([0] * 40), expected)
        assert found["agreement"].value < 0.3


def test_shuffled_vectors_agree_by_chance_only() -> None:
    pred = draw(60, 6)
    found = figures(Neighbours(classes=CLASSES), pred, batch_of([0] * 60), pred[torch.randperm(60)])
    assert found["agreement"].value < 0.2


def test_not_a_number_is_wrong_and_found_by_nobody() -> None:
    pred = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [float("nan"), 1.0], [0.1, float("inf")]])
    batch = batch_of([0, 1, 0, 1, 1])
    found = figures(Retrieval(classes=CLASSES, gallery=(0, 1), k=1), pred, batch)["knn"]
    assert (found.value, found.n) == (pytest.approx(1 / 3), 3)
    # as part of the gallery it votes for nothing: the query of class 1 still finds the one number there is
    turned = figures(Retrieval(classes=CLASSES, gallery=(0, 3, 4), k=3), pred, batch)["knn"]
    assert (turned.value, turned.n) == (0.5, 2)
    broken = torch.full((6, 4), float("nan"))
    known = batch_of([0, 1, 2, 0, 1, 2])
    for metric in (*Embedding().metrics(CLASSES, (0, 1)), Embedding().agreement(CLASSES, (0, 1))):
        said = figures(metric, broken, known, broken)
        assert not any(figure.value for figure in said.values())
        json.dumps([figure.as_dict() for figure in said.values()], allow_nan=False)


def test_one_image_alone_has_no_neighbour() -> None:
    for metric in (*Embedding().metrics(CLASSES), Embedding().agreement(CLASSES)):
        assert figures(metric, draw(1, 4), batch_of([0]), draw(1, 4)) == {}


def test_without_a_reference_there_is_no_agreement() -> None:
    assert figures(Neighbours(classes=CLASSES), draw(4, 3), batch_of([0, 1, 0, 1])) == {}


def test_a_probe_needs_a_gallery_of_two_classes() -> None:
    pred = draw(6, 4)
    assert figures(Probe(classes=CLASSES), pred, batch_of([0, 1, 0, 1, 0, 1])) == {}
    assert figures(Probe(classes=CLASSES, gallery=(0, 1, 2)), pred, batch_of([1, 1, 1, 0, 0, 1])) == {}
    # one image a class: nothing can be held out without losing the class, and it is fitted all the same
    apart = torch.eye(4)[[0, 1, 0, 1]]
    assert figures(Probe(classes=CLASSES, gallery=(0, 1)), apart, batch_of([0, 1, 0, 1]))["probe"].value == 1.0


def test_a_class_with_one_image_is_not_counted_against_recall() -> None:
    pred = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    found = figures(Retrieval(classes=CLASSES), pred, batch_of([0, 0, 2]))
    assert (found["recall_at_1"].value, found["recall_at_1"].n) == (1.0, 2)
    assert "recall_at_5" not in found
