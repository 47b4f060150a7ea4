"""Methods that don't apply to two networks."""

from __future__ import annotations

from stillroom.errors import Exit, ModelError


class UnsupportedMethod(ModelError):
    code = "SR-M335"
    exit = Exit.USAGE
    what = "the method {method} does not apply to networks that predict {output_kind}"
    why = "it reads predictions of another kind"
    effect = "nothing was trained"
    fix = "take a method of features, or one of: {able}"
