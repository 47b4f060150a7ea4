"""What a user may lean on. Growth is a decision: it changes this list."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import stillroom
from stillroom import errors
from stillroom.cli import main

VERBS = ["bench", "check", "demo", "doctor", "eval", "export", "label", "list", "new", "plan", "report", "run"]

EVERYWHERE = {"as_json", "verbose", "quiet"}

OPTIONS = {
    "bench": {"folder", "seconds", "profile", "host"},
    "check": {"words"},
    "demo": {"folder"},
    "doctor": set(),
    "eval": {"folder", "data", "split"},
    "export": {"folder", "runtime", "target", "bits", "agreement"},
    "label": {"words", "folder", "devices", "audit"},
    "list": {"kind", "like"},
    "new": {"name", "to"},
    "plan": {"words", "devices", "compile"},
    "report": {"folder"},
    "run": {"words", "folder", "devices", "seeds", "max_restarts"},
}


def test_names_to_import():
    assert stillroom.__all__ == [
        "Batch",
        "BenchmarkError",
        "DataError",
        "DeviceLimitError",
        "ExportError",
        "FinishedRun",
        "Method",
        "ModelError",
        "MultiSeedRun",
        "Network",
        "NetworkAccessError",
        "Output",
        "Recipe",
        "RecipeError",
        "ResourceError",
        "SecurityError",
        "StillroomError",
        "TeacherError",
        "TrainingError",
        "VerificationError",
        "distill",
        "open",
        "read_recipe",
    ]
    for name in stillroom.__all__:
        assert getattr(stillroom, name) is not None


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="distil"):
        stillroom.distil  # noqa: B018


def test_verbs_and_options():
    assert sorted(main.commands) == VERBS
    for name, command in main.commands.items():
        assert {option.name for option in command.params} == OPTIONS[name] | EVERYWHERE


@pytest.mark.parametrize("verb", VERBS)
def test_help_opens_with_three_examples(verb):
    text = main.commands[verb].get_help(main.make_context("stillroom", [verb, "--help"], resilient_parsing=True))
    examples = re.findall(rf"^ +stillroom {verb}.*$", text, re.M)
    assert len(examples) >= 3


def test_exit_codes():
    assert {code.name: int(code) for code in errors.Exit} == {
        "DONE": 0,
        "FAILED": 1,
        "USAGE": 2,
        "DATA": 3,
        "MODEL": 4,
        "RESOURCES": 5,
        "DIVERGED": 6,
        "UNVERIFIED": 7,
        "TARGET_MISSED": 8,
        "INTERRUPTED": 130,
        "TERMINATED": 143,
    }


def test_help_imports_nothing_heavy():
    """Half a second is kept by not importing torch; the time itself is no test."""
    heavy = "{'torch', 'numpy', 'rich', 'pydantic'}"
    code = f"import sys; from stillroom.cli import main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
