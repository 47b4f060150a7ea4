"""Run folder -> `report.html` and `README.md`. Reads files only: neither torch nor the recipe's code is needed."""

from stillroom.report.model_card import card
from stillroom.report.page import write

__all__ = ["card", "write"]
