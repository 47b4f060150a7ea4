"""Contradictory command lines."""

from __future__ import annotations

from stillroom.errors import RecipeError


class RecipeFileExists(RecipeError):
    code = "SR-C404"
    what = "already exists   {path}"
    why = "a recipe that may have been edited is not overwritten"
    effect = "nothing was changed"
    fix = "name another file: --to other.toml"


class SeedsGivenTwice(RecipeError):
    code = "SR-C430"
    what = "seeds are given twice: --seeds {count} and seeds={seeds}"
    why = "--seeds {count} is short for the seeds 0 to {count} - 1, and seeds=... names others"
    effect = "nothing was started"
    fix = "give one of the two"
