"""A cache is whole, whose it says, and never mixed: damage, other teachers, many writers, size, reading at random."""

from __future__ import annotations

import json
import resource
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from kit import caches, training

from stillroom.config.schema import Augment, Cache
from stillroom.distributed.signals import Signals
from stillroom.errors import Exit, StillroomError, Stopped
from stillroom.teachers import cache as files
from stillroom.teachers import fill
from stillroom.teachers._form import OutputLayout, choose_layout
from stillroom.teachers.frozen import FrozenTeacher
from stillroom.teachers.queries import TeacherQueries
from stillroom.types import Output

SMALL = {"LEAST": 64, "MOST": 256}
"""Rows in a shard: more than one shard for the digits."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(files, name, value)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*"))}


def test_all_answers_are_there_in_the_order_of_looks_and_images(tmp_path):
    kept = caches.filled(caches.asking(tmp_path, bits=32))
    train = training.digits().splits["train"]
    assert len(kept.cache) == 3 * len(train) == 3507
    assert kept.cache.shards == 14 and not kept.cache.missing
    assert {path.name for path in kept.cache.folder.iterdir()} == {"cache.json", *contents(kept.cache.folder)}
    assert kept.cache.bytes == 3507 * (10 * 4 + 1 + 4)


def test_several_at_once_make_it_together_and_the_same(tmp_path):
    alone = caches.filled(caches.asking(tmp_path / "alone", bits=32)).cache
    made: list[int] = []

    asking = [caches.asking(tmp_path / "many", bits=32) for _ in range(3)]

    def work(one: TeacherQueries) -> None:
        made.append(fill.fill(fill.open_cache(one), one, Signals()))

    workers = [threading.Thread(target=work, args=(one,)) for one in asking]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    (folder,) = (path.parent for path in tmp_path.glob("many/*/cache.json"))
    assert sum(made) == len(alone) and contents(folder) == contents(alone.folder)


def test_a_shard_that_another_process_makes_is_waited_for(tmp_path):
    one = caches.asking(tmp_path)
    cache, signals = fill.open_cache(one), Signals()
    with cache.claim(2) as mine, cache.claim(2) as theirs:
        assert mine and not theirs
        signals.caught = Exit.TERMINATED  # or it would wait for ever
        with pytest.raises(Stopped):
            fill.fill(cache, one, signals)


def test_a_signal_ends_it_and_the_next_call_goes_on(tmp_path):
    one, signals = caches.asking(tmp_path, bits=32), Signals()
    cache = fill.open_cache(one)
    with cache.claim(0) as mine:
        assert mine
        cache.write(0, {name: value for name, value in first_shard(one, cache).items()})
    before = contents(cache.folder)
    signals.caught = Exit.INTERRUPTED
    with pytest.raises(Stopped):
        fill.fill(cache, one, signals)
    assert contents(cache.folder) == before
    assert fill.fill(cache, one, Signals()) == len(cache) - 256


def first_shard(one: TeacherQueries, cache: files.Cache):
    rows = [cache.form.rows(said) for _, said in one.answers(np.arange(256))]
    return {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}


@pytest.mark.parametrize("hurt", ["flipped", "cut", "emptied", "gone", "header"])
def test_a_damaged_shard_is_refused_when_read_and_made_again(tmp_path, hurt):
    one = caches.asking(tmp_path, bits=32)
    cache = caches.filled(one).cache
    whole, path = contents(cache.folder), cache.path(3)
    raw = bytearray(path.read_bytes())
    if hurt == "gone":
        path.unlink()
    else:
        raw[{"flipped": -100, "header": 30}.get(hurt, 0)] ^= hurt in ("flipped", "header")
        path.write_bytes(raw[: {"cut": len(raw) - 50, "emptied": 0}.get(hurt, len(raw))])
    fresh = files.Cache(cache.folder)
    with pytest.raises(StillroomError, match="SR-T602"):
        fresh.read(np.arange(len(fresh)))
    assert fill.fill(fresh, one, Signals()) == 256
    assert contents(cache.folder) == whole


OTHERS = {
    "teacher": lambda: {"teacher": FrozenTeacher(training.create_model("resnet14", classes=10, channels=1, size=8))},
    "precision": lambda: {"teacher": FrozenTeacher(training.teacher().network, precision=torch.bfloat16)},
    "augment": lambda: {"augment": Augment(shift=0.2, rotate=10, num_views=3)},
    "views": lambda: {"augment": Augment(shift=0.1, rotate=10, num_views=2)},
    "bits": lambda: {"bits": 32},
    "named": lambda: {"named": {"combine": "probabilities"}},
}


@pytest.mark.parametrize("other", OTHERS)
def test_whatever_changes_the_answers_has_a_cache_of_its_own(tmp_path, other):
    one, two = caches.asking(tmp_path), caches.asking(tmp_path, **OTHERS[other]())
    ours, theirs = fill.open_cache(one).folder, fill.open_cache(two).folder
    assert ours != theirs
    with pytest.raises(StillroomError) as caught:
        fill.open_cache(caches.asking(ours, **OTHERS[other]()))
    assert caught.value.code == "SR-T601" and caught.value.exit == Exit.MODEL
    changed = {"views": "augment", "named": "teacher"}.get(other, other)
    assert f"  {changed}: " in str(caught.value)


def test_what_changes_no_answer_shares_one(tmp_path):
    first = fill.open_cache(caches.asking(tmp_path, taps=("layer3", "layer2")))
    again = fill.open_cache(caches.asking(tmp_path, taps=("layer2",), batch=7, max_gb=9.0))
    assert first.folder == again.folder and again.form.taps == ("layer3", "layer2")
    assert fill.open_cache(caches.asking(tmp_path, taps=("layer1",))).folder != first.folder
    assert fill.open_cache(caches.asking(first.folder)).folder == first.folder


def test_a_cache_that_would_be_too_large_is_refused_with_the_number_that_accepts_it(tmp_path):
    one = caches.asking(tmp_path, taps=("layer1",), max_gb=1e-3)
    with pytest.raises(StillroomError) as caught:
        fill.open_cache(one)
    size = one.entries * one.form.bytes
    assert size == 3507 * (2 * (10 + 16 * 8 * 8) + 1)
    assert caught.value.code == "SR-T604" and f"{size / 2**30:.2g} GB" in str(caught.value)
    assert not list(tmp_path.glob("*/cache.json"))
    assert caught.value.values["need"] * 2**30 >= size


def test_an_audit_finds_answers_that_are_not_the_teachers(tmp_path):
    one = caches.asking(tmp_path, bits=32)
    cache = caches.filled(one).cache
    assert fill.audit(cache, one, 0.05) == 0.0
    for number in range(cache.shards):
        rows = cache.read(np.array(cache.rows_of(number)))
        cache.write(number, rows | {"pred": rows["pred"] + 1})
    with pytest.raises(StillroomError, match="SR-T603"):
        fill.audit(cache, one, 0.01)


def test_when_it_is_worth_it(tmp_path):
    def verdict(wanted=10**6, **more):
        return fill.should_cache(caches.asking(tmp_path, **more), wanted)

    assert verdict(use="never") == (False, "cache.use = 'never'")
    assert verdict(use="always", max_gb=1e-9)[0]
    assert "views = 0" in verdict(augment=Augment())[1]
    assert verdict(wanted=3507)[1].startswith("3,507 outputs")
    assert "cache.max_gb" in verdict(max_gb=1e-9)[1]
    assert verdict()[0] and "filling and reading" in verdict()[1]
    caches.filled(caches.asking(tmp_path))
    assert verdict(wanted=1) == (True, f"{next(tmp_path.glob('*/cache.json')).parent} holds its outputs")


def test_a_spread_teacher_is_asked_at_every_step_and_by_no_process_alone(tmp_path):
    whole = training.teacher().network

    def together(*_):
        raise AssertionError("the other processes do something else")

    spread = torch.nn.Module()
    spread.forward = together
    one = caches.asking(tmp_path, teacher=FrozenTeacher(whole, spread=spread))
    kept, why = fill.should_cache(one, 10**6)
    assert not kept and "teacher.shard" in why
    cache = caches.filled(one).cache  # as a run does that one process began, and two go on with
    assert fill.audit(cache, one, 0.01) < 1e-2
    assert fill.should_cache(one, 1)[0], "answers that are there may be read"


@pytest.mark.parametrize("bits", [16, 32])
def test_a_form_survives_being_written(bits):
    torch.manual_seed(0)
    said = Output(pred=torch.randn(5, 1500), taps={"a": torch.randn(5, 3, 2, 2), "b": torch.randn(5, 7)})
    form = choose_layout(said, "classes", bits=bits, temperatures=(3.0,))
    again = OutputLayout.read(json.loads(json.dumps(form.as_dict())))
    assert again == form and bool(form.leading) == (bits == 16)
    back = again.output(again.rows(said), temperature=3.0)
    torch.testing.assert_close(back.taps["a"], said.taps["a"], rtol=1e-3, atol=1e-3 if bits == 16 else 0)
    if bits == 32:
        assert torch.equal(back.pred, said.pred)


def test_other_answers_than_classes_are_kept_whole():
    for answers, shape in (("pixels", (4, 6, 5)), ("boxes", (50, 7)), ("vector", (2048,))):
        said = Output(pred=torch.randn(3, *shape))
        form = choose_layout(said, answers, bits=16)
        assert not form.leading
        torch.testing.assert_close(form.output(form.rows(said)).pred, said.pred, rtol=1e-3, atol=1e-3)


def sparse(folder: Path, form: OutputLayout, *, images: int, shard: int) -> files.Cache:
    """A cache of zeros: files as long as real ones, of which the disk holds hardly anything."""
    said = {"facts": {}, "images": images, "views": 1, "shard": shard, "form": form.as_dict()}
    folder.mkdir()
    (folder / "cache.json").write_text(json.dumps(said))
    cache = files.Cache(folder)
    for number in range(cache.shards):
        rows, size = len(cache.rows_of(number)), 4 + form.bytes
        head = json.dumps(
            {"records": {"dtype": "U8", "shape": [rows, size], "data_offsets": [0, rows * size]}}
        ).encode()
        with cache.path(number).open("wb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for row in range(0, rows, 50):  # every fiftieth answer is there to be read
                file.seek(8 + len(head) + row * size)
                file.write(zlib.crc32(bytes(form.bytes)).to_bytes(4, "little"))
            file.truncate(8 + len(head) + rows * size)
    return cache


def test_reading_at_random_takes_no_memory_however_large_the_cache_is(tmp_path):
    form = OutputLayout(shapes={"pred": (1000,), "tap.maps": (512, 14, 14)}, bits=16)
    cache = sparse(tmp_path / "large", form, images=600_000, shard=20_000)
    total = sum(path.stat().st_size for path in cache.folder.iterdir())
    assert total > 100 * 2**30 > 4 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    random, sizes = np.random.default_rng(0), []
    for _ in range(40):
        rows = cache.read(50 * random.integers(len(cache) // 50, size=32))
        assert rows["tap.maps"].shape == (32, 512, 14, 14)
        sizes.append(resident())
    touched = 40 * 32 * form.bytes
    assert max(sizes[10:]) - sizes[9] < touched / 8


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_sections_defaults_are_what_the_docs_say():
    assert Cache() == Cache(use="auto", path="caches", bits=16, top_p=0.99, max_gb=2.0)
