"""The wrapper around every model: pixels in 0..1 in, `Output` out.

A network resizes and normalises its own input, so that any teacher and any student take the same images, and an
exported file contains its own preprocessing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey: ITU-R BT.601, as Pillow's mode "L"."""

torch.export.register_dataclass(Output, serialized_type_name="stillroom.types.Output")


class Network(nn.Module):
    """Pixels 0..1 -> one grey or three colour channels -> resize -> normalise -> module -> `Output`.

    The module may return a tensor, an object with `.logits` (Hugging Face, torchvision's inception), a mapping with one
    of `logits`, `pred`, `out`, or a tuple or list, of which the first element is used: auxiliary outputs, which some
    models add in training mode, are dropped.

    `state_dict()` contains the module under `module.` and the buffers `mean` and `std`, so that a checkpoint is
    complete. `weights()` has the module's own names, which plain timm or torch can load; `metadata()` belongs beside
    them in a file.

    Args:
        module: maps [B, C, H, W] to an output of `output_kind`.
        classes: K; for vectors their width D.
        channels: C of the module, 1 or 3.
        size: H = W of the module's input; None for any size.
        mean: of the pixels, C numbers in 0..1, or one number for all channels.
        std: standard deviation, likewise, above 0.
        head: names of the classifiers inside the module: one for nearly all models, two for a distilled DeiT.
        output_kind: of the module.
        trunk: names of the submodules whose features may be matched with another network's; () for all. For a detector
            these are its backbone and feature pyramid, without the prediction head.
        prefix: of the submodule that a library knows as a model of its own, such as "backbone."; "" for none.
        removed_heads: names of the classifiers that the library's model has and this network does not.

    Attributes:
        always_resize: whether images are resized even if they have the right size, as in an exported program.
        edits: the changes from what the family builds, see `stillroom.models.surgery`.
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
        """Run the module.

        Args:
            images: [B, 1 or 3, H, W], floating point, 0..1.
            taps: names from `tap_names()`; the suffix `:in` taps the input of that submodule instead of its output.

        Returns:
            The prediction, see `OutputKind`, and the tapped features: copies, so that later in-place operations do not
            change them; feature maps with channels on axis 1. A submodule that runs several times gives its last value.
            For a network with several heads the prediction is the module's own combination of them, but in training,
            if a further head is tapped, that of the first head.

        Raises:
            StillroomError: SR-M306 there is no module of that name; SR-M307 it does not run in a forward pass.
        """
        pixels = self.preprocess(images)
        if not taps:
            return Output(pred=self._to_image_size(extract_logits(self.module(pixels)), images))
        # A method that taps a second head has its own loss for it; the label loss then applies to the first head only.
        separate_heads = self.training and any(name in taps for name in self.head[1:])
        with capture_taps(self.module, (*taps, *self.head[:1]) if separate_heads else taps) as captured:
            pred = extract_logits(self.module(pixels))
            pred = captured[self.head[0]] if separate_heads else pred
        for name in taps:
            if name not in captured:
                raise TapNeverRan(tap=name)
        return Output(pred=self._to_image_size(pred, images), taps={name: captured[name] for name in taps})

    def preprocess(self, images: Tensor) -> Tensor:
        """[B, 1 or 3, H, W] in 0..1 -> the module's input [B, C, size, size].

        Resizing is bilinear with antialiasing, for which torch and onnxruntime agree to 1e-4.
        """
        if not images.is_floating_point():
            raise TypeError(f"images must be floating point in 0..1, not {images.dtype}")
        if images.shape[1] == 3 and self.channels == 1:
            images = (images * images.new_tensor(LUMINANCE).view(3, 1, 1)).sum(1, keepdim=True)
        if self.size is not None and (self.always_resize or tuple(images.shape[-2:]) != (self.size, self.size)):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        if images.shape[1] == 1 and self.channels == 3:
            images = images.expand(-1, 3, -1, -1)
        return (images.to(self.mean.dtype) - self.mean) / self.std

    def _to_image_size(self, pred: Tensor, images: Tensor) -> Tensor:
        """Pixel logits resized bilinearly to the size of the images; other predictions unchanged."""
        if self.output_kind != "pixels" or (not self.always_resize and pred.shape[-2:] == images.shape[-2:]):
            return pred
        return F.interpolate(pred, (images.shape[-2], images.shape[-1]), mode="bilinear", align_corners=False)

    def set_pixel_statistics(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set mean and standard deviation of the pixels. For a grey module three numbers are averaged."""
        for name, values in (("mean", mean), ("std", std)):
            getattr(self, name).copy_(torch.tensor(_per_channel(values, self.channels)).view(-1, 1, 1))
        if not (self.std > 0).all():
            raise ValueError(f"std must be above 0, not {list(std)}")

    def apply_edits(self, edits: Iterable[Edit]) -> None:
        """Change the structure of the module; the values of changed parameters are left to the caller.

        Raises:
            ValueError: an unknown kind of edit, or one that does not fit the module.
        """
        edits = surgery.as_json(edits)
        surgery.apply(self.module, edits)
        self.edits += edits

    def tap_names(self) -> list[str]:
        """The names that may be tapped: all submodules, in order."""
        return [name for name, _ in self.module.named_modules() if name]

    def heads(self) -> list[nn.Module]:
        """The classifier modules; a forward pre-hook on one receives its input features."""
        return [self.module.get_submodule(name) for name in self.head]

    def weights(self) -> dict[str, Tensor]:
        """The module's own state dict, which `timm.create_model(...).load_state_dict` accepts unchanged."""
        return {name: value.detach() for name, value in self.module.state_dict().items()}

    def metadata(self) -> dict[str, str]:
        """The metadata of a file of `weights()`, as safetensors stores it: strings only."""
        found = {"classes": str(self.classes), "channels": str(self.channels)}
        found |= {key: ",".join(map(repr, getattr(self, key).double().flatten().tolist())) for key in ("mean", "std")}
        found |= {"size": str(self.size)} if self.size is not None else {}
        return found | ({"form": surgery.to_text(self.edits)} if self.edits else {})


def _per_channel(values: Sequence[float], channels: int) -> list[float]:
    found = [float(value) for value in values]
    if channels == 1:
        return [sum(found) / len(found)]
    if len(found) not in (1, channels):
        raise ValueError(f"{channels} channels need {channels} numbers, not {len(found)}")
    return found * (channels // len(found))
