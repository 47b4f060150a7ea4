"""Networks by name. `network.py` holds the contract: what a family's file must offer, and what every model wears.

To add a family, add one file: `models/mine.py` with `class Mine` that has what `network.Family` lists.
Importing this package imports neither timm nor torchvision; naming one of their models does.
"""

from stillroom.models._build import create_model, find, list_models, restore
from stillroom.models._fill import fill, load_into
from stillroom.models._weights import load
from stillroom.models.network import Facts, Family, Network

__all__ = ["Facts", "Family", "Network", "create_model", "fill", "find", "list_models", "load", "load_into", "restore"]
