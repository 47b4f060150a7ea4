"""Models of transformers answer here as they do there: logits, boxes after the library's own steps, pooled vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from kit.hub import MODELS, saved
from safetensors.torch import save_file

from stillroom.models import Network, create_model, restore
from stillroom.models._hub_output import inverse_sigmoid_of_softmax

pytest.importorskip("transformers")

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25], "do_normalize": True}
BOXES = ("rt_detr", "rt_detr_v2", "d_fine", "detr", "yolos")
ANSWERS = {"vit": "classes", "segformer": "pixels"} | dict.fromkeys(BOXES, "boxes")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Name -> its folder and the library's own model."""
    made = {}
    for name in MODELS:
        folder = tmp_path_factory.mktemp(name)
        made[name] = folder, saved(name, folder, **HALF)
    return made


def opened(folder: Path, output_kind: str, size: int = 64, **facts) -> Network:
    return create_model(
        f"huggingface/{folder}", classes=None, channels=3, size=size, pretrained=True, output_kind=output_kind, **facts
    ).eval()


def images(side: int = 64) -> torch.Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_logits_of_a_classifier(folders: dict) -> None:
    folder, model = folders["vit"]
    network = opened(folder, "classes")
    assert (network.size, network.classes, network.head) == (32, 5, ("classifier",))
    wanted = model(pixel_values=(images(32) - 0.5) / 0.25).logits
    torch.testing.assert_close(network(images(32)).pred, wanted)
    assert wanted.std() > 0.05


@torch.no_grad()
def test_logits_of_a_segmenter_are_brought_to_the_images_size(folders: dict) -> None:
    folder, model = folders["segformer"]
    network = opened(folder, "pixels")
    raw = model(pixel_values=(images() - 0.5) / 0.25).logits
    assert raw.shape == (2, 4, 16, 16) and network.head == ("decode_head.classifier",)
    torch.testing.assert_close(network(images()).pred, F.interpolate(raw, (64, 64), mode="bilinear"))
    assert raw.flatten(2).std(2).min() > 1e-3, "places must matter"


