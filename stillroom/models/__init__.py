"""Networks by name. `_family.py` has the interface of a family, `network.py` the wrapper around every model.

To add a family, add one file: `models/mine.py` with a `class Mine` that implements `Family`. Importing this package
imports neither timm nor torchvision; naming one of their models does.
"""

from stillroom.models._build import create_model, find_family, list_models, restore
from stillroom.models._family import Family, NetworkSpec
from stillroom.models._load import assign_weights, load_weights
from stillroom.models._weights import read_weights
from stillroom.models.network import Network

__all__ = [
    "Family",
    "Network",
    "NetworkSpec",
    "assign_weights",
    "create_model",
    "find_family",
    "list_models",
    "load_weights",
    "read_weights",
    "restore",
]
