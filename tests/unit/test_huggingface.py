"""What the family of Hugging Face's models takes, changes and refuses."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from kit.hub import saved

from stillroom.errors import StillroomError
from stillroom.models import Network, create_model, find_family, list_models

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of 5 classes."""
    folder = tmp_path_factory.mktemp("vit")
    saved("vit", folder)
    return folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RT-DETR of 3 classes."""
    folder = tmp_path_factory.mktemp("rt_detr")
    saved("rt_detr", folder)
    return folder


def make(name: object, output_kind: str = "classes", classes: int | None = None, size: int = 32, **given) -> Network:
    return create_model(f"huggingface/{name}", classes=classes, channels=3, size=size, output_kind=output_kind, **given)


def refused(*given, **named) -> StillroomError:
    with pytest.raises(StillroomError) as caught:
        make(*given, **named)
    return caught.value


def test_names() -> None:
    assert find_family("huggingface/any/name").example.startswith("huggingface/")
    assert "huggingface/NAME" in list_models()
    assert {"huggingface/rt_detr", "huggingface/rt_detr_v2"} <= set(list_models("huggingface/rt_detr"))
    assert "huggingface/dinov2" in list_models("huggingface/dino")
    assert not [name for name in list_models("huggingface/") if name.endswith(("/bert", "/timm_wrapper"))]


def test_a_folder_without_trained_weights_is_its_settings(folder: Path) -> None:
    trained, fresh = make(folder, pretrained=True), make(folder)
    assert [tuple(v.shape) for v in fresh.weights().values()] == [tuple(v.shape) for v in trained.weights().values()]
    assert not torch.equal(fresh.weights()["classifier.weight"], trained.weights()["classifier.weight"])


def test_other_classes_mean_a_new_head_and_nothing_else(folder: Path) -> None:
    trained, refit = make(folder, pretrained=True).weights(), make(folder, classes=7, pretrained=True)
    assert refit.classes == 7
    other = {key for key, value in refit.weights().items() if not torch.equal(value, trained.get(key, value[:0]))}
    assert other == {"classifier.weight", "classifier.bias"}


def test_a_detectors_classes_are_new_with_all_that_depends_on_them(detector: Path) -> None:
    trained = make(detector, "boxes", size=64, pretrained=True)
    refit = make(detector, "boxes", classes=4, size=64, pretrained=True)
    assert (refit.classes, refit.head[0]) == (4, "model.decoder.class_embed.1")
    before = trained.weights()
    other = {key.rpartition(".")[0] for key, value in refit.weights().items() if value.shape != before[key].shape}
    assert other == set(refit.head)
    same = [key for key, value in refit.weights().items() if torch.equal(value, before[key])]
    assert len(same) == len(before) - 2 * len(refit.head) + 1  # all but weights and biases; an embedding has no bias
    with torch.no_grad():
        assert refit.eval()(torch.rand(2, 3, 64, 64)).pred.shape == (2, 12, 8)


def test_a_detector_learns_without_the_librarys_labels(detector: Path) -> None:
    network = make(detector, "boxes", size=64, pretrained=True).train()
    assert network.trunk == ("model.backbone", "model.encoder")
    pred = network(torch.rand(2, 3, 64, 64)).pred
    assert pred.shape == (2, 12, 7)
    pred.square().mean().backward()
    reached = {name for name, parameter in network.module.named_parameters() if parameter.grad is not None}
    for part in ("model.backbone", "model.encoder.", "model.decoder.layers.0", "model.decoder.class_embed.1"):
        assert any(name.startswith(part) for name in reached), part
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_boxes_are_corners_in_shares_and_float32_in_mixed_precision(detector: Path) -> None:
    network, seen = make(detector, "boxes", size=64, pretrained=True).eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        pred = network(seen).pred
    assert pred.dtype == torch.float32
    assert (pred[..., :2] <= pred[..., 2:4]).all() and pred[..., :4].abs().max() < 2


def test_the_decoder_stays_in_single_precision(detector: Path) -> None:
    network, seen = make(detector, "boxes", size=64, pretrained=True).eval(), torch.rand(2, 3, 64, 64)
    inside = ("model.encoder_input_proj.0.0", "model.decoder.layers.0.self_attn.q_proj", "model.decoder.bbox_embed.1")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):  # mixed precision goes on behind the decoder, and in the next pass
            kinds = [tap.dtype for tap in network(seen, inside).taps.values()]
            assert kinds == [torch.bfloat16, torch.float32, torch.float32]
            assert torch.is_autocast_enabled("cpu")
    decoder = network.module.get_submodule("model.decoder")
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(AttributeError):
            decoder()  # nothing to decode: it fails inside
        assert torch.is_autocast_enabled("cpu") and not decoder.suspended


def test_arguments_change_settings_and_those_inside(detector: Path) -> None:
    given = {"num_queries": 5, "backbone_config": {"hidden_sizes": [8, 24, 32, 40], "embedding_size": 8}}
    network = make(detector, "boxes", size=64, **given).eval()
    assert network.module.config.backbone_config.depths == [1, 1, 1, 1]  # what the table does not name stays
    assert network.module.config.backbone_config.hidden_sizes == [8, 24, 32, 40]
    with torch.no_grad():
        assert network(torch.rand(1, 3, 64, 64)).pred.shape == (1, 5, 7)


def test_a_kind_begins_with_nothing() -> None:
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2, "patch_size": 8}
    network = make("dinov2", "vector", image_size=32, **tiny)
    assert (network.classes, network.output_kind, network.training) == (16, "vector", True)
    assert refused("dinov2", "vector", pretrained=True).code == "SR-M308"


def test_one_channel(folder: Path) -> None:
    network = create_model(f"huggingface/{folder}", classes=3, channels=1, size=32, num_channels=1)
    assert network.channels == 1
    assert network(torch.rand(2, 1, 32, 32)).pred.shape == (2, 3)


def test_pixels_are_normalised_as_the_folder_says(tmp_path: Path) -> None:
    saved("vit", tmp_path, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], size={"height": 48, "width": 48})
    trained = make(tmp_path, pretrained=True, mean=(0.9,), std=(0.9,))
    torch.testing.assert_close(trained.mean.flatten(), torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(trained.std.flatten(), torch.tensor([0.4, 0.5, 0.6]))
    assert make(tmp_path, mean=(0.9,), std=(0.8,)).std.flatten().tolist() == pytest.approx([0.8] * 3)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "image_mean": [0.5] * 3}))
    plain = make(tmp_path, pretrained=True)
    assert plain.mean.abs().max() == 0 and torch.equal(plain.std, torch.ones(3, 1, 1))


def test_a_copy_answers_alike(detector: Path) -> None:
    network, seen = make(detector, "boxes", size=64, pretrained=True).eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(network)(seen).pred, network(seen).pred)


def test_it_is_silent(folder: Path, capfd: pytest.CaptureFixture) -> None:
    make(folder, classes=9, pretrained=True)
    assert capfd.readouterr() == ("", "")


def test_wrong_arguments(folder: Path) -> None:
    wrong = refused(folder, hiden_size=3)
    assert wrong.code == "SR-M304" and "did you mean 'hidden_size'" in str(wrong)
    assert refused(folder, hidden_size="many").code == "SR-M304"


def test_no_such_model(tmp_path: Path) -> None:
    assert "no config.json" in str(refused(tmp_path))
    for name in (tmp_path, tmp_path / "none", "rt_detrr", "./none", "a/b/c"):
        assert refused(name).code == "SR-M351", name
    assert "did you mean 'rt_detr'" in str(refused("rt_detrr"))


def test_a_kind_that_cannot_say_it(folder: Path) -> None:
    wrong = refused(folder, "boxes")
    assert wrong.code == "SR-M352" and "vit" in wrong.what and "rt_detr" in wrong.fix
    assert refused("segformer", "boxes").code == "SR-M352"
    assert refused("timm_wrapper").code == "SR-M352"


def test_weights_of_another_model_never_pass_silently(folder: Path, detector: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((detector / "model.safetensors").read_bytes())
    strange = refused(tmp_path, pretrained=True)
    assert strange.code == "SR-M308" and "lacks" in strange.why
    wider = refused(folder, pretrained=True, intermediate_size=64)
    assert wider.code == "SR-M308" and "64" in wider.why


def test_only_safetensors_are_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    assert refused(tmp_path, pretrained=True).code == "SR-M308"


def test_code_beside_a_model_is_not_run(tmp_path: Path) -> None:
    settings = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n")
    assert refused(tmp_path, pretrained=True).code == "SR-M308"
    assert not (tmp_path / "ran").exists()


def test_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    missing = refused("nobody/no-such-model", pretrained=True)
    assert missing.code == "SR-N801" and "huggingface/nobody/no-such-model" in missing.what


def test_the_package_is_optional(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in [known for known in sys.modules if known.partition(".")[0] == "transformers"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert refused(folder).code == "SR-M350"
    assert find_family(f"huggingface/{folder}").names("vit") == []
