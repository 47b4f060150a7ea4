"""Run folders and the disk they are on."""

from __future__ import annotations

from stillroom.errors import RecipeError, ResourceError


class RecipeChanged(RecipeError):
    code = "SR-C410"
    what = "{folder} holds another experiment:\n{changes}"
    why = "a run folder belongs to one recipe, so that its results and its files belong together"
    effect = "nothing was changed"
    fix = "give this one its own folder (`name=...` or `--folder`), or use the values on the left to resume that one"


class DiskFull(ResourceError):
    code = "SR-R501"
    what = "disk full: {free} MB free   {path}"
    why = "{problem}"
    effect = "the file was not written and no part of it is left; the last good checkpoint is intact"
    fix = "free some space and run the same command again: it resumes from that checkpoint"


class RunFolderLocked(ResourceError):
    code = "SR-R510"
    what = "locked by {holder}   {folder}"
    why = "two processes that write to one run folder would corrupt both runs"
    effect = "nothing was changed"
    fix = "wait for that process or stop it, or give this run its own folder: name=..."
