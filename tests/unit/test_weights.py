"""Weights from files: what is good is read, what is damaged is named, what is hostile is not run."""

from __future__ import annotations

import hashlib
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stillroom.errors import Exit, StillroomError
from stillroom.models import Network, assign_weights, create_model, read_weights, restore
from stillroom.models._weights import statistics_from_metadata


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return create_model("resnet8", classes=4, channels=3, size=12).eval()


@pytest.fixture
def good(network: Network, tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    save_file(network.weights(), path, metadata=network.metadata())
    return path


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def refused(code: str, path: Path, **arguments) -> StillroomError:
    with pytest.raises(StillroomError) as caught:
        read_weights(path, **arguments)
    assert caught.value.code == code and caught.value.exit is Exit.MODEL
    return caught.value


# Good files


def test_safetensors(network: Network, good: Path) -> None:
    state, said = read_weights(good)
    assert same(state, network.weights())
    assert said == network.metadata()
    assert statistics_from_metadata(said) == (network.mean.flatten().tolist(), network.std.flatten().tolist())


def test_half_precision_becomes_float32(network: Network, tmp_path: Path) -> None:
    half = {key: value.half() if value.is_floating_point() else value for key, value in network.weights().items()}
    save_file(half, tmp_path / "half.safetensors")
    state, _ = read_weights(tmp_path / "half.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(state[key], value.to(state[key].dtype)) for key, value in half.items())


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        OrderedDict,
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.9},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}, "optimizer": {"lr": 1.0}},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {f"module.{key}": value for key, value in state.items()} | {"mean": X, "std": X},
        lambda state: {key: nn.Parameter(value, False) for key, value in state.items()},
    ],
)
def test_state_dicts_in_all_their_wrappings(wrap, modern: bool, network: Network, tmp_path: Path) -> None:
    torch.save(wrap(network.weights()), tmp_path / "w.pt", _use_new_zipfile_serialization=modern)
    state, said = read_weights(tmp_path / "w.pt")
    assert same(state, network.weights()) and said == {}


X = torch.ones(3, 1, 1)


def test_the_content_decides_and_not_the_name(network: Network, good: Path, tmp_path: Path) -> None:
    other = tmp_path / "weights.pt"
    other.write_bytes(good.read_bytes())
    assert same(read_weights(other)[0], network.weights())


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"mean": "0.1,0.2,0.3", "std": "1,1,1"}, ([0.1, 0.2, 0.3], [1, 1, 1])),
        ({"mean": "[0.1, 0.2, 0.3]", "std": "(0.5)"}, ([0.1, 0.2, 0.3], [0.5])),
        ({"mean": "0.1,0.2,0.3"}, None),
        ({"mean": "grey", "std": "1"}, None),
    ],
)
def test_statistics_in_metadata(said: dict, wanted) -> None:
    assert statistics_from_metadata(said) == wanted


# Damaged files


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.safetensors", b"", "0 bytes"),
        ("text.safetensors", b"<html>404 Not Found</html>", "neither safetensors nor"),
        ("claims.safetensors", (2**60).to_bytes(8, "little") + b"{}", "header larger than file (header 11529"),
        ("huge.safetensors", b"\xff" * 8 + b"{}" * 20, "header larger than file"),
        ("json.safetensors", (12).to_bytes(8, "little") + b"{not json...", "header"),
        ("fake.pt", b"PK\x03\x04" + b"\0" * 60, "central directory"),
        ("fake.pth", b"\x80", "IndexError"),
    ],
)
def test_files_that_hold_no_weights(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    failure = refused("SR-M310", tmp_path / name)
    assert says in failure.why and name in failure.what


@pytest.mark.parametrize("kept", [7, 40, 0.5, 0.999])
def test_a_download_that_was_cut(kept: float, good: Path, network: Network) -> None:
    for path in (good, good.with_name("good.pt")):
        if path != good:
            torch.save(network.weights(), path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(kept if kept > 1 else len(whole) * kept)])
        refused("SR-M310", path)


def test_offsets_beyond_the_file(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1000],"data_offsets":[0,4000]}}'
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 16)
    refused("SR-M310", tmp_path / "x.safetensors")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "No such file" in refused("SR-M310", tmp_path / "no.safetensors").why
    assert "directory" in refused("SR-M310", tmp_path).why


@pytest.mark.parametrize("held", [{"epoch": 3}, [1, 2], {}, {"a": X, "b": "text"}], ids=str)
def test_a_file_without_a_state_dict(held, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "w.pt")
    assert "state dict" in refused("SR-M310", tmp_path / "w.pt").why


# Files for another network


def test_missing_and_unexpected_names_are_listed_to_five(network: Network) -> None:
    state = dict(network.weights())
    gone = [key for key in state if "layer2" in key and "num_batches" not in key]
    state = {key: value for key, value in state.items() if key not in gone} | {f"extra{i}": X for i in range(7)}
    before = {key: value.clone() for key, value in network.weights().items()}
    with pytest.raises(StillroomError) as caught:
        assign_weights(network, state, name="student.safetensors")
    failure = caught.value
    assert failure.code == "SR-M311" and "student.safetensors" in failure.what
    assert f"{len(gone)} missing: {', '.join(gone[:5])} and {len(gone) - 5} more" in failure.why
    assert "7 unexpected: extra0, extra1, extra2, extra3, extra4 and 2 more" in failure.why
    assert same(before, network.weights()), "nothing is loaded by halves"


