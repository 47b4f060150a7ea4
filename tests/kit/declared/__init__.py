"""What every method promises of its losses: one row a method, in the file of its kind."""

from __future__ import annotations

from kit.declared.logits import LOGITS
from kit.declared.maps import MAPS
from kit.declared.vectors import VECTORS
from kit.method_laws import Declared

DECLARED: dict[str, Declared] = {**LOGITS, **MAPS, **VECTORS}
