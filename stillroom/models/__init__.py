"""Networks by name. `network.py` holds the contract: what a family's file must offer, and what every model wears.

To add a family, add one file: `models/mine.py` with `class Mine` that has what `network.Family` lists.
Importing this package imports neither timm nor torchvision; naming one of their models does.
"""

from stillroom.models._build import create_model, find_family, list_models, restore
from stillroom.models._load import assign_weights, load_weights
from stillroom.models._weights import read_weights
from stillroom.models.network import Family, Network, NetworkSpec

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
