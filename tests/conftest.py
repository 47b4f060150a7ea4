"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of larger real data beside the checkout; a fresh clone alone has none, and skips."""
    if not SHARED.is_dir():
        pytest.skip("needs the data folder ../shared/data beside the checkout")
    return SHARED
