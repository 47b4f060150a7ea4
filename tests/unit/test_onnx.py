"""An ONNX file as a teacher: what it answers, what it costs, what it can't do, and files that are not to be opened."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from kit.onnx_teachers import FLOAT, HALF, change, classifier, numbers, write
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from stillroom.errors import StillroomError
from stillroom.export.onnx import ONNX
from stillroom.matching.feature_info import feature_info
from stillroom.matching.layer_pairs import find_pairs
from stillroom.models import Network, _onnx_program, create_model, flops, restore
from stillroom.models.network import IMAGENET

CLASSES = tuple("0123456789")


def opened(path: Path, *, classes: int | None = 10, size: int = 32, channels: int = 3, **more) -> Network:
    return restore("onnx", path, classes=classes, channels=channels, size=size, **more).eval()


def refused(path: Path, **more) -> StillroomError:
    with pytest.raises(StillroomError) as caught:
        opened(path, **more)
    return caught.value


def images(count: int = 5, side: int = 32, channels: int = 3) -> Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1))


def alone(path: Path, pixels: Tensor) -> Tensor:
    """What onnxruntime says by itself, image by image."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return torch.cat([torch.from_numpy(session.run(None, {name: one[None].numpy()})[0]) for one in pixels]).float()


def normalised(pixels: Tensor, statistics=IMAGENET) -> Tensor:
    mean, std = (torch.tensor(part).view(-1, 1, 1) for part in statistics)
    return (pixels - mean) / std


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return classifier(tmp_path / "teacher.onnx")


# Answers


@pytest.mark.parametrize(
    ("pixels", "statistics"),
    [
        (None, IMAGENET),
        ("imagenet", IMAGENET),
        ("symmetric", ((0.5,), (0.5,))),
        ("plain", ((0.0,), (1.0,))),
        ("bytes", ((0.0,), (1 / 255,))),
        ([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]], ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))),
    ],
)
def test_pixels_are_normalised_as_the_recipe_says(file: Path, pixels, statistics) -> None:
    network = opened(file, **({"pixels": pixels} if pixels else {}))
    torch.testing.assert_close(network(images()).pred, alone(file, normalised(images(), statistics)))


def test_wrong_arguments(file: Path) -> None:
    wrong = refused(file, pixels="imagnet")
    assert wrong.code == "SR-M304" and "did you mean 'imagenet'" in wrong.why
    assert refused(file, pixels=[[0.5]]).code == refused(file, banana=1).code == "SR-M304"


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("axis", ["B", 1, 4])
def test_an_answer_does_not_depend_on_the_batch(tmp_path: Path, axis, threads: int) -> None:
    """Bit for bit: whole, in pieces, one by one, and in another order."""
    network = opened(classifier(tmp_path / "teacher.onnx", images=(axis, 3, 32, 32)))
    seen, before = images(9), torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        whole = network(seen).pred
        assert network.module._opened().get_session_options().intra_op_num_threads == threads
        for parts in ([1] * 9, [4, 4, 1], [7, 2]):
            assert torch.equal(torch.cat([network(part).pred for part in seen.split(parts)]), whole), parts
        order = torch.tensor([3, 8, 0, 1, 7, 2, 6, 5, 4])
        assert torch.equal(network(seen[order]).pred, whole[order])
    finally:
        torch.set_num_threads(before)
    assert network(seen[:0]).pred.shape == (0, 10)


