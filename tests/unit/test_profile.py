"""Profiles of devices: where they are found, what they may say, and what they leave to the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from stillroom.config import device_profile
from stillroom.config.schema import Deploy
from stillroom.errors import StillroomError


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's own profiles, in a working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "targets").mkdir()
    return tmp_path / "targets"


@pytest.mark.parametrize("name", sorted(path.stem for path in device_profile.SHIPPED.glob("*.toml")))
def test_profiles_that_come_along_are_whole(name: str, own: Path) -> None:
    said = device_profile.read_profile(name)
    assert said["runtime"] and len(device_profile.profile_names()[name]) > 20
    assert not {"latency_ms", "size_mb", "watts"} & said.keys()  # a limit is the user's, and nothing here was measured


def test_there_are_some() -> None:
    assert {"cpu", "cpu-openvino", "raspberry-pi"} <= device_profile.profile_names().keys()


def test_ones_own_hides_one_that_comes_along(own: Path) -> None:
    (own / "cpu.toml").write_text("# mine\nthreads = 3\nbits = [8]\n", encoding="utf-8")
    assert device_profile.read_profile("cpu") == {"threads": 3, "bits": (8,)}
    assert device_profile.profile_names()["cpu"] == "mine"


def test_a_path_is_read_wherever_it_is(own: Path, tmp_path: Path) -> None:
    (tmp_path / "board.toml").write_text("size_mb = 2\n", encoding="utf-8")
    assert (
        device_profile.read_profile("board.toml")
        == device_profile.read_profile(str(tmp_path / "board.toml"))
        == {"size_mb": 2.0}
    )


def test_all_that_is_wrong_is_named_at_once(own: Path) -> None:
    lines = "thread = 2\nlatency_ms = 'fast'\nbits = [16]\nthreads = 0\nprofile = 'cpu'\n"
    (own / "bad.toml").write_text(lines, encoding="utf-8")
    with pytest.raises(StillroomError) as caught:
        device_profile.read_profile("bad")
    assert (
        caught.value.code == "SR-C440" and "5 problems" in caught.value.what and "targets/bad.toml" in str(caught.value)
    )
    for part in ("thread: unknown; did you mean 'threads'?", "latency_ms: ", "bits[0]: ", "threads: ", "profile: "):
        assert part in caught.value.what


def test_what_is_no_toml_is_told(own: Path) -> None:
    (own / "bad.toml").write_text("threads: 2\n", encoding="utf-8")
    with pytest.raises(StillroomError, match="SR-C402"):
        device_profile.read_profile("bad")


@pytest.mark.parametrize("name", ["cpv", "../cpu", "targets/cpu", "nothing.toml", "a\nb"])
def test_there_is_no_such_profile(name: str, own: Path) -> None:
    with pytest.raises(StillroomError, match="SR-C441") as caught:
        device_profile.read_profile(name)
    if name == "cpv":
        assert "did you mean 'cpu'?" in str(caught.value)


def test_the_target_states_more_than_its_profile(own: Path) -> None:
    (own / "board.toml").write_text("threads = 4\nlatency_ms = 20\nhost = 'pi'\n", encoding="utf-8")
    found = device_profile.with_profile(Deploy(profile="board", latency_ms=5.0, size_mb=1.0))
    assert found == Deploy(profile="board", threads=4, latency_ms=5.0, size_mb=1.0, host="pi")
    assert device_profile.with_profile(found) == found
    plain = Deploy(threads=2)
    assert device_profile.with_profile(plain) is plain
