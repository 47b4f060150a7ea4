"""What models of Hugging Face's transformers have to be told, and how what they say becomes what is promised here.

Nothing is wrapped: a hook on the model turns its output into the promised tensor, so that its parts keep the names that
its own files use.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from stillroom.types import OutputKind


def adapt_output(model: Any, output_kind: OutputKind, *, mirrored: bool = False) -> nn.Module:
    """The same model, which now answers with one tensor as `Answers` has it; its weights keep their names.

    Args:
        model: of transformers, in the class that belongs to `answers`.
        output_kind: what it is to say.
        mirrored: it wants blue, green, red.
    """
    if mirrored:
        model.register_forward_pre_hook(_mirrored)
    if output_kind == "boxes":
        _let_batches_vary(model)
        for name in (f"{model.base_model_prefix}.decoder", "bbox_predictor"):
            if name in dict(model.named_modules()):
                _in_single_precision(model.get_submodule(name))
        model.register_forward_hook(partial(_boxes, classes=int(model.config.num_labels)))
    elif output_kind == "vector":
        _without_dense_pooler(model)
        model.add_module("vector", nn.Identity())
        summary = any(name.rpartition(".")[2] == "cls_token" for name, _ in model.named_parameters())
        model.register_forward_hook(partial(_vector, summary=summary))
    return model


def add_classifier(model: Any, classes: int) -> nn.Module:
    """A backbone, for which transformers has no classifier, with one on its vector: a linear layer, `classifier`.

    Args:
        model: of transformers, a bare backbone.
        classes: K.

    Raises:
        TypeError: its settings do not say how wide its vector is.
    """
    config = model.config
    width = getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [None])[-1]
    if not isinstance(width, int):
        raise TypeError(f"the settings of a {config.model_type} have no hidden_size")
    adapt_output(model, "vector")
    model.add_module("classifier", nn.Linear(width, classes))
    model.register_forward_hook(_classified)
    return cast(nn.Module, model)


def find_heads(model: nn.Module, output_kind: OutputKind, classes: int) -> tuple[str, ...]:
    """Names of the parts that depend on K: the first is the one that speaks, further ones help in training.

    () for a detector with a softmax over K + 1: the rows of its classifier are not the classes.

    Args:
        model: from `answering`.
        output_kind: what it says.
        classes: K.
    """
    if output_kind == "vector":
        return ("vector",)
    wide = {classes, classes + 1} if output_kind == "boxes" else {classes}
    found = [name for name, part in model.named_modules() if _width(part) in wide]
    if output_kind != "boxes":
        return _outermost(found)
    words = ("class_embed", "class_labels_classifier", "score_head")
    speaking = sorted((name for name in found if any(word in name for word in words)), key=_last_to_speak)
    return tuple(speaking) if speaking and _width(model.get_submodule(speaking[0])) == classes else ()


def find_trunk(model: nn.Module) -> tuple[str, ...]:
    """Of a detector the backbone and the encoder, whatever the kind calls them; () where it has neither."""
    parts = dict(model.named_modules())
    base = str(getattr(model, "base_model_prefix", ""))
    inside = [name for name in (f"{base}.backbone", f"{base}.encoder") if name in parts]
    return tuple(inside if f"{base}.backbone" in parts else [base] if base in parts else [])


def inverse_sigmoid_of_softmax(logits: Tensor) -> Tensor:
    """Logits whose sigmoid is the softmax's probability, for all classes but the last, which stands for "no object".

        s_k = log(p_k / (1 - p_k)) = z_k - log sum_{j != k} exp(z_j)

    Exact where p is near 0 or 1 too: the sum without the greatest term is taken by itself, and every other sum still
    holds the greatest, so that nothing is lost in the subtraction.

    Args:
        logits: [..., K + 1], K at least 1.

    Returns:
        [..., K].
    """
    greatest, top = logits.max(-1, keepdim=True)
    shifted = logits - greatest.detach()
    is_top = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, top, True)
    rest = shifted.masked_fill(is_top, -torch.inf).logsumexp(-1, keepdim=True)
    raised = shifted.exp()
    others = (raised.sum(-1, keepdim=True) - raised).masked_fill(is_top, 1.0).log()
    return (shifted - torch.where(is_top, rest, others))[..., :-1]


def _let_batches_vary(model: nn.Module) -> None:
    """Have the library's code for this kind of model traced without fixing the number of images.

    RT-DETR and its kin ask `len(tensor)`, which becomes a constant in an exported file; their shapes say the same and
    stay a variable. And they check their own arithmetic, in an operator that ONNX lacks: transformers has a switch.
    """
    os.environ.setdefault("TRANSFORMERS_DISABLE_TORCH_CHECK", "1")
    vars(sys.modules[type(model).__module__])["len"] = _length


def _length(of: Any) -> Any:
    return of.shape[0] if isinstance(of, Tensor) else len(of)


def _in_single_precision(part: Any) -> None:
    """Mixed precision ends before this part and goes on after it.

    Decoders refine a box layer by layer, through a sigmoid and back. With bfloat16 all through, the sides of half the
    boxes of a tiny RT-DETR were off by more than 0.0020 of the image; with this, by more than 0.0013.
    """
    part.suspended = []
    part.register_forward_pre_hook(_suspend, with_kwargs=True)
    part.register_forward_hook(_resume, always_call=True)


def _suspend(part: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    device = next(part.parameters()).device.type
    if not torch.is_autocast_enabled(device):
        return None
    part.suspended.append(torch.autocast(device, enabled=False))
    part.suspended[-1].__enter__()
    return tuple(map(_single, given)), {name: _single(value) for name, value in named.items()}


def _resume(part: Any, given: Any, said: Any) -> None:
    if part.suspended:
        part.suspended.pop().__exit__(None, None, None)


def _single(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def _mirrored(model: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (given[0].flip(1), *given[1:])


def _boxes(model: nn.Module, given: Any, said: Any, *, classes: int) -> Tensor:
    """`logits` [B, A, K or K + 1] and `pred_boxes` [B, A, 4] (middle, width, height) -> [B, A, 4 + K], in float32."""
    scores, boxes = said.logits.float(), said.pred_boxes.float()
    if scores.shape[-1] == classes + 1:
        scores = inverse_sigmoid_of_softmax(scores)
    middle, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([middle - half, middle + half, scores], -1)


def _vector(model: Any, given: Any, said: Any, *, summary: bool) -> Tensor:
    """The model's own pooled output; else its summary token; else the mean of its tokens or of its map. [B, D]."""
    pooled = getattr(said, "pooler_output", None)
    last = pooled if pooled is not None else said.last_hidden_state
    if last.ndim == 4:
        last = last.mean((2, 3))
    elif last.ndim == 3:
        last = last[:, 0] if summary else last.mean(1)
    return model.vector(last)


def _classified(model: Any, given: Any, said: Tensor) -> Tensor:
    logits: Tensor = model.classifier(said)
    return logits


def _without_dense_pooler(model: Any) -> None:
    """Take off a layer on top of the summary token that checkpoints of classifiers do not hold: it would be random."""
    if hasattr(getattr(model, "pooler", None), "dense"):
        model.pooler = None


def _width(part: nn.Module) -> int | None:
    if isinstance(part, nn.Linear):
        return part.out_features
    if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1):
        return part.out_channels
    return part.num_embeddings if isinstance(part, nn.Embedding) else None


def _outermost(names: list[str]) -> tuple[str, ...]:
    """Those with the fewest dots: a classifier stands outside the backbone. Two where a kind has two of them."""
    depth = min((name.count(".") for name in names), default=0)
    return tuple(name for name in names if name.count(".") == depth)


def _last_to_speak(name: str) -> tuple[bool, int]:
    """Sorts the last layer's head first, for its answer is the model's, and what only training uses last."""
    number = name.rpartition(".")[2]
    return "denoising" in name or "enc_" in name, -int(number) if number.isdigit() else 0
