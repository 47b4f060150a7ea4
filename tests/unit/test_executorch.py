"""A `.pte` file answers as its network does, on the grid its weights were trained on, and disturbs nothing."""

from __future__ import annotations

import logging
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

pytest.importorskip("executorch", reason="needs the package executorch")

from stillroom.errors import Exit, StillroomError
from stillroom.export import _pt2e, runtime
from stillroom.export._wrapper import ExportWrapper
from stillroom.export.executorch import ExecuTorch, checked_bytes
from stillroom.models.network import Network

executorch, load = ExecuTorch().write, ExecuTorch().open

CLASSES = ("null", "één", *(f"digit {number}" for number in range(2, 10)))


def digits(start: int, stop: int) -> Tensor:
    """Real handwritten digits [B, 1, 8, 8] in 0..1."""
    return torch.tensor(load_digits().images[start:stop, None] / 16, dtype=torch.float32)


class Layers(nn.Module):
    """Two convolutions, the first with a batch norm behind it, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(1, 12, 3, bias=False), nn.BatchNorm2d(12), nn.Conv2d(12, 24, 3)
        self.linear = nn.Linear(24 * 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.last(self.norm(self.first(images)).relu()).relu().flatten(1))


def taught() -> Network:
    """A small network that has learnt a little, so that few of its answers are close calls."""
    torch.manual_seed(0)
    network = Network(Layers(), classes=10, channels=1, mean=(0.3,), std=(0.35,))
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    labels = torch.tensor(load_digits().target)
    for step in range(60):
        rows = slice(step * 64 % 1280, step * 64 % 1280 + 64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(digits(rows.start, rows.stop)).pred, labels[rows]).backward()
        optimizer.step()
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> SimpleNamespace:
    """One student in both precisions, and what the process was like before and after."""
    folder, network = tmp_path_factory.mktemp("exports"), taught()
    before = state()
    arguments: dict[str, Any] = {"example": digits(0, 1), "classes": CLASSES}
    floats = executorch(network, folder / "model.pte", **arguments)
    batches = digits(0, 256).split(32)
    integers = executorch(network, folder / "model-int8.pte", **arguments, bits=8, calibration=batches)
    return SimpleNamespace(
        network=network, floats=floats, integers=integers, folder=folder, before=before, after=state()
    )


def state() -> list[Any]:
    """What an export must leave alone."""
    numbers = torch.get_rng_state().tolist()
    return [numbers, torch.is_grad_enabled(), torch.get_num_threads(), torch.get_default_dtype(), logging.root.level]


def test_the_float_file_answers_as_the_network(made: Any) -> None:
    images = digits(300, 900)
    torch.testing.assert_close(load(made.floats)(images).pred, made.network(images).pred, rtol=1e-4, atol=1e-5)


def test_the_int8_file_is_smaller_and_nearly_the_same(made: Any) -> None:
    images = digits(300, 1300)
    exact, rounded = made.network(images).pred, load(made.integers)(images).pred
    assert (exact.argmax(1) == rounded.argmax(1)).double().mean() >= 0.97
    assert not torch.equal(exact, rounded)
    assert made.floats.stat().st_size > 2 * made.integers.stat().st_size


@pytest.mark.parametrize("kind", ["floats", "integers"])
def test_each_image_for_itself_in_memory_of_its_own(made: Any, kind: str) -> None:
    session, images = load(getattr(made, kind), threads=1), digits(300, 340)
    first = session(images[:7]).pred
    kept = first.clone()
    alone = torch.cat([session(image[None]).pred for image in images])
    assert torch.equal(first, kept) and torch.equal(alone[:7], kept)
    assert alone.dtype == torch.float32 and not alone.requires_grad


def test_the_file_says_what_it_is(made: Any) -> None:
    for path, bits in ((made.floats, "32"), (made.integers, "8")):
        session = load(path)
        assert session.classes == CLASSES
        assert (session.facts["answers"], session.facts["bits"]) == ("classes", bits)
        assert session.facts["input"] == "images: float32 [1, 1, 8, 8], grey, 0..1; normalisation is inside"
        assert session.facts["output"] == "logits: float32 [1, 10]"
    assert load(made.integers).facts["calibration"] == "histogram"


def test_one_file_each_and_nothing_is_disturbed(made: Any, capfd: Any) -> None:
    assert sorted(entry.name for entry in made.folder.iterdir()) == ["model-int8.pte", "model.pte"]
    assert made.before == made.after and not made.network.training
    load(made.floats, threads=1)(digits(0, 2))
    assert "threadpool" not in capfd.readouterr().err


def test_files_of_different_threads_take_turns(made: Any) -> None:
    from executorch.extension.pybindings import portable_lib

    one, two, images = load(made.floats, threads=1), load(made.integers, threads=2), digits(0, 40)
    expected = one(images).pred, two(images).pred
    for _ in range(3):
        assert torch.equal(one(images).pred, expected[0]) and portable_lib._threadpool_get_thread_count() == 1
        assert torch.equal(two(images).pred, expected[1]) and portable_lib._threadpool_get_thread_count() == 2


def test_images_of_another_shape_are_refused(made: Any) -> None:
    with pytest.raises(ValueError, match=r"takes images \[1, 8, 8\], got \[1, 9, 8\]"):
        load(made.floats)(torch.zeros(1, 1, 9, 8))


# the grid


def converted(network: nn.Module) -> nn.Module:
    return _pt2e.quantise(ExportWrapper(network), digits(0, 1), digits(0, 64).split(32))


def integers(program: nn.Module) -> dict[tuple[int, ...], Tensor]:
    """The int8 weights of a converted program, by their shapes."""
    tensors = [*program.buffers(), *program.parameters()]
    return {tuple(tensor.shape): tensor for tensor in tensors if tensor.dtype == torch.int8}


def on_the_grid(scale: float) -> tuple[Network, dict[str, Tensor]]:
    """A network whose weights lie on a grid of 127 steps, and the whole numbers that they are."""
    torch.manual_seed(0)
    module, whole_numbers = Layers(), {}
    nn.init.uniform_(module.norm.weight, 0.5, 2.0)
    nn.init.uniform_(module.norm.running_var, 0.5, 2.0)
    for name in ("first", "last", "linear"):
        weight = getattr(module, name).weight.data.mul_(scale)
        step = weight.flatten(1).abs().amax(1).div(127).view(-1, *[1] * (weight.dim() - 1))
        whole_numbers[name] = (weight / step).round()
        weight.copy_(whole_numbers[name] * step)
    return Network(module, classes=10, channels=1).eval().requires_grad_(False), whole_numbers


def test_weights_on_the_grid_are_the_same_whole_numbers_in_the_file() -> None:
    """Those of a hundredth of the usual size too, whose steps are far below 2^-12, where the library's own end."""
    network, expected = on_the_grid(0.01)
    found = integers(converted(network))
    assert len(found) == 3
    for whole_number in expected.values():
        assert torch.equal(found[tuple(whole_number.shape)].float(), whole_number)