def test_a_file_that_scales_by_the_batch_is_asked_image_by_image(tmp_path: Path) -> None:
    tensors = [numbers("w", 3072, 10), numpy_helper.from_array(np.float32(0.1), "s")]
    tensors += [numpy_helper.from_array(np.random.default_rng(0).integers(-9, 9, (3072, 10)).astype(np.int8), "q")]
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("DynamicQuantizeLinear", ["flat"], ["short", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["short", "q", "zero"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["large"], to=FLOAT),
        helper.make_node("Mul", ["large", "scale"], ["logits"]),
    ]
    path = write(tmp_path / "dynamic.onnx", nodes, tensors[1:])
    network, seen = opened(path, pixels="plain"), images(4) * torch.tensor([0.1, 1.0, 0.5, 0.9]).view(4, 1, 1, 1)
    assert network.module._facts.batch == 1
    assert torch.equal(network(seen).pred, alone(path, seen))
    fixed = write(tmp_path / "fixed.onnx", nodes, tensors[1:], images=(4, 3, 32, 32), outputs={"logits": (4, 10)})
    assert "depends on this image alone" in refused(fixed).why


def test_images_are_brought_to_the_files_size(tmp_path: Path) -> None:
    path = classifier(tmp_path / "teacher.onnx", images=("B", 3, 48, 48))
    network = opened(path)
    assert network.size == 48
    large = torch.nn.functional.interpolate(images(), (48, 48), mode="bilinear", antialias=True)
    torch.testing.assert_close(network(images()).pred, alone(path, normalised(large)))


def test_a_free_size_is_the_datas_or_the_next_that_runs(tmp_path: Path) -> None:
    free = classifier(tmp_path / "free.onnx", images=("B", 3, "H", "W"))
    assert opened(free).size is None
    tensors = [numbers("w", 4, 3, 64, 64)]
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["maps"], strides=[64, 64]),
        helper.make_node("GlobalAveragePool", ["maps"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["logits"]),
    ]
    patches = write(tmp_path / "patches.onnx", nodes, tensors, images=("B", 3, "H", "W"), outputs={"logits": ("B", 4)})
    assert opened(patches, classes=4).size == 64 and opened(patches, classes=4, size=70).size is None


def test_channels_last_are_turned(tmp_path: Path) -> None:
    tensors = [numbers("v", 3, 10)]
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0, axes=[1, 2]),
        helper.make_node("MatMul", ["mean", "v"], ["logits"]),
    ]
    nodes[0] = helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=0)
    tensors.append(numpy_helper.from_array(np.array([1, 2]), "axes"))
    path = write(tmp_path / "last.onnx", nodes, tensors, images=("B", 32, 32, 3))
    network = opened(path)
    assert (network.size, network.channels) == (32, 3)
    torch.testing.assert_close(network(images()).pred, alone(path, normalised(images()).permute(0, 2, 3, 1)))


def test_grey_images_and_half_precision(tmp_path: Path) -> None:
    path = classifier(tmp_path / "half.onnx", kind=HALF)
    network, grey = opened(path, channels=1), images(3, channels=1)
    said = network(grey).pred
    assert said.dtype == torch.float32 and network.channels == 3
    torch.testing.assert_close(said, alone(path, normalised(grey.expand(-1, 3, -1, -1)).half()), rtol=1e-3, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(grey).pred, said)


def test_a_file_of_this_program_brings_its_own_pixels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = create_model("resnet8", classes=10, channels=1, size=8, mean=(0.3,), std=(0.4,)).eval()
    path = ONNX().write(student, tmp_path / "student.onnx", example=images(1, 8, 1), classes=CLASSES)
    network = opened(path, channels=1, size=8)
    torch.testing.assert_close(network(images(4, 8, 1)).pred, student(images(4, 8, 1)).pred, rtol=1e-4, atol=1e-5)
    assert flops.macs(network, (1, 8, 8)) == flops.macs(student, (1, 8, 8))
    wrong = refused(path, channels=1, size=8, output_kind="vector", classes=None)
    assert wrong.code == "SR-M364" and "it says classes" in wrong.what