def test_shapes_that_differ_are_listed(network: Network) -> None:
    with pytest.raises(StillroomError, match=r"conv1\.weight is \(16, 3, 5, 5\), not \(16, 3, 3, 3\)") as caught:
        assign_weights(network, network.weights() | {"conv1.weight": torch.zeros(16, 3, 5, 5)})
    assert caught.value.code == "SR-M311"


def test_a_head_for_other_classes(network: Network) -> None:
    other = create_model("resnet8", classes=9, channels=3, size=12)
    before = {key: value.clone() for key, value in other.weights().items()}
    with pytest.raises(StillroomError, match="student has 4 outputs, the data 9 classes; no mapping") as caught:
        assign_weights(other, network.weights(), name="student")
    assert caught.value.code == "SR-M301" and 'finetune = "head"' in caught.value.fix
    assign_weights(other, network.weights(), head="replace")
    for key, value in other.weights().items():
        assert torch.equal(value, before[key] if key.startswith("linear.") else network.weights()[key]), key


def test_a_file_of_features_alone_needs_a_new_head(network: Network) -> None:
    features = {key: value for key, value in network.weights().items() if not key.startswith("linear.")}
    with pytest.raises(StillroomError, match=r"2 missing: linear\.weight, linear\.bias") as caught:
        assign_weights(create_model("resnet8", classes=9, channels=3, size=12), features)
    assert caught.value.code == "SR-M311"
    assign_weights(create_model("resnet8", classes=9, channels=3, size=12), features, head="replace")


def test_counters_may_be_missing(network: Network) -> None:
    old = {key: value for key, value in network.weights().items() if not key.endswith("num_batches_tracked")}
    fresh = create_model("resnet8", classes=4, channels=3, size=12)
    assign_weights(fresh, old)
    assert same(fresh.weights(), network.weights())


def test_weights_of_colour_meet_grey_data(good: Path, network: Network) -> None:
    again = restore("resnet8", good, classes=4, channels=1, size=12).eval()
    grey = torch.rand(2, 1, 12, 12)
    with torch.no_grad():
        assert again.channels == 3 and torch.equal(again(grey).pred, network(grey.repeat(1, 3, 1, 1)).pred)


# Hostile files


class Bomb:
    """A pickle that runs a command when it is read."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("inside", [True, False], ids=["inside a state dict", "alone"])
def test_a_hostile_pickle_is_refused_by_name_and_never_run(
    modern: bool, inside: bool, network: Network, tmp_path: Path
) -> None:
    canary, path = tmp_path / "canary", tmp_path / "teacher.pt"
    bomb = Bomb(canary)
    torch.save(network.weights() | {"x": bomb} if inside else bomb, path, _use_new_zipfile_serialization=modern)
    failure = refused("SR-S210", path)
    assert failure.what == "refused teacher.pt: needs 'posix.system'"
    assert failure.effect == "nothing was executed"
    assert f"sha256:{digest(path)}" in failure.fix
    assert not canary.exists()


def test_a_plain_hostile_pickle(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "teacher.pkl"
    path.write_bytes(pickle.dumps(Bomb(canary)))
    assert refused("SR-S210", path).what.startswith("refused teacher.pkl: needs ")
    assert not canary.exists()


def test_a_hostile_pickle_named_safetensors_is_not_even_read_as_one(tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "teacher.safetensors"
    torch.save(Bomb(canary), path)
    refused("SR-M310", path)
    assert not canary.exists()


@pytest.mark.parametrize("trust", ["sha256:" + "0" * 64, "yes", "", "md5:0"])
def test_trust_in_another_file_runs_nothing(trust: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "teacher.pt"
    torch.save(Bomb(canary), path)
    failure = refused("SR-S213", path, trust=trust)
    assert digest(path) in failure.why and not canary.exists()


def test_a_whole_model_is_refused_and_by_its_hash_read_in_another_process(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(network.module, path)
    failure = refused("SR-S210", path)
    assert "stillroom.models.resnet.CifarResNet" in failure.what
    told = tmp_path / "told"
    torch.save({"model": network.module, "note": Teller(told)}, path)
    state, _ = read_weights(path, trust=f"sha256:{digest(path).upper()}")
    assert same(state, network.weights())
    assert int(told.read_text()) != os.getpid()


class Teller:
    """Writes the number of the process that reads it."""

    def __init__(self, told: Path):
        self.told = told

    def __reduce__(self):
        return eval, (f"open({str(self.told)!r}, 'w').write(str(__import__('os').getpid())) and None",)


def test_a_trusted_file_that_can_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": Teller(tmp_path / "no" / "folder")}, path)
    failure = refused("SR-M310", path, trust=f"sha256:{digest(path)}")
    assert "No such file" in failure.why


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)
    assert "TorchScript" in refused("SR-S210", path).what


def test_the_written_file_is_plain_safetensors(network: Network, good: Path) -> None:
    assert same(load_file(good), network.weights())
