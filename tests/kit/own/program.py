"""A runtime of one's own, whole: the program that torch.export writes, run by torch."""

from __future__ import annotations

import json
from copy import deepcopy

import torch
from torch import nn

from stillroom.export.runtime import Runtime, RuntimeModel, Snippet


class Tensors(nn.Module):
    """A network that takes a tensor and gives one."""

    def __init__(self, network):
        super().__init__()
        self.network = deepcopy(network).cpu().eval()

    def forward(self, images):
        """Images to the answer."""
        return self.network(images).pred


class Opened(RuntimeModel):
    """A file in this process."""

    def __init__(self, path, threads=None):
        super().__init__(path, threads)
        more = {"facts.json": ""}
        self.module = torch.export.load(path, extra_files=more).module()
        self.facts = json.loads(more["facts.json"])

    def run(self, images):
        """Numpy arrays in and out."""
        with torch.inference_mode():
            return self.module(torch.from_numpy(images)).numpy().copy()


class Program(Runtime):
    """Floats only; any number of images."""

    title = "torch.export"
    suffixes = (".pt2",)
    packages = {"torch": "torch"}  # noqa: RUF012
    snippet = Snippet(
        imports=("import numpy as np", "import torch"),
        opens=("module = torch.export.load({path}).module()",),
        output="module(torch.from_numpy(images)).detach().numpy()",
    )

    def write(self, network, path, *, example, classes, bits=32, calibration=(), base=None, task=None):
        """The traced network, its class names beside it in the same file."""
        self.check_bits(bits)
        two = example[:1].expand(2, -1, -1, -1).contiguous()
        program = torch.export.export(Tensors(network), (two,), dynamic_shapes=({0: torch.export.Dim("B")},))
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.export.save(program, path, extra_files={"facts.json": json.dumps({"classes": json.dumps(classes)})})
        return path

    def open(self, path, threads=None):
        """On the CPU."""
        return Opened(path, threads)

    @staticmethod
    def on_device():
        """Torch is all that a device needs."""
        import torch

        def open_file(file, threads):
            torch.set_num_threads(threads)
            module = torch.export.load(file).module()

            def predict(images):
                with torch.inference_mode():
                    return module(torch.from_numpy(images)).numpy()

            return predict, {"version": torch.__version__, "threads": torch.get_num_threads()}

        return open_file
