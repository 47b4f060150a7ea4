"""Backbones and classifiers of the libraries as teachers of a small student: at their own size, in half precision.

Tiny models with random weights, in the shapes of the real ones: DINOv2 and v3, with registers and without, ViT,
ConvNeXt, ResNet.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kit.hub import saved
from torch import Tensor

from stillroom.config.plugins import pick
from stillroom.config.schema import Data
from stillroom.errors import StillroomError
from stillroom.matching import method_setup
from stillroom.matching.feature_info import feature_info
from stillroom.methods._features import to_map
from stillroom.models import Network, create_model
from stillroom.stages.build import build_data
from stillroom.tasks.classification import Classification
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.training.distiller import Distiller
from stillroom.training.linear_probe import linear_probe
from stillroom.training.loss_weights import Weight
from stillroom.types import Batch

pytest.importorskip("transformers")

SIDE = 32  # of the student's images
TOKENS = {"vit": 4, "dinov2_classifier": 4, "dinov2_registers": 4, "dinov3": 4, "dinov2": 4}
"""Those made of tokens -> patches along a side, at the 56 or 32 px that their folder names."""

HUB = ["vit", "dinov2", "dinov2_classifier", "dinov2_registers", "dinov3", "dinov3_convnext", "convnext", "resnet"]
TIMM = {
    "timm/vit_small_patch14_dinov2.lvd142m": {"img_size": 28, "depth": 2},
    "timm/vit_small_patch14_reg4_dinov2.lvd142m": {"img_size": 56, "depth": 2},
    "timm/vit_small_patch16_dinov3.lvd1689m": {"img_size": 64, "depth": 2},
}
HEADLESS = ("dinov2", "dinov2_registers", "dinov3", "dinov3_convnext", "convnext")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    for name in HUB:
        made[name] = tmp_path_factory.mktemp(name)
        side = 32 if name in ("vit", "dinov2") else 56
        pixels = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "crop_size": side, "size": side + 8}
        saved(name, made[name], **pixels)
    return made


def opened(name: str, folders: dict[str, Path], *, output_kind: str = "classes", classes: int | None = 10) -> Network:
    torch.manual_seed(0)
    given = {"classes": classes, "channels": 1, "size": SIDE, "output_kind": output_kind}
    if name in TIMM:
        return create_model(name, **given, **TIMM[name]).eval()
    return create_model(f"huggingface/{folders[name]}", pretrained=True, **given).eval()


@pytest.fixture(params=[*HUB, *TIMM])
def name(request) -> str:
    return request.param


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_a_transformer_sees_images_of_its_own_size(folders: dict[str, Path]) -> None:
    sizes = {name: opened(name, folders).size for name in [*HUB, *TIMM]}
    tokens = dict.fromkeys(("dinov2_classifier", "dinov2_registers", "dinov3"), 56) | {"vit": 32, "dinov2": 32}
    assert {name: sizes[name] or SIDE for name in TOKENS} == tokens
    assert [sizes[name] for name in TIMM] == [28, 56, 64]
    for name in ("convnext", "dinov3_convnext", "resnet"):
        assert sizes[name] is None, "a convolutional network takes what comes"


def test_pixels_are_normalised_as_the_folder_says(folders: dict[str, Path]) -> None:
    for name in HUB:
        network = opened(name, folders)
        torch.testing.assert_close(network.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
        torch.testing.assert_close(network.std.flatten(), torch.tensor([0.4, 0.5, 0.6]))


def test_another_size_can_be_asked_for(folders: dict[str, Path]) -> None:
    given = {"classes": 10, "channels": 3, "size": SIDE, "pretrained": True}
    network = create_model(f"huggingface/{folders['dinov3']}", image_size=112, **given).eval()
    assert network.size == 112 and network(images()).pred.shape == (4, 10)
    (block, *_) = feature_info(network, images()).blocks
    assert block.shape == (1 + 4 + 64, 32)
    with pytest.raises(StillroomError) as caught:
        create_model(f"huggingface/{folders['vit']}", image_size=40, **given)
    assert caught.value.code == "SR-M305" and "40" in caught.value.why


def test_what_is_found_in_it(name: str, folders: dict[str, Path]) -> None:
    network = opened(name, folders)
    found = feature_info(network, images(2))
    assert network(images()).pred.shape == (4, 10) and len(network.head) == 1
    assert found.vector is not None and found.vector.tap == f"{network.head[0]}:in"
    if name in TOKENS or name in TIMM:
        assert len(found.blocks) == (4 if "dino" in name and name in HUB and name != "dinov2" else 2)
        last = network(images(), (found.blocks[-1].tap,)).taps[found.blocks[-1].tap]
        patches = TOKENS.get(name) or {28: 2, 56: 4, 64: 4}[network.size]
        prefix = last.shape[1] - patches**2
        assert prefix == (5 if "reg" in name or "dinov3" in name else 1)
        if prefix <= 2 * patches:
            placed = to_map(last)
            assert placed.shape[2:] == (patches, patches)
            assert torch.equal(placed[:, :, 0, 0], last[:, prefix]), "registers are no places"
    else:
        assert [len(stage.shape) for stage in found.stages] == [3] * len(found.stages) and len(found.stages) >= 3


@pytest.mark.parametrize("method", ["simreg", "fitnet", "at"])
def test_a_small_convolutional_student_learns_from_its_features(
    name: str, method: str, folders: dict[str, Path]
) -> None:
    torch.manual_seed(0)
    student, network, seen = create_model("resnet8", classes=10, channels=1, size=SIDE), opened(name, folders), images()
    teacher, made, keys = FrozenTeacher(network), pick("methods", method)(), torch.arange(4)
    method_setup.bind_taps(made, feature_info(student, seen), feature_info(network, seen), name=method)
    assert made.student_taps and made.teacher_taps
    made.setup(student(seen, made.student_taps), teacher((seen,), keys, made.teacher_taps))
    learner = Distiller(student, Classification(), {method: made}, {method: Weight(1.0), "task": Weight(0.0)})
    batch = Batch(images=seen, target=torch.arange(4), keys=keys)
    terms = learner(batch, teacher((seen,), keys, made.teacher_taps), 0.5)
    learner.total(terms, 0.5).backward()
    pulled = student.module.get_parameter("conv1.weight").grad
    assert all(value.isfinite() for value in terms.values()) and pulled.abs().sum() > 0


def test_half_precision_says_nearly_the_same(name: str, folders: dict[str, Path]) -> None:
    network = opened(name, folders)
    tap = feature_info(network, images(2)).stages[-1].tap
    asked = ((images(),), torch.arange(4), (tap,))
    whole, half = FrozenTeacher(network)(*asked), FrozenTeacher(network, precision=torch.bfloat16)(*asked)
    for one, other in ((whole.pred, half.pred), (whole.taps[tap], half.taps[tap])):
        assert other.dtype == torch.float32
        assert 0 < (one - other).abs().max() < 0.1 * one.abs().max()


@pytest.mark.parametrize("name", ["dinov2_registers", "dinov3", "dinov3_convnext", *list(TIMM)[:1]])
def test_a_new_head_on_frozen_features(name: str, folders: dict[str, Path]) -> None:
    """A linear probe on random features knows most digits; nothing but the head has moved."""
    data = build_data(Data(source="digits", size=SIDE))
    network = opened(name, folders)
    before = {key: value.clone() for key, value in network.weights().items()}
    small = data.splits["train"], data.splits["val"]
    right = linear_probe(network, *small, device=torch.device("cpu"))
    assert right > 0.5
    moved = {key.rpartition(".")[0] for key, value in network.weights().items() if not torch.equal(value, before[key])}
    assert moved == set(network.head)
    rows = np.arange(64)
    said = network(data.splits["val"].images(rows).float() / 255).pred.argmax(1).numpy()
    assert (said == data.splits["val"].labels[rows]).mean() > 0.5


@pytest.mark.parametrize("name", HEADLESS)
def test_a_backbone_is_never_taken_for_a_classifier(name: str, folders: dict[str, Path]) -> None:
    with pytest.raises(StillroomError) as caught:
        opened(name, folders, classes=None)
    assert caught.value.code == "SR-M316" and "head" in caught.value.fix
    assert opened(name, folders, output_kind="vector", classes=None).classes == 32


def test_a_classifier_keeps_its_classes(folders: dict[str, Path]) -> None:
    assert [opened(name, folders, classes=None).classes for name in ("vit", "dinov2_classifier", "resnet")] == [5] * 3


@torch.no_grad()
def test_logits_of_a_dinov3_are_a_linear_layer_of_its_summary_token(folders: dict[str, Path]) -> None:
    network = opened("dinov3", folders)
    vector = opened("dinov3", folders, output_kind="vector", classes=None)(images()).pred
    head = network.module.get_submodule("classifier")
    torch.testing.assert_close(network(images()).pred, vector @ head.weight.T + head.bias)
