"""The contract of a model, and the wrapper that every model wears.

A **network** takes pixels as they are, 0..1, and resizes and normalises for itself, so that any teacher meets any
student on the same images and an exported file carries its own preprocessing.

A **family** is one file of this folder. It holds one class, named as the file, that has what `Family` lists.
The folder is the registry: a new file is a name in recipes, a row of `stillroom list`, a case of the conformance suite.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillroom.models import surgery
from stillroom.models._errors import TapNeverRan
from stillroom.models._logits import extract_logits
from stillroom.models._taps import capture_taps
from stillroom.models.surgery import Edit
from stillroom.types import Output, OutputKind

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's red, green and blue, 0..1."""

LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in grey: ITU-R BT.601, as Pillow's mode "L"."""

HeadPolicy = Literal["keep", "any", "replace"]
"""What of a file's classifier is wanted, see `models.restore`."""

torch.export.register_dataclass(Output, serialized_type_name="stillroom.types.Output")


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """What the program knows and the recipe does not say: every family is told the same of the data and the weights.

    Attributes:
        classes: K; None: as many as the model itself has, which with `pretrained` keeps the trained head.
        channels: of the data, 1 or 3. A family whose models want 3 says so to `Network`, which repeats the grey.
        size: side of the data's images, in pixels. A model that can't take it keeps its own, and `Network` resizes.
        pretrained: fetch the library's trained weights.
        mean: of the pixels, one number a channel, 0..1; None: the family's own.
        std: as `mean`.
        output_kind: what the network has to say; a classifier's name with `boxes` means that backbone with a detector's
            head. `vector` has no classes: whatever number of outputs the backbone has.
    """

    classes: int | None
    channels: int
    size: int
    output_kind: OutputKind = "classes"
    pretrained: bool = False
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def pixels(self, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
        """`mean` and `std` for `Network`: the library's, as given; the data's where training begins with nothing."""
        if self.pretrained:
            return {"mean": mean, "std": std}
        return {"mean": self.mean or mean, "std": self.std or std}


class Family(Protocol):
    """What the class in a family's file offers. It is made without arguments and holds no state.

    Attributes:
        example: the full name of a small model of the family; the conformance suite builds it.
        states_pixels: whether the library says how its trained weights want pixels normalised. If so, its word
            counts before the statistics of the user's data whenever trained weights are used.
    """

    example: str
    has_pixel_statistics: bool

    def matches(self, name: str) -> bool:
        """Whether a name, as a recipe writes it, is meant for this family. Imports no library."""

    def names(self, like: str = "") -> list[str]:
        """Full names that contain `like`. Without `like`, a big family answers with one pattern: `timm/NAME`."""

    def build(self, name: str, spec: NetworkSpec, **arguments: Any) -> Network:
        """Make the network that `name` stands for.

        Args:
            name: as the recipe writes it, the family's part included.
            spec: what the network is for.
            **arguments: go to the model as they are.

        Raises:
            StillroomError: SR-M303 no such model, SR-M304 wrong arguments, SR-M305 no logits come out, SR-M308 no
                trained weights, SR-N801 they can't be fetched.
        """


@runtime_checkable
class FileFamily(Family, Protocol):
    """A family whose files hold the networks themselves: one is opened where others are built and filled."""

    def open(self, path: Path, spec: NetworkSpec, *, head: HeadPolicy, trust: str | None, **arguments: Any) -> Network:
        """The network in a file; `head` and `trust` as for `models.restore`."""


class Network(nn.Module):
    """Pixels 0..1 -> one grey or three colour channels -> resized -> normalised -> module -> `Output`.

    What the module returns may be a tensor, an object with `.logits` (Hugging Face, torchvision's inception), a
    mapping with one of `logits`, `pred`, `out`, or a tuple or list, whose first element counts: auxiliary heads,
    which some models add in training mode, are dropped.

    `state_dict()` holds the module under `module.` and the buffers `mean` and `std`, so that a checkpoint is complete.
    `weights()` holds the module's own names, which plain timm or torch loads; `metadata()` is what goes beside them.

    Args:
        module: anything that takes [B, C, H, W] and says what `answers` promises.
        classes: K; of a vector its width.
        channels: C that the module takes, 1 or 3.
        size: H = W that the module takes; None: whatever comes.
        mean: of the pixels, C numbers in 0..1; one number stands for all channels.
        std: as `mean`, above 0.
        head: names of the classifiers inside the module, one for nearly all models, two for a distilled DeiT.
        output_kind: what the module says.
        trunk: names of the parts whose features are compared with another network's, where not all of them are: of a
            detector its backbone and its pyramid, not what turns maps into boxes.
        prefix: what stands before the names of a backbone that a library knows under its own: "backbone."; "" for none.
        spare: names of the classifiers that the library's model has and this one has not.

    Attributes:
        exact: whether images are resized without a look at whether they need it, as an exported program has to.
        form: how the module differs from what its family builds, see `stillroom.models.surgery`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        module: nn.Module,
        *,
        classes: int,
        channels: int = 3,
        size: int | None = None,
        mean: Sequence[float] = IMAGENET[0],
        std: Sequence[float] = IMAGENET[1],
        head: tuple[str, ...] = (),
        output_kind: OutputKind = "classes",
        trunk: tuple[str, ...] = (),
        prefix: str = "",
        removed_heads: tuple[str, ...] = (),
    ):
        super().__init__()
        self.output_kind, self.trunk, self.prefix, self.removed_heads = output_kind, trunk, prefix, removed_heads
        self.always_resize, self.edits = False, tuple[Edit, ...]()
        self.module, self.classes, self.channels, self.size, self.head = module, classes, channels, size, tuple(head)
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))
        self.set_pixel_statistics(mean, std)

    def forward(self, images: Tensor, taps: tuple[str, ...] = ()) -> Output:
        """What the module says about images.

        Args:
            images: [B, 1 or 3, H, W], floating point, 0..1.
            taps: names out of `tap_names()`; with `:in` behind it, what that part reads.

        Returns:
            the prediction, see `Answers`, and what each tapped part gave out: a copy, which later in-place steps leave
            alone, with channels on axis 1 where it is a map. A part that runs several times gives its last value.
            Of a network with several heads the logits are the module's own mix of them; in training, when a further
            head is tapped, those of the first.

        Raises:
            StillroomError: SR-M306 there is no module of that name; SR-M307 it does not run in a forward pass.
        """
        pixels = self.preprocess(images)
        if not taps:
            return Output(pred=self._sized(extract_logits(self.module(pixels)), images))
        # Who listens to a second head charges it himself; what the labels charge is then the first head alone.
        apart = self.training and any(name in taps for name in self.head[1:])
        with capture_taps(self.module, (*taps, *self.head[:1]) if apart else taps) as heard:
            pred = extract_logits(self.module(pixels))
            pred = heard[self.head[0]] if apart else pred
        for name in taps:
            if name not in heard:
                raise TapNeverRan(tap=name)
        return Output(pred=self._sized(pred, images), taps={name: heard[name] for name in taps})

    def preprocess(self, images: Tensor) -> Tensor:
        """[B, 1 or 3, H, W] in 0..1 -> [B, C, size, size] as the module wants it.

        The resize is bilinear, with antialiasing; torch and onnxruntime give the same values for it (to 1e-4).
        """
        if not images.is_floating_point():
            raise TypeError(f"images are floating point in 0..1, not {images.dtype}")
        if images.shape[1] == 3 and self.channels == 1:
            images = (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        if self.size is not None and (self.always_resize or tuple(images.shape[-2:]) != (self.size, self.size)):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        if images.shape[1] == 1 and self.channels == 3:
            images = images.expand(-1, 3, -1, -1)
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def _sized(self, pred: Tensor, images: Tensor) -> Tensor:
        """Logits for pixels brought to the images' own size, bilinearly; anything else as it is."""
        if self.output_kind != "pixels" or (not self.always_resize and pred.shape[-2:] == images.shape[-2:]):
            return pred
        return F.interpolate(pred, (images.shape[-2], images.shape[-1]), mode="bilinear", align_corners=False)

    def set_pixel_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the statistics of the pixels. Three numbers for a module that takes grey are averaged."""
        for name, numbers in (("mean", mean), ("std", std)):
            getattr(self, name).copy_(torch.tensor(_for_channels(numbers, self.channels)).view(-1, 1, 1))
        if not (self.std > 0).all():
            raise ValueError(f"std is above 0, not {list(std)}")

    def apply_edits(self, edits: Iterable[Edit]) -> None:
        """Give the module another form; what its new parts hold is to be filled in.

        Raises:
            ValueError: a change that is not known or does not fit.
        """
        edits = surgery.as_json(edits)
        surgery.apply(self.module, edits)
        self.edits += edits

    def tap_names(self) -> list[str]:
        """Names that `taps` may hold: the module's submodules, in the order of the module."""
        return [name for name, _ in self.module.named_modules() if name]

    def heads(self) -> list[nn.Module]:
        """The classifiers themselves; a forward pre-hook on one sees the features it reads."""
        return [self.module.get_submodule(name) for name in self.head]

    def weights(self) -> dict[str, Tensor]:
        """The module's own state dict: `timm.create_model(...).load_state_dict` takes it as it is."""
        return {name: value.detach() for name, value in self.module.state_dict().items()}

    def metadata(self) -> dict[str, str]:
        """What a file of `weights()` must say beside them, as safetensors writes it: text only."""
        said = {"classes": str(self.classes), "channels": str(self.channels)}
        said |= {name: ",".join(map(repr, getattr(self, name).double().flatten().tolist())) for name in ("mean", "std")}
        said |= {"size": str(self.size)} if self.size is not None else {}
        return said | ({"form": surgery.to_text(self.edits)} if self.edits else {})


def _for_channels(numbers: Sequence[float], channels: int) -> list[float]:
    found = [float(number) for number in numbers]
    if channels == 1:
        return [sum(found) / len(found)]
    if len(found) not in (1, channels):
        raise ValueError(f"{channels} channels need {channels} numbers, not {len(found)}")
    return found * (channels // len(found))
