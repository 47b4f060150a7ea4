"""What pages print about a runtime, as plain data that can be kept beside the figures of its files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """Python that runs a file with numpy and the runtime alone, in parts. `{path}` stands for the file, as a literal.

    Attributes:
        imports: whole lines.
        opens: lines that open `{path}`.
        runs: lines that pass `images`, float32 [B, C, H, W], on.
        output: the expression that is then the answer, [B, ...] as numpy holds it.
        classes: lines that read the names in the file into `classes`; none: the card writes the names out.
        one_image: whether the file takes one image a call, of the size that the data have.
    """

    imports: tuple[str, ...]
    opens: tuple[str, ...]
    runs: tuple[str, ...] = ()
    output: str
    classes: tuple[str, ...] = ()
    one_image: bool = False

    @classmethod
    def read(cls, found: Any) -> Snippet | None:
        """One that was kept as JSON; None where it is not whole."""
        if not isinstance(found, dict) or not isinstance(found.get("output"), str):
            return None
        lines = {name: _words(found.get(name)) for name in ("imports", "opens", "runs", "classes")}
        return cls(**lines, output=found["output"], one_image=found.get("one_image") is True)


@dataclass(frozen=True, kw_only=True)
class RuntimeInfo:
    """What pages print about a runtime.

    Attributes:
        title: in tables: "OpenVINO".
        suffixes: of the file that is opened, and of the files beside it that it needs.
        snippet: Python that runs a file; None: there is none.
    """

    title: str
    suffixes: tuple[str, ...]
    snippet: Snippet | None = None

    @classmethod
    def read(cls, found: Any) -> RuntimeInfo | None:
        """One that was kept as JSON; None where it is not whole."""
        if not isinstance(found, dict) or not isinstance(found.get("title"), str):
            return None
        snippet = Snippet.read(found.get("snippet"))
        return cls(title=found["title"], suffixes=_words(found.get("suffixes")), snippet=snippet)


def _words(found: Any) -> tuple[str, ...]:
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list | tuple) else ()
