"""A ViT with a distillation token: what is added, what it answers, whose weights it has."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from kit.training import digits
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled

from stillroom.errors import StillroomError
from stillroom.models import Network, create_model, restore
from stillroom.training.linear_probe import linear_probe

SIZES = {"img_size": 32, "patch_size": 8, "depth": 2}
DEIT = "timm/deit_tiny_distilled_patch16_224"


def make(name: str = "timm/vit_tiny_patch16_224", *, classes: int = 5, **arguments) -> Network:
    torch.manual_seed(0)
    return create_model(name, classes=classes, channels=3, size=32, **(SIZES | {"distilled": True} | arguments))


def count(network: Network) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("classes", [5, 17])
@pytest.mark.parametrize(("name", "width"), [("timm/vit_tiny_patch16_224", 192), ("timm/test_vit", 64)])
def test_exactly_a_token_its_position_and_a_head_are_added(name: str, width: int, classes: int) -> None:
    """The parameters grow by D + D + (D + 1) K."""
    plain, more = (make(name, classes=classes, distilled=on) for on in (False, True))
    assert count(more) - count(plain) == width + width + (width + 1) * classes


def test_apart_in_training_and_exactly_the_mean_in_evaluation(images: torch.Tensor) -> None:
    """Training has cls and dist, eval (cls + dist) / 2 exactly; apart for who taps the second."""
    network = make()
    module = network.module
    pixels = network.preprocess(images)
    tokens = module.forward_features(pixels)
    said, distilled = module.head(tokens[:, 0]), module.head_dist(tokens[:, 1])
    seen = network.train()(images, ("head_dist",))
    assert torch.equal(seen.pred, said) and torch.equal(seen.taps["head_dist"], distilled)
    assert not torch.allclose(said, distilled, atol=1e-3)
    assert torch.equal(network.eval()(images, ("head_dist",)).pred, (said + distilled) / 2)
    assert torch.equal(network.train()(images).pred, (said + distilled) / 2)


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", DEIT])
def test_the_token_is_seen_and_learns(name: str, images: torch.Tensor) -> None:
    network = make(name).train()
    with torch.no_grad():
        before = network(images).pred
        network.module.dist_token.normal_()
        assert not torch.allclose(network(images).pred, before, atol=1e-4)
    network(images, ("head_dist",)).pred.square().sum().backward()
    assert network.module.dist_token.grad.abs().sum() > 0 and network.module.pos_embed.grad[:, 1].abs().sum() > 0
    assert network.module.head_dist.weight.grad is None


def test_the_state_dict_is_that_of_timms_own(images: torch.Tensor) -> None:
    network = make().eval()
    plain = VisionTransformerDistilled(num_classes=5, embed_dim=192, num_heads=3, **SIZES).eval()
    plain.load_state_dict(network.weights(), strict=True)
    assert network.module.pos_embed.shape == (1, 16 + 2, 192)
    with torch.no_grad():
        pixels = network.preprocess(images)
        torch.testing.assert_close(network(images).pred, plain(pixels), rtol=1e-6, atol=1e-6)
        torch.nn.init.normal_(plain.pos_embed)
        network.module.load_state_dict(plain.state_dict(), strict=True)
        torch.testing.assert_close(network(images).pred, plain(pixels), rtol=1e-6, atol=1e-6)
        wanted = plain.train()
        wanted.set_distilled_training(True)
        said = network.train()(images, ("head", "head_dist"))
        torch.testing.assert_close(tuple(said.taps.values()), wanted(pixels), rtol=1e-6, atol=1e-6)


def test_everything_else_of_the_vit_stays_as_it_was() -> None:
    plain, more = make(distilled=False).module, make().module
    own, theirs = more.state_dict(), plain.state_dict()
    for name in theirs.keys() - {"pos_embed"}:
        assert torch.equal(own[name], theirs[name]), name
    assert torch.equal(own["pos_embed"][:, [0, *range(2, 18)]], theirs["pos_embed"])


def test_timms_own_distilled_models_answer_the_same_way(images: torch.Tensor) -> None:
    """With `distilled = true` or without: a mean, until a method taps the second head."""
    network = make(DEIT)
    assert isinstance(network.module, VisionTransformerDistilled) and network.head == ("head", "head_dist")
    seen = network.train()(images, ("head", "head_dist"))
    assert torch.equal(seen.pred, seen.taps["head"])
    mean = (seen.taps["head"] + seen.taps["head_dist"]) / 2
    assert torch.equal(network.eval()(images).pred, mean)
    plain = make(DEIT, distilled=False).train()
    assert torch.equal(plain(images).pred, mean) and torch.equal(plain(images, ("head_dist",)).pred, seen.pred)


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", DEIT])
def test_saved_weights_come_back_exactly(name: str, images: torch.Tensor, tmp_path) -> None:
    network, path = make(name).eval(), tmp_path / "student.safetensors"
    save_file(network.weights(), path, metadata=network.metadata())
    torch.manual_seed(1)
    common = {"channels": 3, "size": 32, "distilled": True} | SIZES
    again = restore(name, path, classes=None, **common).eval()
    with torch.no_grad():
        assert torch.equal(again(images).pred, network(images).pred)
    assert again.head == ("head", "head_dist") and again.classes == 5
    refit = restore(name, path, classes=7, head="replace", **common).eval()
    assert refit(images).pred.shape == (3, 7)
    assert torch.equal(refit.module.dist_token, network.module.dist_token)
    with pytest.raises(StillroomError) as caught:
        restore(name, path, classes=7, **common)
    assert caught.value.code == "SR-M301"


def test_both_heads_are_fitted() -> None:
    """`finetune = "head"` fits each classifier on the token that it reads."""
    data = digits()
    torch.manual_seed(0)
    arguments = {"img_size": 8, "patch_size": 2, "depth": 2, "distilled": True}
    network = create_model("timm/vit_tiny_patch16_224", classes=10, channels=1, size=8, **arguments).eval()
    train, val = data.splits["train"], data.splits["val"]
    found = linear_probe(network, train, val, device=torch.device("cpu"))
    images = val.images(np.arange(len(val))).float() / 255
    with torch.no_grad():
        tokens = network.module.forward_features(network.preprocess(images))
        scores = [(head(tokens[:, i]).argmax(1).numpy() == val.labels).mean() for i, head in enumerate(network.heads())]
    assert len(scores) == 2 and min(scores) > 0.5 and max(scores) == pytest.approx(found)  # chance is 0.1


def test_registers_positions_and_dropped_patches(images: torch.Tensor) -> None:
    """Behind the prefix stand as many patches as timm keeps; a prefix without positions gets no new one."""
    network = make("timm/vit_small_patch14_reg4_dinov2", img_size=28, patch_size=14)
    assert network.module.pos_embed.shape == (1, 4, 384)
    assert network.module.forward_features(torch.rand(2, 3, 28, 28)).shape == (2, 2 + 4 + 4, 384)
    placed = make("timm/test_vit", reg_tokens=3)
    assert placed.module.pos_embed.shape == (1, 2 + 3 + 16, 64)
    assert placed.module.forward_features(torch.rand(2, 3, 32, 32)).shape == (2, 2 + 3 + 16, 64)
    dropped = make(patch_drop_rate=0.5).train()
    assert dropped.module.patch_drop.num_prefix_tokens == 2
    assert dropped.module.forward_features(torch.rand(2, 3, 32, 32)).shape == (2, 2 + 8, 192)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("timm/test_resnet", {}, "only a plain ViT"),
        ("timm/vit_tiny_patch16_224", {"img_size": 32, "global_pool": "avg"}, "its classifier uses 'avg'"),
        ("timm/vit_base_patch16_siglip_224", {"img_size": 32, "depth": 1}, "only a plain ViT with a class token"),
    ],
)
def test_where_there_is_no_place_for_a_token(name: str, arguments: dict, says: str) -> None:
    with pytest.raises(StillroomError, match=says) as caught:
        create_model(name, classes=5, channels=3, size=32, distilled=True, **arguments)
    assert caught.value.code == "SR-M304"


@pytest.mark.parametrize("no_embed_class", [False, True])
def test_any_size_where_the_vit_takes_any(no_embed_class: bool) -> None:
    """Positions are stretched as timm does it, the prefix left out."""
    arguments = {"dynamic_img_size": True, "no_embed_class": no_embed_class}
    network = make(**arguments).eval()
    plain = VisionTransformerDistilled(num_classes=5, embed_dim=192, num_heads=3, **SIZES, **arguments).eval()
    if no_embed_class:  # timm's own makes positions for the prefix all the same, and then can't add them
        plain.pos_embed = torch.nn.Parameter(torch.empty(1, 16, 192))
    plain.load_state_dict(network.weights(), strict=True)
    with torch.no_grad():
        for side in (32, 48):
            pixels = torch.randn(2, 3, side, side)
            torch.testing.assert_close(network.module(pixels), plain(pixels), rtol=1e-6, atol=1e-6)


def test_it_is_exported_with_any_number_of_images() -> None:
    network = make().eval()
    shapes = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(network, (torch.rand(2, 3, 32, 32),), dynamic_shapes=shapes)
    images = torch.rand(5, 3, 32, 32)
    torch.testing.assert_close(program.module()(images).pred, network(images).pred)


def test_plain_timm_is_left_alone() -> None:
    assert not hasattr(timm.create_model("test_vit", num_classes=3), "dist_token")
    assert not hasattr(make(distilled=False).module, "dist_token")
