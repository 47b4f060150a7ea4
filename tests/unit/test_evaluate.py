"""One pass for everybody, values by hand, and nothing left changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from stillroom.evaluation.evaluate import evaluate
from stillroom.models._inference import eval_mode
from stillroom.tasks.classification import Classification
from stillroom.types import Batch, Output

CLASSES = ("zero", "one", "two")
TASK = Classification()


def batches(labels: list[int], size: int = 2) -> Iterator[Batch]:
    """Images whose one pixel is their number, so that a speaker can know which image it sees."""
    for start in range(0, len(labels), size):
        numbers = torch.arange(start, min(start + size, len(labels)))
        images = numbers.float().view(-1, 1, 1, 1) / 100
        yield Batch(images=images, target=torch.tensor(labels)[numbers], keys=numbers + 1000)


def speaker(classes: list[int]) -> object:
    def speak(images: Tensor) -> Output:
        rows = (images.flatten() * 100).round().long()
        return Output(pred=torch.eye(3)[torch.tensor(classes)[rows]] * 4)

    return speak


def test_figures_by_hand() -> None:
    speakers = {"teacher": speaker([0, 1, 2, 2, 0]), "student": speaker([0, 1, 1, 2, 1])}
    found = evaluate(speakers, batches([0, 1, 2, 2, 1]), TASK, CLASSES, against={"student": "teacher"})
    assert found.figures["teacher"]["accuracy"].value == 4 / 5
    assert found.figures["student"]["accuracy"].value == 4 / 5
    assert found.figures["student"]["agreement"].value == 3 / 5
    assert found.figures["student"]["recall"].value == {"zero": 1.0, "one": 1.0, "two": 0.5}
    assert found.figures["student"]["accuracy"].n == 5


def test_who_is_compared_with_nobody_has_no_agreement() -> None:
    found = evaluate({"teacher": speaker([0, 1]), "student": speaker([0, 0])}, batches([0, 1]), TASK, CLASSES)
    assert "agreement" not in found.figures["teacher"] and "agreement" not in found.figures["student"]


def test_answers_stay_paired_with_their_images() -> None:
    found = evaluate({"a": speaker([0, 2, 1]), "b": speaker([1, 1, 1])}, batches([0, 1, 2]), TASK, CLASSES)
    assert found.predictions["a"].tolist() == [0, 2, 1]
    assert found.predictions["b"].tolist() == [1, 1, 1]
    assert found.scores["a"].tolist() == [1, 0, 0]
    assert found.targets is not None and found.targets.tolist() == [0, 1, 2]
    assert found.keys.tolist() == [1000, 1001, 1002]


def test_the_gallery_is_shown_and_not_kept() -> None:
    shown: list[int] = []

    class Watching(Classification):
        def metrics(self, classes, gallery=()):  # type: ignore[no-untyped-def]
            shown.extend(gallery)
            return super().metrics(classes)

    found = evaluate({"a": speaker([0, 1, 2, 0])}, batches([0, 1, 2, 1]), Watching(), CLASSES, gallery={1000, 1001})
    assert found.keys.tolist() == [1002, 1003] and found.predictions["a"].tolist() == [2, 0]
    assert found.figures["a"]["accuracy"].n == 4 and shown == [1000, 1001]


def test_every_batch_is_read_once_however_many_listen() -> None:
    read: list[int] = []

    def counted() -> Iterator[Batch]:
        for number, batch in enumerate(batches([0, 1, 2, 0])):
            read.append(number)
            yield batch

    evaluate({name: speaker([0] * 4) for name in "abc"}, counted(), TASK, CLASSES)
    assert read == [0, 1]


def test_kept_samples_come_with_their_batch() -> None:
    kept: list[tuple[str, int, list[int]]] = []
    evaluate(
        {"a": speaker([0, 2, 1]), "b": speaker([1, 1, 1])},
        batches([0, 1, 2]),
        TASK,
        CLASSES,
        keep=lambda name, batch, output, score: kept.append((name, len(batch), output.pred.argmax(1).tolist())),
    )
    assert kept == [("a", 2, [0, 2]), ("b", 2, [1, 1]), ("a", 1, [1]), ("b", 1, [1])]


def test_what_is_not_a_number_is_no_answer() -> None:
    def silent(images: Tensor) -> Output:
        return Output(pred=torch.full((len(images), 3), float("nan")))

    found = evaluate({"silent": silent}, batches([0, 0]), TASK, CLASSES)
    assert found.predictions["silent"].tolist() == [-1, -1]
    assert found.figures["silent"]["accuracy"].value == 0


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.last = nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 10)
        self.drop.eval()  # a part that its owner froze

    def forward(self, images: Tensor, taps: tuple[str, ...] = ()) -> Output:
        return Output(pred=self.last(self.drop(self.norm(images.flatten(1)))))


def test_a_network_is_judged_at_rest_and_left_as_it_was() -> None:
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:200, None] / 16
    labels = torch.tensor(digits.target)[:200]
    network = Small()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    whole = [Batch(images=images, target=labels, keys=torch.arange(200))]
    said: list[Tensor] = []
    found = evaluate(
        {"student": network},
        whole,
        TASK,
        tuple("0123456789"),
        keep=lambda name, batch, answer, score: said.append(answer.pred),
    )
    assert network.training and network.norm.training and not network.drop.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        expected = network.eval()(images).pred
    assert torch.equal(said[0], expected)
    assert found.figures["student"]["accuracy"].value == (expected.argmax(1) == labels).double().mean().item()


def test_its_answers_are_ordinary_tensors() -> None:
    said: list[Tensor] = []
    evaluate(
        {"student": Small()},
        [Batch(images=torch.rand(2, 1, 8, 8), target=torch.tensor([0, 1]), keys=torch.arange(2))],
        TASK,
        tuple("0123456789"),
        keep=lambda name, batch, answer, score: said.append(answer.pred),
    )
    weight = torch.ones(10, requires_grad=True)
    (said[0] * weight).sum().backward()  # refused for tensors of inference mode
    assert weight.grad is not None


def test_modes_come_back_after_an_error() -> None:
    network = Small()
    with pytest.raises(RuntimeError, match="stop"), eval_mode([network]):
        assert not any(part.training for part in network.modules())
        raise RuntimeError("stop")
    assert network.training and not network.drop.training


@pytest.mark.parametrize("wrong", [{"a": "tutor"}, {"tutor": "a"}])
def test_unknown_speakers_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="'tutor' is none of"):
        evaluate({"a": speaker([0])}, batches([0]), TASK, CLASSES, against=wrong)


def test_no_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="no image"):
        evaluate({"a": speaker([0])}, [], TASK, CLASSES)
