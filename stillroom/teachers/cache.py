"""A teacher's outputs in a folder: written once, by any number of processes, and read in any order.

    caches/1f3a90c2b4d5/
      cache.json                  the teacher, the images and the layout of the outputs
      shard-000000.safetensors    outputs 0 to S-1; whole or absent

A shard holds one tensor, `records`, uint8 [S, bytes]: the CRC-32 of the rest, and the columns of `form` in their order.

Output n belongs to view n // N of image n % N, of the N training images in the order of their numbers. Only the rows of
a batch are read and no file is held open, so reading takes no more memory however large the cache is.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from stillroom.errors import StillroomError
from stillroom.io.files import atomic_write, write_json
from stillroom.teachers._errors import CacheMismatch, DamagedCache
from stillroom.teachers._form import OutputLayout, Rows

Numbers = NDArray[np.int64]

FORMAT = 1  # of the files; another number is another fingerprint
SHARD_BYTES, LEAST, MOST = 8 * 2**20, 512, 8192  # of a shard, and rows in it: what a kill costs, against many files
CHECKSUM = 4  # bytes
HEADER = 1024  # bytes at most
NAMED = 12  # digits of the fingerprint in a folder's name


class Cache:
    """One cache's folder.

    Args:
        folder: where it is; made by `make`, found by `find`.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        stored = json.loads((self.folder / "cache.json").read_text(encoding="utf-8"))
        self.facts: dict[str, Any] = stored["facts"]
        self.images, self.views, self.shard = stored["images"], stored["views"], stored["shard"]
        self.form = OutputLayout.read(stored["form"])

    def __repr__(self) -> str:
        return f"Cache({str(self.folder)!r})"

    def __len__(self) -> int:
        return int(self.images * self.views)

    @property
    def shards(self) -> int:
        """How many there are when it is whole."""
        return -(-len(self) // self.shard)

    @property
    def missing(self) -> list[int]:
        """Shards that are not there."""
        return [number for number in range(self.shards) if not self.path(number).exists()]

    @property
    def bytes(self) -> int:
        """Of all rows, as the layout says."""
        return len(self) * (self.form.bytes + CHECKSUM)

    def path(self, number: int) -> Path:
        """Where a shard is, or will be."""
        return self.folder / f"shard-{number:06d}.safetensors"

    def rows_of(self, number: int) -> range:
        """The answers in a shard."""
        return range(number * self.shard, min((number + 1) * self.shard, len(self)))

    def write(self, number: int, rows: Rows) -> None:
        """Commit a shard, whole."""
        parts = [np.ascontiguousarray(rows[name], kind) for name, (kind, _) in self.form.columns.items()]
        flat = np.concatenate([part.reshape(len(part), -1).view(np.uint8) for part in parts], 1)
        records = np.concatenate([_checksums(flat).view(np.uint8).reshape(-1, CHECKSUM), flat], 1)
        with atomic_write(self.path(number)) as temp:
            save_file({"records": records}, temp)

    def read(self, numbers: Numbers) -> Rows:
        """Answers by their numbers [n], in that order.

        Raises:
            DamagedCache: SR-T602 a shard is damaged or gone.
        """
        shards, offsets = np.divmod(numbers, self.shard)
        records = np.empty((len(numbers), CHECKSUM + self.form.bytes), np.uint8)
        for number in np.unique(shards).tolist():
            here = shards == number
            records[here] = self._read(number, offsets[here])
        found, at = {}, CHECKSUM
        for name, (kind, shape) in self.form.columns.items():
            size = kind.itemsize * math.prod(shape)
            found[name] = np.ascontiguousarray(records[:, at : at + size]).view(kind).reshape(-1, *shape)
            at += size
        return found

    def sound(self, number: int) -> bool:
        """Whether a shard is there, readable, and every checksum right; one that is not is removed."""
        if not self.path(number).exists():
            return False
        try:
            self._read(number, np.arange(len(self.rows_of(number))))
        except StillroomError:
            self.path(number).unlink(missing_ok=True)
            return False
        return True

    @contextmanager
    def claim(self, number: int) -> Iterator[bool]:
        """Whether this process is to make the shard; no other one will while the block lasts.

        The system lets go of the lock when a process ends, however it ends.
        """
        path = self.folder / f".claim-{number:06d}"
        with path.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield not self.path(number).exists()
            if self.path(number).exists():  # before that, others would lock another file of that name
                path.unlink(missing_ok=True)

    def _read(self, number: int, offsets: Numbers) -> NDArray[np.uint8]:
        """Records of a shard [n, bytes], each checked: by position, as pages of a mapped file come far slower."""
        path, size = self.path(number), CHECKSUM + self.form.bytes
        try:
            with path.open("rb", buffering=0) as file:
                start = _start(file.fileno(), [len(self.rows_of(number)), size])
                held = b"".join([os.pread(file.fileno(), size, start + size * one) for one in offsets.tolist()])
                records = np.frombuffer(held, np.uint8).reshape(len(offsets), size)
        except (OSError, ValueError) as problem:
            raise DamagedCache(path=path, problem=problem) from problem
        written = np.ascontiguousarray(records[:, :CHECKSUM]).view(np.uint32)[:, 0]
        wrong = int((written != _checksums(records[:, CHECKSUM:])).sum())
        if wrong:
            raise DamagedCache(path=path, problem=f"{wrong} of {len(offsets)} checksums are wrong")
        return records


def fingerprint(facts: Mapping[str, Any]) -> str:
    """sha256 of what the outputs depend on, and of the layout of the files."""
    return hashlib.sha256(json.dumps({"format": FORMAT, **facts}, sort_keys=True).encode()).hexdigest()


def find(path: Path, facts: Mapping[str, Any], *, taps: Iterable[str], temperatures: Iterable[float]) -> Cache | None:
    """The cache of these facts that has these taps, and is exact at these temperatures.

    Args:
        path: a folder of caches; or a cache's own, which then must be the one.
        facts: what the answers depend on.
        taps: inner features that must be in it.
        temperatures: at which leading classes alone must do.

    Raises:
        CacheMismatch: SR-T601 `path` is the cache of something else.
    """

    def serves(cache: Cache) -> bool:
        form = cache.form
        return {*taps} <= {*form.taps} and (not form.leading or {*temperatures} <= {*form.temperatures})

    if (path / "cache.json").exists():
        cache = Cache(path)
        changes = [f"{name}: {cache.facts.get(name)} there, {value} here" for name, value in facts.items()]
        changes = [line for line, name in zip(changes, facts, strict=True) if cache.facts.get(name) != facts[name]]
        if not serves(cache):
            changes.append(f"taps: {', '.join(cache.form.taps) or 'none'} there, {', '.join(taps)} here")
        if changes:
            raise CacheMismatch(folder=path, changes="\n".join(f"  {line}" for line in changes))
        return cache
    named = sorted(path.glob(f"{fingerprint(facts)[:NAMED]}*/cache.json"))
    return next((cache for cache in (Cache(one.parent) for one in named) if serves(cache)), None)


def make(path: Path, facts: Mapping[str, Any], *, images: int, views: int, form: OutputLayout) -> Cache:
    """A new, empty cache in a folder of caches; or the one that another process has made in the meantime."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / ".making").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made := find(path, facts, taps=form.taps, temperatures=form.temperatures):
            return made
        apart = fingerprint({"taps": form.taps, "temperatures": form.temperatures})[:4]
        folder = path / f"{fingerprint(facts)[:NAMED]}-{apart}"
        rows = min(max(SHARD_BYTES // form.bytes, LEAST), MOST)
        stored = {"facts": dict(facts), "images": images, "views": views, "shard": rows, "form": form.as_dict()}
        write_json(folder / "cache.json", stored)
        return Cache(folder)


def _start(file: int, shape: list[int]) -> int:
    """Where in a shard the records begin: behind the header, which must say what is expected."""
    length = int.from_bytes(os.pread(file, 8, 0), "little")
    stored = json.loads(os.pread(file, min(length, HEADER), 8))
    if stored != {"records": {"dtype": "U8", "shape": shape, "data_offsets": [0, math.prod(shape)]}}:
        raise ValueError("its header is not this cache's")
    return 8 + length


def _checksums(rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """CRC-32 of each row."""
    return np.array([zlib.crc32(row) for row in np.ascontiguousarray(rows)], np.uint32)
