"""The inputs of a teacher in training: every augmented view of every training image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from stillroom.config.schema import Augment
from stillroom.config.schema import Cache as Section
from stillroom.data.dataset import Dataset, Split
from stillroom.data.hash_rng import VIEW_SEED, evenly_spaced
from stillroom.data.loader import augmented_view
from stillroom.data.prefetch import prefetch
from stillroom.models.network import Network
from stillroom.teachers._form import WHOLE, OutputLayout, choose_layout
from stillroom.teachers.frozen import FrozenTeacher, join
from stillroom.types import Batch, Output

RULES = 1  # raised when the same key comes to mean other pixels, so that older caches are not taken for right
SAMPLE = 256  # answers that the form is chosen by


@dataclass(frozen=True, kw_only=True)
class TeacherQueries:
    """A frozen teacher with all images that it will be run on, and how its outputs are stored.

    Attributes:
        teacher: at rest, on its device.
        data: whose training images it sees.
        augment: of the images; `augment.distinct_views` must be above 0.
        taps: inner features that are stored too.
        temperatures: of the methods that will read the answers.
        batch: images at a time.
        section: how the answers are kept.
        named: what the recipe says of the teacher: networks, arguments, maps.
    """

    teacher: FrozenTeacher
    data: Dataset
    augment: Augment
    taps: tuple[str, ...] = ()
    temperatures: tuple[float, ...] = ()
    batch: int = 128
    section: Section = field(default_factory=Section)
    named: Mapping[str, Any] = field(default_factory=dict)

    @property
    def split(self) -> Split:
        """The training images."""
        return self.data.splits["train"]

    @property
    def network(self) -> Network:
        """The teacher's."""
        return cast(Network, self.teacher.network)

    @property
    def temperature(self) -> float:
        """The one that answers are read for: the first method's."""
        return self.temperatures[0] if self.temperatures else 1.0

    @property
    def entries(self) -> int:
        """Outputs in the whole cache: one for each view of each image."""
        return len(self.split.listed) * self.augment.distinct_views

    @property
    def bytes(self) -> int:
        """Of all of them, as they would be kept; checksums come on top."""
        return self.entries * self.form.bytes

    @cached_property
    def _identity(self) -> str:
        """sha256 of the teacher: what the recipe says of it, how it takes its pixels, and every weight."""
        output = json.dumps([self.named, self.network.metadata()], sort_keys=True, default=str)
        digest = hashlib.sha256(output.encode())
        for name, value in self.network.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def form(self) -> OutputLayout:
        """How the answers are kept, from a few of them."""
        numbers = evenly_spaced(self.entries, SAMPLE)
        output = join([output for _, output in self.answers(numbers)])
        answers = self.network.output_kind
        return choose_layout(
            output, answers, bits=self.section.bits, mass=self.section.top_p, temperatures=self.temperatures
        )

    def facts(self) -> dict[str, Any]:
        """What the answers depend on, and so whose a cache is.

        The keys are hashed into the names of caches, so they stay as they are whatever the recipe's are called.
        """
        policy = asdict(self.augment)
        del policy["num_views"]
        policy["views"] = self.augment.distinct_views
        return {
            "teacher": self._identity,
            "precision": str(self.teacher.precision).removeprefix("torch."),
            "data": self.data.fingerprint,
            "augment": {name: value for name, value in policy.items() if value},
            "bits": self.section.bits,
            "mass": self.section.top_p if self.network.classes > WHOLE else None,
            "rules": RULES,
        }

    def batches(self, numbers: NDArray[np.int64]) -> Iterator[Batch]:
        """The views of these numbers, `batch` at a time; the last batch is padded with the first views.

        All batches have one size, because a library may add up in another order for another size.
        """
        order = np.argsort(self.split.listed)
        size = len(order)

        def at(start: int) -> Batch:
            views, places = np.divmod(np.resize(numbers[start : start + self.batch], self.batch), size)
            return augmented_view(self.split, order[places], views, seed=VIEW_SEED, policy=self.augment)

        return prefetch(at, range(0, len(numbers), self.batch))

    def answers(self, numbers: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Output]]:
        """The teacher's outputs for the views of these numbers, batch by batch; needs no other process."""
        teacher, device = self.teacher.alone, next(self.network.buffers()).device  # of the pixels' mean, which all have
        for start, batch in zip(range(0, len(numbers), self.batch), self.batches(numbers), strict=True):
            here = numbers[start : start + self.batch]
            output = teacher((batch.images.to(device, non_blocking=True),), batch.keys, self.taps)
            yield here, Output(pred=output.pred[: len(here)], taps={n: v[: len(here)] for n, v in output.taps.items()})
