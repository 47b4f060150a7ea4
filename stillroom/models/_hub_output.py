"""Adapting the outputs of Hugging Face's transformers models to `OutputKind`.

Models are not wrapped: a forward hook converts their output, so that submodules keep the names of their own files.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from stillroom.types import OutputKind


def adapt_output(model: Any, output_kind: OutputKind, *, bgr: bool = False) -> nn.Module:
    """The same model, which now returns one tensor in the form of `output_kind`; names of weights do not change.

    Args:
        model: of transformers, of the class for `output_kind`.
        output_kind: of the result.
        bgr: whether the model expects channels in the order blue, green, red.
    """
    if bgr:
        model.register_forward_pre_hook(_reverse_channels)
    if output_kind == "boxes":
        _allow_dynamic_batches(model)
        for name in (f"{model.base_model_prefix}.decoder", "bbox_predictor"):
            if name in dict(model.named_modules()):
                _run_in_float32(model.get_submodule(name))
        model.register_forward_hook(partial(_boxes, classes=int(model.config.num_labels)))
    elif output_kind == "vector":
        _remove_dense_pooler(model)
        model.add_module("vector", nn.Identity())
        class_token = any(name.rpartition(".")[2] == "cls_token" for name, _ in model.named_parameters())
        model.register_forward_hook(partial(_vector, class_token=class_token))
    return model


def add_classifier(model: Any, classes: int) -> nn.Module:
    """Add a linear layer, `classifier`, to a backbone for which transformers has no classifier.

    Args:
        model: of transformers, a backbone only.
        classes: K.

    Raises:
        TypeError: its configuration does not contain the width of its embedding.
    """
    config = model.config
    width = getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [None])[-1]
    if not isinstance(width, int):
        raise TypeError(f"the configuration of a {config.model_type} has no hidden_size")
    adapt_output(model, "vector")
    model.add_module("classifier", nn.Linear(width, classes))
    model.register_forward_hook(_classify)
    return cast(nn.Module, model)


def find_heads(model: nn.Module, output_kind: OutputKind, classes: int) -> tuple[str, ...]:
    """Names of the submodules that depend on K, the one that computes the final output first.

    () for a detector with a softmax over K + 1, because the rows of its classifier are not the classes.

    Args:
        model: from `adapt_output`.
        output_kind: of the model.
        classes: K.
    """
    if output_kind == "vector":
        return ("vector",)
    widths = {classes, classes + 1} if output_kind == "boxes" else {classes}
    found = [name for name, part in model.named_modules() if _out_features(part) in widths]
    if output_kind != "boxes":
        return _outermost(found)
    words = ("class_embed", "class_labels_classifier", "score_head")
    heads = sorted((name for name in found if any(word in name for word in words)), key=_final_head_first)
    return tuple(heads) if heads and _out_features(model.get_submodule(heads[0])) == classes else ()


def find_trunk(model: nn.Module) -> tuple[str, ...]:
    """The backbone and the encoder of a detector; () if it has neither."""
    parts = dict(model.named_modules())
    base = str(getattr(model, "base_model_prefix", ""))
    found = [name for name in (f"{base}.backbone", f"{base}.encoder") if name in parts]
    return tuple(found if f"{base}.backbone" in parts else [base] if base in parts else [])


def inverse_sigmoid_of_softmax(logits: Tensor) -> Tensor:
    """Logits whose sigmoids are the softmax probabilities, for all classes except the last one, "no object".

        s_k = log(p_k / (1 - p_k)) = z_k - log sum_{j != k} exp(z_j)

    Accurate for p near 0 and 1: the sum without the largest term is computed separately, and in all other sums the
    largest term remains, so that the subtraction loses no precision.

    Args:
        logits: [..., K + 1], K at least 1.

    Returns:
        [..., K].
    """
    largest, top = logits.max(-1, keepdim=True)
    shifted = logits - largest.detach()
    is_top = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, top, True)
    without_top = shifted.masked_fill(is_top, -torch.inf).logsumexp(-1, keepdim=True)
    exponentials = shifted.exp()
    without_self = (exponentials.sum(-1, keepdim=True) - exponentials).masked_fill(is_top, 1.0).log()
    return (shifted - torch.where(is_top, without_top, without_self))[..., :-1]


def _allow_dynamic_batches(model: nn.Module) -> None:
    """Make the library's code for this model traceable with a dynamic batch size.

    RT-DETR and similar models call `len(tensor)`, which becomes a constant in an exported program; `shape[0]` does not.
    They also contain checks in an operator that ONNX lacks, which an environment variable of transformers disables.
    """
    os.environ.setdefault("TRANSFORMERS_DISABLE_TORCH_CHECK", "1")
    vars(sys.modules[type(model).__module__])["len"] = _length


def _length(value: Any) -> Any:
    return value.shape[0] if isinstance(value, Tensor) else len(value)


def _run_in_float32(part: Any) -> None:
    """Suspend mixed precision for this submodule.

    Decoders refine boxes layer by layer, through a sigmoid and its inverse. With bfloat16 throughout, half of the box
    sides of a tiny RT-DETR were off by more than 0.0020 of the image; with this, by more than 0.0013.
    """
    part.suspended = []
    part.register_forward_pre_hook(_suspend_autocast, with_kwargs=True)
    part.register_forward_hook(_resume_autocast, always_call=True)


def _suspend_autocast(
    part: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    device = next(part.parameters()).device.type
    if not torch.is_autocast_enabled(device):
        return None
    part.suspended.append(torch.autocast(device, enabled=False))
    part.suspended[-1].__enter__()
    return tuple(map(_to_float32, args)), {name: _to_float32(value) for name, value in kwargs.items()}


def _resume_autocast(part: Any, args: Any, output: Any) -> None:
    if part.suspended:
        part.suspended.pop().__exit__(None, None, None)


def _to_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _reverse_channels(model: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0].flip(1), *args[1:])


def _boxes(model: nn.Module, args: Any, output: Any, *, classes: int) -> Tensor:
    """`logits` [B, A, K or K + 1] and `pred_boxes` [B, A, 4] (centre, width, height) -> [B, A, 4 + K], in float32."""
    scores, boxes = output.logits.float(), output.pred_boxes.float()
    if scores.shape[-1] == classes + 1:
        scores = inverse_sigmoid_of_softmax(scores)
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half, scores], -1)


def _vector(model: Any, args: Any, output: Any, *, class_token: bool) -> Tensor:
    """The model's pooled output; else its class token; else the mean over its tokens or its feature map. [B, D]."""
    pooled = getattr(output, "pooler_output", None)
    last = pooled if pooled is not None else output.last_hidden_state
    if last.ndim == 4:
        last = last.mean((2, 3))
    elif last.ndim == 3:
        last = last[:, 0] if class_token else last.mean(1)
    return model.vector(last)


def _classify(model: Any, args: Any, embedding: Tensor) -> Tensor:
    logits: Tensor = model.classifier(embedding)
    return logits


def _remove_dense_pooler(model: Any) -> None:
    """Remove the dense layer on the class token, which would be random: classifier checkpoints do not contain it."""
    if hasattr(getattr(model, "pooler", None), "dense"):
        model.pooler = None


def _out_features(part: nn.Module) -> int | None:
    if isinstance(part, nn.Linear):
        return part.out_features
    if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1):
        return part.out_channels
    return part.num_embeddings if isinstance(part, nn.Embedding) else None


def _outermost(names: list[str]) -> tuple[str, ...]:
    """The names with the fewest dots, because a classifier is outside the backbone; some models have two of them."""
    depth = min((name.count(".") for name in names), default=0)
    return tuple(name for name in names if name.count(".") == depth)


def _final_head_first(name: str) -> tuple[bool, int]:
    """Sort key: the head of the last layer, which gives the model's output, first; heads used in training only last."""
    number = name.rpartition(".")[2]
    return "denoising" in name or "enc_" in name, -int(number) if number.isdigit() else 0