def test_the_output_that_is_meant(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("MatMul", ["features", "v"], ["logits"]),
        helper.make_node("MatMul", ["features", "u"], ["other"]),
        helper.make_node("Conv", ["images", "w"], ["places"], strides=[8, 8]),
    ]
    tensors = [numbers("v", 3, 10), numbers("u", 3, 10, seed=1), numbers("w", 4, 3, 8, 8)]
    outputs = {"features": ("B", 3), "other": ("B", 10), "logits": ("B", 10), "places": ("B", 4, 4, 4)}
    path = write(tmp_path / "many.onnx", nodes, tensors, outputs=outputs)
    features = normalised(images()).mean((2, 3))
    v, u = (torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in tensors[:2])
    torch.testing.assert_close(opened(path)(images()).pred, features @ v)
    torch.testing.assert_close(opened(path, output="other")(images()).pred, features @ u)
    vector = opened(path, output_kind="vector", classes=None)
    torch.testing.assert_close(vector(images(), ("vector",)).taps["vector"], features)
    assert (vector.classes, vector.head) == (3, ("vector",))
    dense = opened(path, output_kind="pixels", classes=4)
    assert dense(images()).pred.shape == (5, 4, 32, 32)
    wrong = refused(path, output="places")
    assert (
        wrong.code == "SR-M364" and "features [B, 3], other [B, 10], logits [B, 10], places [B, 4, 4, 4]" in wrong.why
    )
    assert refused(path, output="none").code == "SR-M364"
    assert refused(path, output_kind="boxes").code == "SR-M315"


# What it is


def test_copies_answer_alike_and_two_files_are_two_states(file: Path, tmp_path: Path) -> None:
    network, seen = opened(file), images()
    said = network(seen).pred
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), opened(file)):
        assert torch.equal(again(seen).pred, said)
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert bytes(network.state_dict()["module.sha256"].tolist()).hex() == digest
    other = change(classifier(tmp_path / "other.onnx"), lambda model: setattr(model, "doc_string", "another"))
    assert not torch.equal(opened(other).state_dict()["module.sha256"], network.state_dict()["module.sha256"])
    network.to("cpu").to(memory_format=torch.channels_last).half()
    assert bytes(network.state_dict()["module.sha256"].tolist()).hex() == digest


def test_the_file_may_go_once_it_is_open(file: Path) -> None:
    network = opened(file)
    file.write_bytes(b"")
    assert copy.deepcopy(network)(images()).pred.shape == (5, 10)


def test_it_costs_what_its_operators_cost(file: Path, tmp_path: Path) -> None:
    network = opened(file)
    assert flops.macs(network, (3, 32, 32)) == 16 * 16 * 8 * 27 + 8 * 10
    assert flops.parameters(network) == 8 * 27 + 8 * 10
    fixed = opened(classifier(tmp_path / "fixed.onnx", images=(4, 3, 32, 32)))
    assert flops.macs(fixed, (3, 32, 32)) == flops.macs(network, (3, 32, 32))


def test_the_count_is_the_one_of_the_network_it_was_made_from(tmp_path: Path) -> None:
    torch.manual_seed(0)
    small = {"img_size": 32, "patch_size": 8, "depth": 2}
    network = create_model("timm/vit_tiny_patch16_224", classes=10, channels=3, size=32, **small).eval()
    path = ONNX().write(network, tmp_path / "file.onnx", example=images(1), classes=CLASSES)
    assert flops.macs(opened(path), (3, 32, 32)) == flops.macs(network, (3, 32, 32))


@pytest.mark.parametrize(
    ("node", "tensors", "macs"),
    [
        (helper.make_node("ConvTranspose", ["images", "w"], ["y"]), [numbers("w", 3, 5, 2, 2)], 3 * 64 * 5 * 4),
        (helper.make_node("Conv", ["images", "w"], ["y"], group=3), [numbers("w", 6, 1, 3, 3)], 6 * 36 * 9),
        (helper.make_node("MatMul", ["images", "w"], ["y"]), [numbers("w", 8, 7)], 3 * 8 * 8 * 7),
        (
            helper.make_node("Einsum", ["images", "w"], ["y"], equation="b c h w, c d -> b d h w"),
            [numbers("w", 3, 4)],
            8 * 8 * 3 * 4,
        ),
        (
            helper.make_node("FusedMatMul", ["images", "images"], ["y"], domain="com.microsoft", transA=1),
            [],
            3 * 8 * 8 * 8,
        ),
    ],
)
def test_operators_are_counted(tmp_path: Path, node, tensors, macs: int) -> None:
    nodes = [node, helper.make_node("ReduceMean", ["y", "axes"], ["logits"], keepdims=0)]
    tensors = [*tensors, numpy_helper.from_array(np.array([2, 3]), "axes")]
    path = write(tmp_path / "one.onnx", nodes, tensors, images=("B", 3, 8, 8), outputs={"logits": ("B", "K")})
    assert flops.macs(opened(path, classes=None, size=8), (3, 8, 8)) == macs


