"""`Network`: pixels in, logits and taps out; and names that make one."""

from __future__ import annotations

import collections
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from stillroom.errors import Exit, StillroomError
from stillroom.models import Network, create_model, list_models
from stillroom.models._logits import extract_logits


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """[2, 3, 48, 64] in 0..1: parts of scikit-learn's photo of a flower."""
    photo = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1) / 255
    return torch.stack([photo[:, 100:148, 200:264], photo[:, 200:248, 300:364]])


class Mean(nn.Module):
    """Mean of each channel, so that [B, C, H, W] -> [B, C]; parts to tap beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.relu, self.unused = nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Linear(1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.relu(self.norm(images)).mean((2, 3))


def identity(**arguments) -> Network:
    return Network(nn.Identity(), classes=3, **arguments)


# Pixels


def test_normalises(photos: Tensor) -> None:
    network = identity(mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0))
    wanted = torch.stack([(photos[:, 0] - 0.1) / 0.5, photos[:, 1] - 0.2, (photos[:, 2] - 0.3) / 2], 1)
    torch.testing.assert_close(network.preprocess(photos), wanted)
    assert torch.equal(network.preprocess(photos[:, :1]), network.preprocess(photos[:, :1].repeat(1, 3, 1, 1)))


def test_colour_becomes_grey_as_pillow_makes_it(photos: Tensor) -> None:
    grey = identity(channels=1, mean=(0.0,), std=(1.0,)).preprocess(photos)
    pixels = (photos * 255).round().byte().permute(0, 2, 3, 1).numpy()
    wanted = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in pixels])
    assert grey.shape == (2, 1, 48, 64)
    np.testing.assert_allclose(grey[:, 0].numpy() * 255, wanted, atol=0.51)  # Pillow rounds


@pytest.mark.parametrize("size", [16, 31, 96])
def test_resizes_as_pillow_does(size: int, photos: Tensor) -> None:
    resized = identity(size=size, mean=(0.0,), std=(1.0,)).preprocess(photos)
    for ours, plane in zip(resized[0], photos[0], strict=True):
        wanted = Image.fromarray(plane.numpy(), mode=None).resize((size, size), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(ours.numpy(), np.asarray(wanted), atol=2e-3)


def test_a_size_that_is_right_is_left_alone(photos: Tensor) -> None:
    square = photos[..., :48]
    network = identity(size=48, mean=(0.0,), std=(1.0,))
    assert torch.equal(network.preprocess(square), square)
    assert network.preprocess(photos).shape == (2, 3, 48, 48)


def test_three_numbers_for_a_grey_network_are_averaged() -> None:
    network = identity(channels=1, mean=(0.1, 0.2, 0.6), std=(0.2, 0.2, 0.5))
    assert network.mean.item() == pytest.approx(0.3) and network.std.item() == pytest.approx(0.3)


def test_statistics_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="above 0"):
        identity(std=(0.5, 0.0, 0.5))
    with pytest.raises(ValueError, match="3 channels need 3 numbers, not 2"):
        identity(mean=(0.5, 0.5))


def test_bytes_are_refused(photos: Tensor) -> None:
    with pytest.raises(TypeError, match="floating point"):
        identity()((photos * 255).byte())


def test_half_precision(photos: Tensor) -> None:
    network = create_model("resnet8", classes=3, channels=3, size=48).eval().bfloat16()
    assert network(photos).pred.dtype == torch.bfloat16


# Taps


def test_a_tap_is_kept_from_later_steps_in_place(photos: Tensor) -> None:
    network = Network(Mean(), classes=3).eval()
    said = network(photos, ("norm", "relu")).taps
    assert said["norm"].min() < 0 and torch.equal(said["relu"], said["norm"].relu())
    torch.testing.assert_close(said["norm"], network.preprocess(photos) / (1 + 1e-5) ** 0.5)


def test_gradients_pass_through_taps(photos: Tensor) -> None:
    network = Network(Mean(), classes=3)
    network(photos, ("norm",)).taps["norm"].square().mean().backward()
    assert network.module.norm.weight.grad.abs().min() > 0


def test_without_taps_there_is_no_hook(photos: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(Mean(), classes=3)
    monkeypatch.setattr(nn.Module, "register_forward_hook", None)
    assert network(photos).taps == {}
    with pytest.raises(TypeError):
        network(photos, ("norm",))


def test_a_part_that_never_runs(photos: Tensor) -> None:
    network = Network(Mean(), classes=3)
    with pytest.raises(StillroomError) as caught:
        network(photos, ("unused",))
    assert caught.value.code == "SR-M307" and "'unused'" in caught.value.what
    assert not network.module.unused._forward_hooks


def test_a_failing_forward_leaves_no_hook() -> None:
    network = Network(Mean(), classes=3)
    with pytest.raises(RuntimeError):
        network(torch.zeros(1, 5, 4, 4), ("norm",))
    assert not network.module.norm._forward_hooks


# What modules return


@dataclass
class Said:
    logits: Tensor
    hidden: Tensor | None = None


Auxiliary = collections.namedtuple("Auxiliary", ["logits", "aux_logits"])
X, Y = torch.eye(2), torch.ones(2, 2)


@pytest.mark.parametrize(
    "said",
    [X, Said(X, Y), Auxiliary(X, Y), (X, Y), [X], (Said(X), Y), {"aux": Y, "out": X}, {"logits": X}, {"pred": X}],
    ids=lambda said: type(said).__name__,
)
def test_logits_are_found(said) -> None:
    assert extract_logits(said) is X


@pytest.mark.parametrize("said", [None, {}, {"hidden": X}, (), [None], "logits", Said(None)], ids=str)
def test_where_there_are_no_logits(said) -> None:
    with pytest.raises(TypeError, match="no logits"):
        extract_logits(said)


def test_a_module_in_the_manner_of_hugging_face(photos: Tensor) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))

        def forward(self, images: Tensor) -> Said:
            return Said(self.inner(images), images)

    output = Network(Wrapped(), classes=4)(photos, ("inner", "inner.1"))
    assert torch.equal(output.pred, output.taps["inner"]) and output.taps["inner.1"].shape == (2, 3)


def test_auxiliary_heads_in_training_mode_are_dropped() -> None:
    network = create_model("torchvision/googlenet", classes=4, channels=3, size=64).train()
    assert network(torch.rand(2, 3, 64, 64)).pred.shape == (2, 4)


# Names


def test_a_distilled_deit_has_two_heads() -> None:
    arguments = {"img_size": 32, "patch_size": 16, "depth": 1}
    network = create_model("timm/deit_tiny_distilled_patch16_224", classes=4, channels=3, size=32, **arguments)
    assert network.head == ("head", "head_dist") and len(network.heads()) == 2
    assert network(torch.rand(2, 3, 32, 32)).pred.shape == (2, 4)


def test_a_vit_keeps_its_own_size_and_a_cnn_takes_the_datas() -> None:
    sizes = {
        name: create_model(name, classes=4, channels=3, size=28).size
        for name in ("timm/test_vit", "timm/test_resnet", "timm/test_convnext", "torchvision/shufflenet_v2_x0_5")
    }
    assert sizes["timm/test_vit"] == 160  # made for 160 px, and no other
    assert sizes["timm/test_convnext"] == 32  # 28 px are too few: enlarged, but not to its 160
    assert sizes["timm/test_resnet"] is None and sizes["torchvision/shufflenet_v2_x0_5"] is None
    assert create_model("timm/test_vit", classes=4, channels=3, size=28, img_size=32).size == 32


def test_who_says_how_pixels_are_normalised() -> None:
    given = {"mean": (0.1, 0.2, 0.3), "std": (0.2, 0.3, 0.4)}
    for name in ("timm/test_vit", "resnet8", "stillroom.models.resnet:CifarResNet"):
        network = create_model(name, classes=4, channels=3, size=32, **given)
        assert network.mean.flatten().tolist() == pytest.approx(given["mean"])
        assert network.std.flatten().tolist() == pytest.approx(given["std"])
    assert create_model("timm/test_vit", classes=4, channels=1, size=32).mean.flatten().tolist() == [
        0.5
    ]  # timm's own word


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("timm/mobilnetv2_100", "'timm/mobilenetv2_100'"),
        ("torchvision/mobilenet_v3_smal", "'torchvision/mobilenet_v3_small'"),
        ("convnext_atto", "'timm/convnext_atto'"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(StillroomError) as caught:
        create_model(wrong, classes=4, channels=3, size=32)
    assert caught.value.code == "SR-M303" and caught.value.exit is Exit.MODEL
    assert f"did you mean {right}?" in caught.value.what


@pytest.mark.parametrize(
    "name", ["timm/hf-hub:someone/model", "timm/local-dir:/tmp", "timm/", "nothing", "/etc:passwd"]
)
def test_names_that_stand_for_nothing(name: str) -> None:
    with pytest.raises(StillroomError) as caught:
        create_model(name, classes=4, channels=3, size=32)
    assert caught.value.code == "SR-M303"


def test_a_tag_that_is_none() -> None:
    with pytest.raises(StillroomError, match=r"vit_tiny_patch16_224\.augreg_in21k") as caught:
        create_model("timm/vit_tiny_patch16_224.augreg_in22k", classes=4, channels=3, size=32)
    assert caught.value.code == "SR-M308"


def test_the_short_list_and_the_search() -> None:
    short = list_models()
    assert {"resnet8", "resnet110", "timm/NAME", "torchvision/NAME", "package.module:Name"} <= set(short)
    assert len(short) < 30
    assert {"timm/mobilenetv2_100", "torchvision/mobilenet_v2"} <= set(list_models("mobilenet"))


# One's own code

OWN = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self, num_classes, in_chans, width=4):
        super().__init__()
        self.body = nn.Conv2d(in_chans, width, 3, padding=1)
        self.tail = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.tail(self.body(x).mean((2, 3)))

def colour_only(classes):
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, classes))

def stubborn():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 7))

def feature_map(classes):
    return nn.Conv2d(3, classes, 1)

def text():
    return "not a module"

number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    package = tmp_path / "ownmodels"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "small.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "ownmodels.small"
    for name in [name for name in sys.modules if name.startswith("ownmodels")]:
        del sys.modules[name]


def test_ones_own_module_gets_what_its_signature_asks_for(own: str) -> None:
    network = create_model(f"{own}:Small", classes=6, channels=1, size=12, width=9)
    assert network.module.tail.weight.shape == (6, 9) and network.module.body.in_channels == 1
    assert network.head == ("tail",)


def test_a_module_of_colour_gets_grey_repeated(own: str) -> None:
    network = create_model(f"{own}:colour_only", classes=6, channels=1, size=12)
    assert network.channels == 3 and network(torch.rand(2, 1, 12, 12)).pred.shape == (2, 6)


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("stubborn", "SR-M305", "it has 7 outputs, and the data 6 classes"),
        ("feature_map", "SR-M305", "shape (1, 6, 12, 12), not (1, K)"),
        ("text", "SR-M304", "a str, not a torch.nn.Module"),
        ("number", "SR-M304", "3 is not a callable object"),
        ("Absent", "SR-M309", "has no attribute 'Absent'"),
    ],
)
def test_ones_own_mistakes(own: str, name: str, code: str, says: str) -> None:
    with pytest.raises(StillroomError) as caught:
        create_model(f"{own}:{name}", classes=6, channels=3, size=12)
    assert caught.value.code == code and says in caught.value.why


def test_a_package_that_is_not_there() -> None:
    with pytest.raises(StillroomError, match="No module named 'nopackage'") as caught:
        create_model("nopackage.models:Net", classes=6, channels=3, size=12)
    assert caught.value.code == "SR-M309"


# No network


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No name resolves, and no earlier download is found."""

    def nowhere(*arguments, **options):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))


