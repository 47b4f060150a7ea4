"""Run folders that can't be read."""

from __future__ import annotations

from stillroom.errors import RecipeError


class NoFinishedSeed(RecipeError):
    code = "SR-C432"
    what = "no seed has results   {folder}"
    why = "{seeds}"
    effect = "nothing was written"
    fix = "repeat the command of the runs: it resumes where it stopped"


class NotARunFolder(RecipeError):
    code = "SR-C460"
    what = "not a run folder   {folder}"
    why = "a run folder holds a run.json, and this one doesn't"
    effect = "nothing was done"
    fix = "give the folder that `stillroom run` printed at its end, usually runs/NAME"


class UnreadableRunFile(RecipeError):
    code = "SR-C461"
    what = "can't be read   {file}"
    why = "{problem}"
    effect = "no report and no card were written"
    fix = "the program writes this file atomically, so it was changed afterwards: restore it, or repeat the run"