def test_what_cannot_be_counted_is_no_figure(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["rows"]),
        helper.make_node("RNN", ["rows", "w", "r"], ["", "last"], hidden_size=10),
        helper.make_node("Squeeze", ["last", "axis"], ["logits"]),
    ]
    tensors = [numbers("w", 1, 10, 32), numbers("r", 1, 10, 10, seed=1)]
    tensors += [numpy_helper.from_array(np.array(v), n) for n, v in (("shape", [96, -1, 32]), ("axis", [0]))]
    wrong = refused(write(tmp_path / "rnn.onnx", nodes, tensors))
    assert wrong.code == "SR-M365" and "RNN" in wrong.what


# What it can't do


def test_it_has_nothing_inside_to_tap(file: Path) -> None:
    network = opened(file)
    assert network.tap_names() == []
    with pytest.raises(StillroomError) as caught:
        network(images(), ("conv1",))
    assert caught.value.code == "SR-M362" and "conv1" in caught.value.what


@pytest.mark.parametrize("reads", ["vector", "last", "middle", "stages", "edges", "blocks", "attention"])
def test_methods_of_features_are_refused_before_training(file: Path, reads: str) -> None:
    student = create_model("resnet8", classes=10, channels=3, size=32)
    sides = feature_info(student, images(2)), feature_info(opened(file), images(2))
    if reads in ("blocks", "attention"):
        sides = sides[1], sides[1]
    with pytest.raises(StillroomError) as caught:
        find_pairs(reads, *sides, method="a method")
    assert caught.value.code == "SR-M333" and "nothing inside it can be listened to" in caught.value.why


def test_it_is_never_trained(file: Path) -> None:
    for head in ("any", "replace"):
        assert refused(file, head=head).code == "SR-M361"
    with pytest.raises(StillroomError) as caught:
        create_model("onnx", classes=10, channels=3, size=32)
    assert caught.value.code == "SR-M360"
    assert not list(opened(file).parameters())


def test_other_classes(file: Path) -> None:
    assert refused(file, classes=7).code == "SR-M301"
    assert opened(file, classes=None).classes == 10


def test_trust_is_held_against_the_file(file: Path) -> None:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert opened(file, trust=f"sha256:{digest}").classes == 10
    assert refused(file, trust=f"sha256:{'0' * 64}").code == "SR-S213"


@pytest.mark.parametrize(
    ("axes", "kind", "inputs", "why"),
    [
        (("B", 3, 32, 48), FLOAT, [], "[B, 3, 32, 48]"),
        (("B", 4, 32, 32), FLOAT, [], "[B, 4, 32, 32]"),
        (("B", 3, 32, 32), FLOAT, [helper.make_tensor_value_info("more", FLOAT, [1])], "2 inputs"),
        (("B", 3072), FLOAT, [], "3072"),
        (("B", 3, 32, 32), TensorProto.DOUBLE, [], "tensor(double)"),
    ],
)
def test_what_takes_no_images(tmp_path: Path, axes, kind, inputs, why: str) -> None:
    nodes = [helper.make_node("Flatten", ["images"], ["logits"])]
    path = write(
        tmp_path / "odd.onnx", nodes, [], images=axes, kind=kind, inputs=inputs, outputs={"logits": ("B", "K")}
    )
    wrong = refused(path, classes=None)
    assert wrong.code == "SR-M363" and why in wrong.why.replace("'", "")


