"""Device profiles: what `[deploy]` says of a device, kept in a file of its own so that many recipes can name it.

A profile is a flat TOML table with the keys of `[deploy]`; its first line is a comment that says which device it is.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

from stillroom.config.errors import DeviceProfileNotFound, InvalidDeviceProfile, InvalidToml
from stillroom.config.plugins import near
from stillroom.config.schema import Deploy
from stillroom.config.validation import build, count_problems

SHIPPED, OWN = Path(__file__).parent / "profiles", Path("targets")

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""A profile that is looked up; anything else is a path."""


def profile_names() -> dict[str, str]:
    """Name -> the first line of its file, of the profiles in `targets/` here and those that come along."""
    paths = {path.stem: path for folder in (SHIPPED, OWN) for path in sorted(folder.glob("*.toml"))}
    return {name: _comment(path) for name, path in sorted(paths.items())}


def read_profile(name: str) -> dict[str, Any]:
    """What a profile states, checked as `[deploy]` is; what it leaves out is not in it.

    Args:
        name: of a file `targets/NAME.toml` in the working directory, or of a profile that comes along, which the
            former hides; or a path that ends in .toml.

    Raises:
        StillroomError: SR-C441 there is none; SR-C402 it is not TOML; SR-C440 with every key that is wrong.
    """
    path = _find(name)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise InvalidToml(path=path, problem=problem) from problem
    problems = ["profile: can't be named in a profile"] if raw.pop("profile", None) is not None else []
    checked, found = build(Deploy, raw)
    problems += found.values
    if problems:
        lines = "\n".join(f"  {line}" for line in problems)
        raise InvalidDeviceProfile(count=count_problems(problems), path=path, problems=lines)
    return {key: getattr(checked, key) for key in raw}


def with_profile(target: Deploy) -> Deploy:
    """The target with its profile's values where it has none of its own.

    A value counts as its own where it differs from the default: what a profile states, a recipe can't set back to the
    default.

    Raises:
        StillroomError: as `read`.
    """
    if not target.profile:
        return target
    plain = Deploy()
    given = {
        key: value for key, value in read_profile(target.profile).items() if getattr(target, key) == getattr(plain, key)
    }
    return dataclasses.replace(target, **given)


def _find(name: str) -> Path:
    places = [Path(name)] if name.endswith(".toml") else []
    if NAME.fullmatch(name) and not places:
        places = [OWN / f"{name}.toml", SHIPPED / f"{name}.toml"]
    for path in places:
        if path.is_file():
            return path
    raise DeviceProfileNotFound(name=name, hint=near(name, profile_names()))


def _comment(path: Path) -> str:
    line = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return line.removeprefix("#").strip() if line.startswith("#") else ""
