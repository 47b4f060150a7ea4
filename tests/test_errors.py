"""Error classes: a code has one meaning for good, its page is complete, and its lines fit the values they are given."""

from __future__ import annotations

import ast
import importlib
import pickle
import pkgutil
import re
import string
from pathlib import Path

import pytest

import stillroom
from stillroom import errors
from stillroom.errors import DataError, Exit, StillroomError

ROOT = Path(__file__).resolve().parents[1]

CODES = {
    "B": "901 902 910 911 912 913 914 915 930 931",
    "C": "400 401 402 403 404 405 406 410 411 430 431 432 433 440 441 442 460 461 462 463",
    "D": "101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116 117 118 120 121 122 123 124 125 126 127 128 "
    "129 130 131 132 133 140 141 142 143 144",
    "E": "601",
    "M": "301 303 304 305 306 307 308 309 310 311 312 315 316 317 330 331 332 333 334 335 336 337 338 339 340 345 346 "
    "350 351 352 360 361 362 363 364 365 370 371 372 380 381 382 383 385 386",
    "N": "801",
    "R": "501 503 510 520 521 522 523 524 525 530",
    "S": "201 210 212 213 214",
    "T": "320 321 601 602 603 604 605 606 607",
    "X": "701 702 703 704 710 711 720 730 731 732 733 741",
}
"""Every code that has been in docs/errors.md. A new one is added here; none is taken away."""

TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "stillroom").rglob("*.py"))}


def kinds() -> dict[str, type[StillroomError]]:
    """Every class with a code: they are all in modules whose name ends in `errors`, as a test below holds."""
    for module in pkgutil.walk_packages(stillroom.__path__, "stillroom."):
        if module.name.endswith("errors"):
            importlib.import_module(module.name)
    return {
        code: kind for code, kind in sorted(StillroomError.kinds.items()) if kind.__module__.startswith("stillroom")
    }


KINDS = kinds()
NAMES = {kind.__name__: kind for kind in KINDS.values()}


def fields(kind: type[StillroomError]) -> set[str]:
    texts = (getattr(kind, line) for line in errors.LINES)
    return {name for text in texts for _, name, _, _ in string.Formatter().parse(text) if name}


def test_no_code_is_gone_and_no_class_name_is_there_twice():
    assert set(KINDS) == {f"SR-{letter}{number}" for letter, numbers in CODES.items() for number in numbers.split()}
    assert len(NAMES) == len(KINDS)


def test_the_page_shows_every_kind():
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^### (SR-\w+)$", page, re.M)) == list(KINDS)
    for code, kind in KINDS.items():
        shown = page.partition(f"### {code}\n")[2].partition("###")[0]
        assert f"Exit code {int(kind.exit)}." in shown
        for line in errors.LINES:
            assert getattr(kind, line).replace("{{", "{").replace("}}", "}") in shown


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_the_letter_of_a_code_is_that_of_its_base(kind):
    bases = [base for base in kind.__mro__ if base.__base__ is StillroomError]
    assert [(base.__doc__ or "")[:3] for base in bases] == [f"{kind.code[3]}: "]


@pytest.mark.parametrize("path", TREES, ids=lambda path: str(path.relative_to(ROOT)))
def test_classes_with_a_code_are_in_the_errors_files_alone(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ClassDef) and not path.stem.endswith("errors"):
            assert not any(
                isinstance(base, ast.Name) and base.id.endswith("Error") and "code" in names(node)
                for base in node.bases
            )


def names(node: ast.ClassDef) -> set[str]:
    return {
        target.id
        for line in node.body
        if isinstance(line, ast.Assign)
        for target in line.targets
        if isinstance(target, ast.Name)
    }


def test_every_kind_is_used_and_its_lines_fit_the_values_it_is_given():
    """Values from a mapping (`**values`) are not seen here; the tests of the places that give them see them."""
    used = set()
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in NAMES:
                used.add(node.id)
            if isinstance(node, ast.Call):
                for name in {part.id for part in ast.walk(node.func) if isinstance(part, ast.Name)} & set(NAMES):
                    given, asked = {keyword.arg for keyword in node.keywords}, fields(NAMES[name])
                    where = f"{path.relative_to(ROOT)}, line {node.lineno}: {name}"
                    assert given - {None} <= asked if None in given else given == asked, where
                    assert not node.args, where
    assert used == set(NAMES)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_error_is_the_same_in_another_process(kind):
    values = dict.fromkeys(fields(kind), 3)
    error = kind(**values)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and str(again) == str(error) and again.as_dict() == error.as_dict()
    assert (
        str(error).splitlines()[0].startswith(f"{kind.code} ") and error.as_dict()["exit_code"] == int(kind.exit) > -1
    )


LINES = {"what": "a {n}", "why": "b", "effect": "c", "fix": "d"}


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(StillroomError, "kinds", dict(StillroomError.kinds))


def test_a_code_is_used_once(registry):
    type("One", (DataError,), LINES | {"code": "SR-D990"})
    with pytest.raises(TypeError, match=r"SR-D990 is .*One already, not Two"):
        type("Two", (DataError,), LINES | {"code": "SR-D990"})


@pytest.mark.parametrize("code", ["D990", "SR-D99", "SR-d990", "SR-D9900", ""])
def test_a_code_has_its_form(code, registry):
    with pytest.raises(TypeError, match="a code has the form"):
        type("One", (DataError,), LINES | {"code": code})


def test_no_line_may_be_missing(registry):
    with pytest.raises(TypeError, match="One lacks fix"):
        type("One", (DataError,), LINES | {"code": "SR-D990", "fix": ""})


def test_a_kind_is_caught_by_its_base_and_a_value_that_is_missing_is_a_fault(registry):
    one = type("One", (DataError,), LINES | {"code": "SR-D990"})
    with pytest.raises(DataError, match=r"^SR-D990 a 4\n  why    b\n  effect c\n  fix    d$") as caught:
        raise one(n=4)
    assert caught.value.exit is Exit.DATA and one.what == "a {n}"
    with pytest.raises(KeyError):
        one()