@pytest.mark.parametrize("name", ["rt_detr", "rt_detr_v2", "d_fine"])
@torch.no_grad()
def test_boxes_are_those_of_the_librarys_own_steps(folders: dict, name: str) -> None:
    from transformers import RTDetrImageProcessor

    folder, model = folders[name]
    network, sizes = opened(folder, "boxes"), torch.tensor([[200, 300], [90, 50]])
    said = model(pixel_values=(images() - 0.5) / 0.25)
    theirs = RTDetrImageProcessor().post_process_object_detection(said, threshold=-1.0, target_sizes=sizes)
    pred = network(images()).pred
    assert pred.shape == (2, 12, 7)
    for row, (height, width) in zip(range(2), sizes.tolist(), strict=True):
        scores, at = pred[row, :, 4:].sigmoid().flatten().topk(12)
        torch.testing.assert_close(scores, theirs[row]["scores"])
        assert torch.equal(at % 3, theirs[row]["labels"])
        boxes = pred[row, at // 3, :4] * torch.tensor([width, height, width, height])
        torch.testing.assert_close(boxes, theirs[row]["boxes"], rtol=1e-5, atol=1e-3)
        assert scores.unique().numel() == 12


@pytest.mark.parametrize("name", ["detr", "yolos"])
@torch.no_grad()
def test_a_softmax_with_no_object_becomes_scores(folders: dict, name: str) -> None:
    from transformers import DetrImageProcessor, YolosImageProcessor

    folder, model = folders[name]
    network, sizes = opened(folder, "boxes"), torch.tensor([[200, 300], [90, 50]])
    said = model(pixel_values=(images() - 0.5) / 0.25)
    processor = DetrImageProcessor() if name == "detr" else YolosImageProcessor()
    theirs = processor.post_process_object_detection(said, threshold=-1.0, target_sizes=sizes)
    pred = network(images()).pred
    assert network.classes == 3 and pred.shape[-1] == 7 and said.logits.shape[-1] == 4
    for row, (height, width) in zip(range(2), sizes.tolist(), strict=True):
        scores, labels = pred[row, :, 4:].sigmoid().max(1)
        torch.testing.assert_close(scores, theirs[row]["scores"])
        assert torch.equal(labels, theirs[row]["labels"])
        boxes = pred[row, :, :4] * torch.tensor([width, height, width, height])
        torch.testing.assert_close(boxes, theirs[row]["boxes"], rtol=1e-5, atol=1e-3)


@torch.no_grad()
def test_vectors(folders: dict) -> None:
    pixels = (images(32) - 0.5) / 0.25
    for name in ("vit_backbone", "dinov2", "convnext"):
        folder, model = folders[name]
        network, said = opened(folder, "vector", size=32), model(pixel_values=pixels)
        wanted = said.last_hidden_state[:, 0] if name == "vit_backbone" else said.pooler_output
        torch.testing.assert_close(network(images(32)).pred, wanted)
        assert (network.head, network.classes) == (("vector",), wanted.shape[1] == 32 and 32)
        assert torch.equal(network(images(32), ("vector",)).taps["vector"], wanted)


@torch.no_grad()
def test_a_classifiers_file_gives_the_vector_that_its_head_reads(folders: dict) -> None:
    folder, model = folders["vit"]
    pixels = (images(32) - 0.5) / 0.25
    wanted = model.vit(pixel_values=pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(opened(folder, "vector", size=32)(images(32)).pred, wanted)


@pytest.mark.parametrize("name", ["vit", "dinov2", "segformer", "rt_detr", "d_fine", "detr", "yolos"])
@torch.no_grad()
def test_what_was_saved_comes_back(folders: dict, name: str, tmp_path: Path) -> None:
    answers = ANSWERS.get(name, "vector")
    network = opened(folders[name][0], answers)
    weights = {key: value.clone() for key, value in network.weights().items()}  # some share memory
    save_file(weights, tmp_path / "student.safetensors", metadata=network.metadata())
    given = {"classes": None, "channels": 3, "size": 64, "output_kind": answers}
    again = restore(f"huggingface/{folders[name][0]}", tmp_path / "student.safetensors", **given).eval()
    assert (again.classes, again.head) == (network.classes, network.head)
    assert torch.equal(again(images()).pred, network(images()).pred)


@given(
    logits=st.lists(st.floats(-60, 60), min_size=2, max_size=6),
    shift=st.floats(-1e3, 1e3),
)
def test_the_inverse_sigmoid_of_a_softmax(logits: list[float], shift: float) -> None:
    given_ = torch.tensor([logits], dtype=torch.float64) + shift
    single = given_.float().requires_grad_()
    said = inverse_sigmoid_of_softmax(single)
    z = single.detach().double()
    wanted = torch.stack([z[0, k] - torch.cat([z[0, :k], z[0, k + 1 :]]).logsumexp(0) for k in range(len(logits) - 1)])
    torch.testing.assert_close(said.detach()[0].double(), wanted, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(said.detach().double().sigmoid(), z.softmax(1)[:, :-1], rtol=1e-3, atol=1e-6)
    said.sum().backward()
    assert single.grad is not None and single.grad.isfinite().all()


@torch.no_grad()
def test_channels_in_another_order_are_turned(tmp_path: Path) -> None:
    model = saved("vit", tmp_path, do_normalize=False, do_flip_channel_order=True)
    network = opened(tmp_path, "classes", size=32)
    torch.testing.assert_close(network(images(32)).pred, model(pixel_values=images(32).flip(1)).logits)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["rt_detr", "d_fine", "detr"])
@torch.no_grad()
def test_an_exported_detector_says_the_same_of_images_of_any_size(folders: dict, name: str, tmp_path: Path) -> None:
    import onnxruntime

    from stillroom.export._tools import quiet
    from stillroom.export._wrapper import ExportWrapper

    network = opened(folders[name][0], "boxes")
    network.size = 64
    speech, file = ExportWrapper(network, any_size=True), tmp_path / "model.onnx"
    dims = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    with quiet():
        program = torch.onnx.export(
            speech, (torch.rand(2, 3, 77, 91),), dynamic_shapes=(dims,), input_names=["images"], dynamo=True
        )
        program.save(file)
    session = onnxruntime.InferenceSession(file)
    for shape in ((1, 3, 64, 64), (3, 3, 120, 90)):
        seen = torch.rand(shape, generator=torch.Generator().manual_seed(1))
        (said,) = session.run(None, {"images": seen.numpy()})
        wanted = speech(seen)
        # Which queries come first is a choice among nearly equal scores: they are compared as a set.
        apart = (wanted[:, :, None] - torch.from_numpy(np.asarray(said))[:, None]).abs().amax(-1)
        assert apart.amin(2).max() < 1e-3 and apart.amin(1).max() < 1e-3
