"""Filling the cache: the teacher's outputs for every augmented view of every training image, computed once.

Any number of processes fill one cache at the same time, on any machines that share its folder: each takes the next
shard that no other has claimed; the shard of a process that dies is claimed by another.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from stillroom.data.hash_rng import evenly_spaced
from stillroom.distributed.signals import Signals
from stillroom.errors import Stopped
from stillroom.io.errors import DiskFull
from stillroom.teachers._errors import CacheTooLarge, CacheVerificationFailed, NonFiniteTeacherOutputs
from stillroom.teachers._form import SOUND, Rows
from stillroom.teachers.cache import Cache, find, make
from stillroom.teachers.queries import TeacherQueries

log = logging.getLogger("stillroom")

PATIENCE = 0.2  # seconds between two checks for shards that other processes are filling
REPORT_SECONDS = 10.0  # seconds between two lines about how far it is
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 5e-2}
"""How far an answer may be from the one that was kept, as a share of the largest: machines add up differently."""


def should_cache(queries: TeacherQueries, num_queries: int) -> tuple[bool, str]:
    """Whether a cache saves time, and why; measured where it is not obvious.

    Args:
        queries: the teacher, its inputs, and how its outputs would be stored.
        num_queries: outputs that all students together will read.
    """
    use, entries = queries.section.use, queries.entries
    if use != "auto":
        return use == "always", f"cache.use = {use!r}"
    if not entries:
        return False, "augment.num_views = 0, so no augmented view comes twice"
    found = find(Path(queries.section.path), queries.facts(), taps=queries.taps, temperatures=queries.temperatures)
    if found and not found.missing:
        return True, f"{found.folder} holds its outputs"
    if queries.teacher.spread is not None:
        return False, "with teacher.shard = true all processes must run it together"
    if num_queries <= entries:
        return False, f"{num_queries:,} outputs are needed, and a cache would hold {entries:,}"
    if (size := queries.bytes) > queries.section.max_gb * 2**30:
        return False, f"a cache would take {_gb(size)}, more than cache.max_gb = {queries.section.max_gb:g}"
    forward, read = measure_speed(queries)
    cached, live = entries * forward + num_queries * read, num_queries * forward
    return cached < live, f"filling and reading a cache takes {_duration(cached)}, a live teacher {_duration(live)}"


def measure_speed(queries: TeacherQueries) -> tuple[float, float]:
    """Seconds an output, of a forward pass and of reading the cache: medians over some real batches."""
    with sample_cache(queries) as (cache, forward):
        order, reads = np.random.default_rng(0).permutation(len(cache)), []
        for start in range(0, len(order), queries.batch):
            started = time.perf_counter()
            cache.form.output(cache.read(order[start : start + queries.batch]), temperature=queries.temperature)
            reads.append((time.perf_counter() - started) / len(order[start : start + queries.batch]))
    return forward, float(np.median(reads))


@contextmanager
def sample_cache(queries: TeacherQueries, batches: int = 3) -> Iterator[tuple[Cache, float]]:
    """A small cache of real answers, for as long as the block lasts, and the seconds that an answer took to get."""
    numbers = evenly_spaced(queries.entries, (batches + 1) * queries.batch)
    times, rows = [], list[Rows]()
    started = time.perf_counter()
    for here, output in queries.answers(numbers):
        rows.append(queries.form.rows(output))
        times.append((time.perf_counter() - started) / len(here))
        started = time.perf_counter()
    joined = _joined(rows)
    with TemporaryDirectory() as folder:
        cache = make(Path(folder), {}, images=len(numbers), views=1, form=queries.form)
        for number in range(cache.shards):
            cache.write(number, {name: value[cache.rows_of(number)] for name, value in joined.items()})
        yield cache, float(np.median(times[1:] or times))  # the first one waits for the data


def open_cache(queries: TeacherQueries) -> Cache:
    """The cache of these answers: the one that is there, whole or not, or a new one.

    Raises:
        StillroomError: SR-T601 `cache.path` is the cache of something else, SR-T604 it would be too large, SR-R501 for
            the disk.
    """
    path = Path(queries.section.path)
    found = find(path, queries.facts(), taps=queries.taps, temperatures=queries.temperatures)
    if found:
        return found
    size, limit = queries.bytes, queries.section.max_gb * 2**30
    if size > limit:
        images, views = len(queries.split.listed), queries.augment.distinct_views
        each = f"{images:,} images, {views} views, {queries.form.bytes:,} bytes each"
        raise CacheTooLarge(size=_gb(size), each=each, limit=_gb(limit), need=math.ceil(size / 2**29) / 2)
    path.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path).free
    if free < 1.2 * size:
        raise DiskFull(path=path, free=f"{free / 1e6:.0f}", problem=f"the answers take {size / 1e6:.0f} MB")
    made = make(
        path, queries.facts(), images=len(queries.split.listed), views=queries.augment.distinct_views, form=queries.form
    )
    if made.form.leading:
        output = ", ".join(
            f"{share:.1%} at T = {t:g}" for t, share in zip(made.form.temperatures, made.form.covered, strict=True)
        )
        log.info("teacher: the %d likeliest classes are stored, with a probability of %s", made.form.leading, output)
    return made


def fill(cache: Cache, queries: TeacherQueries, signals: Signals) -> int:
    """Make whatever is missing or damaged, together with all who do the same; how many answers were made here.

    Raises:
        Stopped: by a signal; the shards that are whole stay.
    """
    for number in range(cache.shards):
        if cache.path(number).exists() and not cache.sound(number):
            log.warning("SR-T602 %s was damaged; its outputs are computed again", cache.path(number))
    made, reported = 0, time.monotonic()
    while missing := cache.missing:
        before = made
        for number in missing:
            with cache.claim(number) as mine:
                if mine:
                    cache.write(number, _shard(cache, queries, number, signals))
                    made += len(cache.rows_of(number))
            if time.monotonic() - reported > REPORT_SECONDS:
                reported = time.monotonic()
                there = len(cache) - sum(len(cache.rows_of(one)) for one in cache.missing)
                log.info("teacher: %s of %s outputs are stored", f"{there:,}", f"{len(cache):,}")
        if made == before:
            _stop_on_signal(signals)
            time.sleep(PATIENCE)
    return made


def audit(cache: Cache, queries: TeacherQueries, share: float = 0.01) -> float:
    """Ask again about a share of the answers, others every time; how far the worst is off, in parts of the largest.

    Raises:
        CacheVerificationFailed: SR-T603 an answer is not the teacher's.
    """
    count = min(len(cache), max(2, math.ceil(share * len(cache))))
    numbers = np.sort(np.random.default_rng().choice(len(cache), count, replace=False))
    worst = 0.0
    for here, output in queries.answers(numbers):
        kept, fresh = (
            cache.form.output(rows, temperature=queries.temperature)
            for rows in (cache.read(here), cache.form.rows(output))
        )
        for name in ("pred", *cache.form.taps):
            one, other = (torch.nan_to_num(o.pred if name == "pred" else o.taps[name]) for o in (kept, fresh))
            worst = max(worst, float((one - other).abs().max() / other.abs().max().clamp_min(1e-6)))
    if worst > TOLERANCE[queries.teacher.precision]:
        raise CacheVerificationFailed(folder=cache.folder, worst=f"{worst:.2g}", count=count)
    return worst


def _shard(cache: Cache, queries: TeacherQueries, number: int, signals: Signals) -> Rows:
    """The rows of a shard, computed one batch after the other."""
    wanted, found = cache.rows_of(number), list[Rows]()
    for _, output in queries.answers(np.arange(wanted.start, wanted.stop)):
        found.append(cache.form.rows(output))
        _stop_on_signal(signals)
    rows = _joined(found)
    if not rows[SOUND].all():
        problem = NonFiniteTeacherOutputs(count=int((rows[SOUND] == 0).sum()), total=len(wanted))
        log.warning("%s", str(problem).partition("\n")[0])
    return rows


def _joined(parts: Sequence[Rows]) -> Rows:
    """One behind the other."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _stop_on_signal(signals: Signals) -> None:
    if signals.caught is not None:
        raise Stopped(signals.caught)


def _gb(size: float) -> str:
    return f"{size / 2**30:.2g} GB" if size < 2**30 else f"{size / 2**30:.1f} GB"


def _duration(seconds: float) -> str:
    """Hours and minutes as a person says them."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