def test_layers_that_the_form_lists_stay_in_floats() -> None:
    network, expected = on_the_grid(1.0)
    network.edits = ({"kind": "grid", "bits": 8, "group": 0, "activations": 8, "layers": ["first"], "float": ["last"]},)
    assert _pt2e.exact_layers(ExportWrapper(network)) == {"network.module.last"}
    found = integers(converted(network))
    assert set(found) == {tuple(expected[name].shape) for name in ("first", "linear")}
    assert all(torch.equal(found[tuple(expected[name].shape)].float(), expected[name]) for name in ("first", "linear"))


# refusals


def refused(network: nn.Module, path: Path, **arguments: Any) -> StillroomError:
    path.write_bytes(b"an earlier export")
    with pytest.raises(StillroomError) as caught:
        executorch(network, path, example=digits(0, 1), classes=CLASSES, **arguments)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == b"an earlier export" and caught.value.exit == Exit.UNVERIFIED
    return caught.value


class Bessel(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.special.bessel_j0(images.flatten(1)[:, :10])


def test_an_operator_that_the_runtime_has_not_got(tmp_path: Path) -> None:
    found = refused(Network(Bessel(), classes=10, channels=1), tmp_path / "m.pte")
    assert found.code == "SR-X730" and "special_bessel_j0" in found.what


class Branching(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :10] if images.mean() > 0 else images.flatten(1)[:, 10:20]


def test_a_network_that_no_program_can_be_made_of(tmp_path: Path) -> None:
    assert refused(Network(Branching(), classes=10, channels=1), tmp_path / "m.pte").code == "SR-X703"


def test_four_bits_and_nothing_to_calibrate_on(tmp_path: Path, made: Any) -> None:
    found = refused(made.network, tmp_path / "m.pte", bits=4)
    assert found.code == "SR-X731" and "32 or 8" in found.fix
    for arguments in ({"bits": 8}, {"bits": 2}):
        with pytest.raises(ValueError, match="bits"):
            executorch(made.network, tmp_path / "m.pte", example=digits(0, 1), classes=CLASSES, **arguments)


def test_a_missing_package_is_named(tmp_path: Path, made: Any, monkeypatch: Any) -> None:
    def hidden(name: str) -> ModuleSpec | None:
        return None if name == "executorch" else ModuleSpec(name, None)

    monkeypatch.setattr(runtime, "find_spec", hidden)
    assert refused(made.network, tmp_path / "m.pte").code == "SR-X702"
    with pytest.raises(StillroomError) as caught:
        load(made.floats)
    assert caught.value.code == "SR-X702" and "pip install" in caught.value.fix


@pytest.mark.parametrize("spoil", ["empty", "text", "bytes", "short", "tables", "delegate"])
def test_a_broken_file_is_an_error_and_not_the_end_of_the_process(made: Any, tmp_path: Path, spoil: str) -> None:
    good = made.integers.read_bytes()
    inner = good.index(b"XH00") + 40  # XNNPACK's own program, inside the file
    broken = {
        "empty": b"",
        "text": b"this is no program " * 20,
        "bytes": bytes(range(255, 0, -1)) * 8,  # no text in any encoding: it is this that ended the process
        "short": good[:-100],
        "tables": good[:64] + bytes(255 - byte for byte in good[64:2000]) + good[2000:],
        "delegate": good[:inner] + b"\xff" * 400 + good[inner + 400 :],
    }
    path = tmp_path / "m.pte"
    path.write_bytes(broken[spoil])
    if spoil in ("empty", "text", "bytes", "short"):
        with pytest.raises(ValueError, match=r"not an ExecuTorch program|bytes are announced"):
            checked_bytes(path)
    with pytest.raises(StillroomError) as caught:
        load(path)
    assert (caught.value.code, caught.value.exit) == ("SR-X704", Exit.MODEL)
