"""Networks by name. `network.py` holds the contract: what a family's file must offer, and what every model wears.

To add a family, add one file: `models/mine.py` with `class Mine` that has what `network.Family` lists.
Importing this package imports neither timm nor torchvision; naming one of their models does.
"""

from stillroom.models._build import build, find, names, restore
from stillroom.models._weights import become, fill, load
from stillroom.models.network import Facts, Family, Network

__all__ = ["Facts", "Family", "Network", "become", "build", "fill", "find", "load", "names", "restore"]