@pytest.mark.parametrize("name", ["timm/test_vit", "torchvision/shufflenet_v2_x0_5"])
def test_trained_weights_without_a_network(name: str, offline: None) -> None:
    with pytest.raises(StillroomError) as caught:
        create_model(name, classes=4, channels=3, size=32, pretrained=True)
    assert caught.value.code == "SR-N801" and caught.value.exit is Exit.MODEL and name in caught.value.values["file"]


def test_hugging_faces_own_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(StillroomError) as caught:
        create_model("timm/test_vit2", classes=4, channels=3, size=32, pretrained=True)
    assert caught.value.code == "SR-N801"


# Taken elsewhere


def test_plain_timm_loads_what_we_save() -> None:
    import timm

    network = create_model("timm/test_vit", classes=4, channels=3, size=32, img_size=32).eval()
    plain = timm.create_model("test_vit", num_classes=4, img_size=32).eval()
    plain.load_state_dict(network.weights(), strict=True)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain(network.preprocess(images)), network(images).pred)


def test_torch_exports_it_with_any_number_of_images() -> None:
    network = create_model("resnet8", classes=4, channels=3, size=12).eval()
    shapes = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(network, (torch.rand(2, 1, 12, 12),), dynamic_shapes=shapes)
    images = torch.rand(5, 1, 12, 12)
    torch.testing.assert_close(program.module()(images).pred, network(images).pred)


