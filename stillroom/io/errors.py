"""Run folders and the disk they are on."""

from __future__ import annotations

from stillroom.errors import RecipeError, ResourceError


class RecipeChanged(RecipeError):
    code = "SR-C410"
    what = "{folder} holds another experiment:\n{changes}"
    why = "a run folder keeps one recipe, so that its figures and its files belong together"
    effect = "nothing was changed"
    fix = "give this one its own folder (`name=...` or `--folder`), or use the values on the left to resume that one"


class DiskFull(ResourceError):
    code = "SR-R501"
    what = "disk full: {free} MB free   {path}"
    why = "{problem}"
    effect = "the file was not written and no part of it is left; the last good checkpoint is intact"
    fix = "free some room and give the same command again: it goes on from that checkpoint"


class RunFolderLocked(ResourceError):
    code = "SR-R510"
    what = "locked by {holder}   {folder}"
    why = "two processes writing one run folder would spoil both runs"
    effect = "nothing was changed"
    fix = "wait for that process or end it, or give this run a folder of its own: name=..."
