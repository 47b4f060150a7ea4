"""The contract of a runtime: one file declares all that this program needs for one kind of exported file.

    class ONNX(Runtime):
        title = "ONNX"
        suffixes = (".onnx",)
        packages = {"onnxruntime": "onnxruntime"}
        bits = (32, 8, 4)

        def write(self, network, path, *, example, classes, bits=32, ...): ...
        def open(self, path, threads=None): ...

As `NAME.py` in this folder it is a runtime called NAME. `package.module:Name` is one's own, a class or an instance of
one. Recipe, command line, verification, measuring, report, model card and `stillroom doctor` go by what it declares.
Importing such a file imports neither torch nor the runtime, so that pages and servers may read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from stillroom.config.errors import ImportedNameFailed, UnknownName
from stillroom.config.plugins import choices, pick
from stillroom.export._errors import ExportPackagesMissing, UnknownRuntime, UnsupportedBits
from stillroom.export._model import RuntimeModel as RuntimeModel
from stillroom.export._standalone import standalone
from stillroom.export._usage import RuntimeInfo
from stillroom.export._usage import Snippet as Snippet

if TYPE_CHECKING:
    from torch import Tensor, nn

    from stillroom.tasks.task import Task

Predict = Callable[[Any], Any]
"""Images float32 [B, C, H, W] as a numpy array to the answer as one."""


class Runtime:
    """One kind of file: how it is written, opened, measured on a device, and used without this program.

    Attributes:
        title: as tables and the model card print it.
        suffixes: of the file that is opened, and of the files beside it that it needs.
        packages: module -> the package that pip installs for it; what writing and opening need, and what `run.json`
            records the versions of.
        extra: the extra of this program that brings them; "" where there is none.
        bits: of the weights that its files can hold.
        other_bits: bits -> why its files can't hold them.
        base: the runtime whose float file spares an int8 file the first half of the work; "": this one.
        missing_operator: regular expressions for the errors of its tools that mean an operator is missing; the group
            is the operator.
        uncounted_import: why the memory that importing the runtime takes is none of a file's; "": it is counted.
        snippet: Python that runs a file, for the model card; None: the card has none.
    """

    title: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ()
    packages: ClassVar[Mapping[str, str]] = {}
    extra: ClassVar[str] = ""
    bits: ClassVar[tuple[int, ...]] = (32,)
    other_bits: ClassVar[Mapping[int, str]] = {}
    base: ClassVar[str] = ""
    missing_operator: ClassVar[tuple[str, ...]] = ()
    uncounted_import: ClassVar[str] = ""
    snippet: ClassVar[Snippet | None] = None

    def write(
        self,
        network: nn.Module,
        path: Path,
        *,
        example: Tensor,
        classes: tuple[str, ...],
        bits: int = 32,
        calibration: Iterable[Tensor] = (),
        base: Path | None = None,
        task: Task | None = None,
    ) -> Path:
        """Write `network`, its preprocessing and its task's last step included, to `path`, and return `path`.

        Args:
            network: maps images [B, C, H, W] in 0..1 to an answer, as `Predictor` does; it is left as it was.
            path: the file to write; it appears whole or not at all.
            example: [B, C, H, W], any image of the right shape.
            classes: names in label order, written into the file.
            bits: 32 for floats, 8 for integers, 4 for floats and 4-bit weights in linear layers.
            calibration: image batches [B, C, H, W] in 0..1 whose activations set the integer ranges.
            base: the float file of the same network, where the runtime `base` has written it already.
            task: what the answers mean, whether images may have any size, and how answers are compared; None: logits
                of a classifier, for images of the example's size.
        """
        raise NotImplementedError

    def open(self, path: Path, threads: int | None = None) -> RuntimeModel:
        """Open a file on the runtime.

        Args:
            path: the file; what belongs to it lies beside it.
            threads: threads to compute with; None takes every core this process may use. Times want 1.
        """
        raise NotImplementedError

    @staticmethod
    def on_device() -> Callable[[str, int], tuple[Predict, dict[str, Any]]]:
        """Import the runtime, and return what opens a file with a number of threads.

        That returns a function from images to the answer, both numpy arrays, and `{"version": ..., "threads": ...}`:
        the runtime's version, and the threads that it computes with. The text of this function is sent to the machine
        where files are measured, so it stands alone: imports are inside, and it keeps to Python 3.9.
        """
        raise NotImplementedError

    @property
    def name(self) -> str:
        """As a recipe writes it."""
        module, folder = type(self).__module__, f"{__package__}."
        return module.removeprefix(folder) if module.startswith(folder) else f"{module}:{type(self).__qualname__}"

    @property
    def info(self) -> RuntimeInfo:
        """What pages print about it, as plain data."""
        return RuntimeInfo(title=self.title or type(self).__name__, suffixes=self.suffixes, snippet=self.snippet)

    @property
    def install(self) -> str:
        """The command that installs what is missing here."""
        wanted = f"'stillroom[{self.extra}]'" if self.extra else " ".join(self.packages.values())
        return f"pip install {wanted}"

    def missing(self, *modules: str) -> list[str]:
        """Of some of its modules, or of all, the packages that are not installed here."""
        return [self.packages[module] for module in modules or self.packages if find_spec(module) is None]

    def require(self, *modules: str) -> None:
        """Refuse, before any work is done, when a package of some of its modules, or of any, is not installed.

        Raises:
            ExportPackagesMissing: SR-X702 names the packages.
        """
        if missing := self.missing(*modules):
            raise ExportPackagesMissing(runtime=self.name, packages=" ".join(missing), install=self.install)

    def ready(self, *bits: int) -> None:
        """Refuse, before anything is trained, what could not be written in the end.

        Args:
            bits: of the files that are wanted.

        Raises:
            ExportPackagesMissing: SR-X702 a package is not installed.
            UnsupportedBits: SR-X731 files of this kind can't hold such weights.
        """
        for one in bits:
            self.check_bits(one)
        self.require()

    def check_bits(self, bits: int) -> None:
        """Refuse weights of a width that files of this kind can't hold.

        Raises:
            ValueError: there are no such bits at all.
            UnsupportedBits: SR-X731.
        """
        if bits not in (32, 8, 4):
            raise ValueError(f"bits is 32, 8 or 4, not {bits}")
        if bits not in self.bits:
            able = " or ".join(str(one) for one in self.bits)
            problem = self.other_bits.get(bits, f"its files hold weights of {able} bits")
            raise UnsupportedBits(runtime=self.name, bits=bits, problem=problem, able=able, others=others_with(bits))

    def status(self) -> dict[str, str]:
        """Subject -> whether it is installed here, for `stillroom doctor`."""
        return {self.name: f"missing: {self.install}" if self.missing() else "installed"}

    @property
    def measurable(self) -> bool:
        """Whether its files can be measured in a process of their own, and so on another machine."""
        return type(self).on_device is not Runtime.on_device

    def device_script(self) -> str:
        """`on_device` as a Python file of its own, for a machine on which nothing of this program is installed."""
        return standalone(self.on_device, f"How a {self.info.title} file is opened.", called="on_device")


def find(name: str) -> Runtime:
    """The runtime of that name, or one's own.

    Raises:
        UnknownRuntime: SR-X733 there is none; the nearest name is suggested.
    """
    try:
        found = pick("export", name)
    except (UnknownName, ImportedNameFailed) as problem:
        raise UnknownRuntime(problem=problem.what) from problem
    runtime = found() if isinstance(found, type) and issubclass(found, Runtime) else found
    if not isinstance(runtime, Runtime):
        raise UnknownRuntime(problem=f"{name!r} is {found!r}, and neither a subclass nor an instance of Runtime")
    return runtime


def built_in() -> dict[str, Runtime]:
    """Every runtime that comes with the program, by name."""
    return {name: find(name) for name in choices("export")}


def packages(names: Iterable[str] = ()) -> list[str]:
    """The packages of all runtimes that come with the program, and of those named."""
    runtimes = {**built_in(), **{name: find(name) for name in names}}
    return list(dict.fromkeys(package for runtime in runtimes.values() for package in runtime.packages.values()))


def others_with(bits: int) -> str:
    """The runtimes whose files hold weights of that many bits, in words."""
    return " and ".join(name for name, runtime in built_in().items() if bits in runtime.bits)


def kept_info(name: str) -> dict[str, Any]:
    """What `metrics.json` keeps of a runtime that is one's own: pages are written from files and import no code."""
    return {"runtime": asdict(find(name).info)} if ":" in name else {}


def info(name: str, kept: Any = None) -> RuntimeInfo | None:
    """What pages print about a runtime: of its name, if the program has it, else what was kept; None if nothing was."""
    return find(name).info if name in choices("export") else RuntimeInfo.read(kept)