@pytest.mark.parametrize(("shape", "size"), [((48, 64), 32), ((48, 48), 80)])
def test_onnxruntime_gives_the_same_values_with_the_resize(
    shape: tuple[int, int], size: int, photos: Tensor, tmp_path: Path
) -> None:
    network = Network(Mean(), classes=3, size=size, mean=(0.4,), std=(0.3,)).eval()
    images, path = photos[..., : shape[0], : shape[1]], tmp_path / "network.onnx"
    shapes = {"images": {0: "batch"}}
    torch.onnx.export(network, (images,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    five = torch.cat([images, images.flip(3), images[:1] / 2])
    (said,) = session.run(None, {session.get_inputs()[0].name: five.numpy()})
    np.testing.assert_allclose(said, network(five).pred.detach().numpy(), atol=1e-5)


def test_importing_imports_no_library_and_the_names_shadow_none() -> None:
    code = """
import sys, stillroom.models as models
assert not {"timm", "torchvision", "onnx"} & set(sys.modules)
models.list_models(), models.find_family("timm/test_vit"), models.create_model("resnet8", classes=2, channels=1, size=8)
assert not {"timm", "torchvision", "onnx"} & set(sys.modules)
models.list_models("mobilenet")
import timm, torchvision
assert "stillroom" not in timm.__file__ + torchvision.__file__
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