# Files that are not to be opened


def outside(tensor: TensorProto, where: str) -> None:
    shape = list(tensor.dims)
    tensor.Clear()
    tensor.name, tensor.data_type, tensor.data_location = "w", FLOAT, TensorProto.EXTERNAL
    tensor.dims.extend(shape)
    tensor.external_data.add(key="location", value=where)


@pytest.mark.parametrize("where", ["../../etc/passwd", "/etc/passwd", "weights.bin", "link.bin"])
def test_data_in_other_files_is_refused(file: Path, where: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(bytes(8 * 27 * 4))
    (tmp_path / "link.bin").symlink_to("weights.bin")
    wrong = refused(change(file, lambda model: outside(model.graph.initializer[0], where)))
    assert wrong.code == "SR-S212" and where in wrong.what


def test_data_in_other_files_is_found_inside_branches(file: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        branch = helper.make_graph([], "branch", [], [], [numbers("w", 2)])
        outside(branch.initializer[0], "../secret")
        node = helper.make_node("If", ["yes"], ["never"], then_branch=branch, else_branch=branch)
        model.graph.node.append(node)

    assert refused(change(file, edit)).code == "SR-S212"


def test_a_claim_of_ten_gigabytes(file: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[:] = [2_500_000_000, 1, 1, 1]

    wrong = refused(change(file, edit))
    assert wrong.code == "SR-S214" and "2500000000x1x1x1" in wrong.why


def test_a_small_file_that_asks_for_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a terabyte, made while the file is opened, out of one number: refused in a process that may not have it."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["images"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("Add", ["features", "sum"], ["logits"]),
    ]
    shape = numpy_helper.from_array(np.array([2_000_000, 65_536]), "shape")
    path = write(tmp_path / "bomb.onnx", nodes, [shape], outputs={"logits": ("B", 3)})
    assert refused(path, classes=3).code in ("SR-S214", "SR-X704", "SR-M363")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_file_that_was_cut_off(file: Path, share: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    assert refused(file).code == "SR-S214"


def test_files_of_other_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "teacher.onnx"
    assert refused(path).code == "SR-M310"
    path.write_text("a text, and no model at all")
    assert refused(path).code == "SR-S214"
    torch.save({"weight": torch.zeros(3)}, path)
    assert refused(path).code == "SR-S214"
    path.write_bytes(b"\0\0\0\0ORTM" + bytes(100))
    assert refused(path).code == "SR-S214"
    monkeypatch.setattr(_onnx_program, "LARGEST", 50)
    assert "50 bytes" in refused(path).why


def test_an_operator_that_nobody_knows(file: Path) -> None:
    wrong = refused(change(file, lambda model: setattr(model.graph.node[1], "domain", "com.microsoft")))
    assert wrong.code == "SR-X704" and "Relu" in wrong.why


def test_a_process_that_dies_or_hangs_costs_nothing_here(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_onnx_program, "ROOM", 1)
    monkeypatch.setattr(_onnx_program, "TIMES", 100)  # too little even to read it
    assert refused(file).code in ("SR-S214", "SR-X704")
    monkeypatch.undo()
    monkeypatch.setattr(_onnx_program, "PATIENCE", 0.01)
    assert "0.01 seconds" in refused(file).why


def test_nothing_is_run_here_before_it_was_looked_at(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*given, **named):
        raise AssertionError("opened")

    change(file, lambda model: outside(model.graph.initializer[0], "x"))
    monkeypatch.setattr(onnxruntime, "InferenceSession", never)
    monkeypatch.setattr(onnx, "load", never)
    assert refused(file).code == "SR-S212"


def test_names_in_a_file_are_only_text(tmp_path: Path) -> None:
    path = classifier(tmp_path / "teacher.onnx", producer_name="stillroom")
    change(path, lambda model: helper.set_model_props(model, {"answers": "classes", "classes": json.dumps(["<b>"])}))
    assert opened(path).mean.abs().max() == 0  # a file of this program's takes pixels as they are
