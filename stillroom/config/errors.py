"""Recipes, overrides and device profiles that can't be used."""

from __future__ import annotations

from stillroom.errors import RecipeError


class InvalidRecipe(RecipeError):
    code = "SR-C400"
    what = "{count} in {source}:\n{problems}"
    why = "the recipe does not fit the program"
    effect = "nothing was started"
    fix = "mend the lines above; `stillroom list KIND` names what may be written, `stillroom check RECIPE` checks again"


class RecipeNotFound(RecipeError):
    code = "SR-C401"
    what = "no recipe   {path}{hint}"
    why = "there is no such file, and no built-in recipe of that name"
    effect = "nothing was started"
    fix = "`stillroom list recipes` names the built-in ones, `stillroom new NAME` copies one to edit"


class InvalidToml(RecipeError):
    code = "SR-C402"
    what = "not TOML   {path}"
    why = "{problem}"
    effect = "nothing was started"
    fix = "mend that line; https://toml.io shows the form"


class InvalidOverride(RecipeError):
    code = "SR-C403"
    what = "not an override   {text}"
    why = "an override is KEY=VALUE, with dots for sections: train.lr=1e-3, methods.0.temperature=2"
    effect = "nothing was started"
    fix = "write KEY=VALUE, without blanks around the equals sign"


class UnknownName(RecipeError):
    code = "SR-C405"
    what = "no {kind} called {name!r}{near}"
    why = "a name is that of a file which comes with the program, or package.module:Name of one's own code"
    effect = "nothing was started"
    fix = "`stillroom list {listed}` names those that come with the program"


class ImportedNameFailed(RecipeError):
    code = "SR-C406"
    what = "{name!r} can't be imported: {problem}"
    why = "package.module:Name is imported from the working directory or from an installed package"
    effect = "nothing was started"
    fix = "start the command beside the package, or mend its code; -v shows where it failed"


class InvalidDeviceProfile(RecipeError):
    code = "SR-C440"
    what = "{count} in the device profile {path}:\n{problems}"
    why = "a profile is a flat TOML table of keys of `[deploy]`"
    effect = "nothing was started"
    fix = "mend the lines above; `stillroom list profiles` names the profiles that come along, to copy from"


class DeviceProfileNotFound(RecipeError):
    code = "SR-C441"
    what = "no device profile   {name}{hint}"
    why = "there is neither a file targets/{name}.toml here nor a profile of that name that comes along"
    effect = "nothing was started"
    fix = "`stillroom list profiles` names them; your own go into targets/NAME.toml, or are named by their path"
