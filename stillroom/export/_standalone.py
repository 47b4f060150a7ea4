"""A function as a file of its own."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any


def standalone(function: Callable[..., Any], docstring: str, *, called: str) -> str:
    """The text of a module that holds the function alone, under the name `called`; its annotations are not evaluated.

    Raises:
        TypeError: it was not written with `def`.
    """
    source = textwrap.dedent(inspect.getsource(function))
    start = re.search(r"^def (\w+)", source, re.M)
    if start is None:
        raise TypeError(f"{called} must be a function that is written with def, not {function!r}")
    head = f'"""{docstring}"""\n\nfrom __future__ import annotations\n'
    return f"{head}\n\n{source[start.start() :]}\n\n{called} = {start[1]}\n"
