"""The verbs. Heavy imports wait inside them, so that `stillroom --help` answers at once."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillroom import __version__

if TYPE_CHECKING:
    from stillroom.engine import Engine, Signals
    from stillroom.run import Run
    from stillroom.sections import Recipe

KINDS = {
    "sources": "data/sources",
    "students": "models",
    "teachers": "models",
    "tasks": "tasks",
    "methods": "methods",
    "targets": "export",
    "metrics": "metrics",
    "recipes": "",
}


def common(function: Callable[..., int | None]) -> Callable[..., None]:
    """The options every verb has, and how every verb ends: one exit code, no traceback unless it is asked for."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more, and show tracebacks.")
    @click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong, and the result.")
    @wraps(function)
    def verb(as_json: bool, verbose: bool, quiet: bool, **arguments: Any) -> None:
        from stillroom import console

        sys.path.insert(0, os.getcwd())  # `package.module:Name` means the user's own code, beside the recipe
        console.listen(None, verbose=verbose, quiet=quiet)
        try:
            code = function(as_json=as_json, verbose=verbose, quiet=quiet, **arguments)
        except click.ClickException:
            raise
        except (Exception, KeyboardInterrupt) as problem:
            resume = " ".join(["stillroom", *sys.argv[1:]])
            code = console.end(problem, as_json=as_json, verbose=verbose, resume=resume)
        finally:
            console.hush()
        sys.exit(code or 0)

    return verb


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Turn a large vision model and a set of images into a small model, and prove how good it is.

    \b
    stillroom demo
    stillroom run teacher=timm/convnext_base student=timm/mobilenetv4_conv_small data=photos/
    stillroom run fashion

    Exit codes: 0 done, 2 usage or recipe, 3 data, 4 model, 5 memory or disk, 6 diverged, 7 verification failed,
    130 Ctrl-C, 143 SIGTERM (everything is saved; the same command goes on).
    """


@main.command()
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Where to write; runs/digits by default.")
@common
def demo(folder: Path | None, **said: Any) -> int:
    """Real handwritten digits: teacher, untaught student, taught student, verified int8 file, report.

    \b
    stillroom demo
    stillroom demo --folder /tmp/demo
    stillroom demo --json
    """
    return _run(("digits",), folder, "auto", **said)


@main.command()
@click.argument("words", nargs=-1, metavar="[RECIPE] [KEY=VALUE ...]")
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Where to write; runs/NAME by default.")
@click.option("--devices", default="auto", help="Processes; 'auto' is every accelerator, or one process on a CPU.")
@click.option("--seeds", type=click.IntRange(min=1), default=None, help="So many seeds from 0 on, with one teacher.")
@common
def run(words: tuple[str, ...], folder: Path | None, devices: str, seeds: int | None, **said: Any) -> int:
    """Do what a recipe says. The same command again resumes.

    \b
    stillroom run fashion data.path=fashion_mnist/
    stillroom run teacher=timm/convnext_base student=timm/mobilenetv4_conv_small data=photos/
    stillroom run photos.toml train.lr=3e-4 name=photos-slow
    stillroom run fashion data.path=fashion_mnist/ --seeds 5
    """
    return _run(words, folder, devices, seeds, **said)


def _run(
    words: tuple[str, ...],
    folder: Path | None,
    devices: str,
    seeds: int | None = None,
    *,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> int:
    from stillroom import console, several, tables
    from stillroom.engine import Engine, Signals

    recipe = _read(words, seeds)
    place, alone = folder or Path("runs") / recipe.name, len(recipe.seeds) == 1
    with Signals().listen() as signals:
        end = partial(console.end, as_json=as_json, verbose=verbose)
        engine = Engine(int(devices) if devices.isdigit() else "auto", end=end)

        def do(one: Recipe, place: Path, **shared: Any) -> None:
            finished = _run_one(one, place, engine, signals, verbose=verbose, quiet=quiet, **shared)
            if engine.first and not as_json:
                console.out.print(tables.results(finished.metrics, finished.info.get("task")))
                console.out.print(f"{place}/report.html", markup=False)
            elif engine.first and alone:
                console.out.print_json(json.dumps({"folder": str(place), "metrics": finished.metrics}))

        failures = several.run(recipe, place, do, writes=engine.first)
    if engine.first and not alone:
        console.several(place, as_json=as_json, failed=bool(failures))
    for failure in failures:
        raise failure
    return 0


def _run_one(
    recipe: Recipe, folder: Path, engine: Engine, signals: Signals, *, verbose: bool, quiet: bool, **shared: Any
) -> Run:
    from stillroom import console, pipeline, tables
    from stillroom.run import Run

    first = engine.first
    watch = console.Watch(quiet=quiet or not first)
    console.listen(folder, verbose=verbose, quiet=quiet, first=first)
    try:
        return pipeline.run(recipe, folder, engine=engine, signals=signals, progress=watch, **shared)
    except Exception as problem:
        if getattr(problem, "code", "") == "SR-X701" and not quiet:
            failed = Run(folder)
            console.err.print(tables.results(failed.metrics, failed.info.get("task")))
        raise
    finally:
        watch.close()


def _read(words: tuple[str, ...], seeds: int | None = None) -> Recipe:
    from stillroom import recipe
    from stillroom.errors import Failure

    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise Failure("SR-C403", text=names[1])
    overrides = dict(recipe.parse_override(word) for word in words if "=" in word)
    if seeds is not None and "seeds" in overrides:
        raise Failure("SR-C430", count=seeds, seeds=overrides["seeds"])
    if seeds is not None:
        overrides["seeds"] = list(range(seeds))
    if not names and not overrides:
        raise click.UsageError("name a recipe, or say at least teacher=... student=... data=...")
    return recipe.read(names[0] if names else None, overrides)


@main.command()
@click.argument("words", nargs=-1, metavar="[RECIPE] [KEY=VALUE ...]")
@common
def check(words: tuple[str, ...], as_json: bool, **_: Any) -> int:
    """All that can be known without training: the recipe, the images, one real batch through both networks.

    \b
    stillroom check photos.toml
    stillroom check teacher=resnet56 student=resnet8 data=photos/
    stillroom check fashion data.path=fashion_mnist/ --json
    """
    from stillroom import console
    from stillroom.check import check as look

    found = look(_read(words))
    if as_json:
        console.out.print_json(json.dumps(found))
    else:
        width = max(map(len, found))
        for name, text in found.items():
            lines = text if isinstance(text, list) else [text]
            for i, line in enumerate(lines):
                console.out.print(f"{name if i == 0 else '':{width}} {line}", markup=False)
    return 0


@main.command()
@click.argument("words", nargs=-1, metavar="[RECIPE] [KEY=VALUE ...]")
@click.option("--devices", default="auto", help="Processes; 'auto' is every accelerator, or one process on a CPU.")
@click.option("--compile", is_flag=True, help="Time the student compiled too; takes a minute.")
@common
def plan(words: tuple[str, ...], devices: str, compile: bool, as_json: bool, **_: Any) -> int:
    """Times real batches, then says hours, memory and disk, and whether the teacher is asked once or at every step.

    \b
    stillroom plan photos.toml
    stillroom plan fashion data.path=fashion_mnist/ augment.views=8
    stillroom plan photos.toml --compile --json
    """
    from stillroom import console
    from stillroom.engine import Engine, Signals
    from stillroom.plan import plan as look

    recipe = _read(words)
    with Signals().listen() as signals:
        engine = Engine(int(devices) if devices.isdigit() else "auto")
        found = look(recipe, engine=engine, signals=signals, compile=compile)
    console.out.print_json(json.dumps(found)) if as_json else console.plan(found)
    return 0


@main.command()
@click.argument("words", nargs=-1, metavar="[RECIPE] [KEY=VALUE ...]")
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="The run's; runs/NAME by default.")
@click.option("--devices", default="auto", help="Processes; 'auto' is every accelerator, or one process on a CPU.")
@click.option("--audit", type=click.FloatRange(0, 1), default=0.01, help="Share that the teacher is asked about again.")
@common
def label(words: tuple[str, ...], folder: Path | None, devices: str, audit: float, as_json: bool, **_: Any) -> int:
    """Fill the teacher's cache. Any number of processes and machines may do it at once; the same command resumes.

    \b
    stillroom label photos.toml augment.views=8
    stillroom label photos.toml & stillroom label photos.toml
    stillroom label photos.toml --audit 0.05 --json
    """
    from stillroom import console
    from stillroom.engine import Engine, Signals
    from stillroom.label import label as fill

    recipe = _read(words)
    with Signals().listen() as signals:
        engine = Engine(int(devices) if devices.isdigit() else "auto")
        found = fill(recipe, folder or Path("runs") / recipe.name, engine=engine, signals=signals, share=audit)
    if as_json:
        console.out.print_json(json.dumps(found))
    else:
        console.labelled(found)
    return 0


@main.command("list")
@click.argument("kind", type=click.Choice(sorted(KINDS)))
@click.argument("like", default="")
@common
def list_(kind: str, like: str, as_json: bool, **_: Any) -> int:
    """What may be written in a recipe, and what it is.

    \b
    stillroom list methods
    stillroom list students mobilenet
    stillroom list recipes --json
    """
    from stillroom import console
    from stillroom.listing import listing

    rows = listing(kind, KINDS[kind], like)
    if as_json:
        console.out.print_json(json.dumps(rows))
    else:
        width = max((len(name) for name in rows), default=0)
        for name, text in rows.items():
            console.out.print(f"{name:{width}}  {text}".rstrip(), markup=False)
    return 0


@main.command()
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path), default=None, help="The file to write; NAME.toml by default.")
@common
def new(name: str, to: Path | None, **_: Any) -> int:
    """Copy a built-in recipe, to edit.

    \b
    stillroom new digits
    stillroom new flowers --to photos.toml
    stillroom new fashion --json
    """
    from stillroom import console, recipe
    from stillroom.errors import Failure
    from stillroom.plugins import near

    target = to or Path(f"{name}.toml")
    if name not in recipe.built_in():
        raise Failure("SR-C401", path=name, hint=near(name, recipe.built_in()))
    if target.exists():
        raise Failure("SR-C404", path=target)
    target.write_text((recipe.BUILT_IN / f"{name}.toml").read_text(encoding="utf-8"), encoding="utf-8")
    console.out.print(str(target), markup=False)
    return 0


@main.command("eval")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("data", default="")
@click.option("--split", type=click.Choice(["train", "val", "test"]), default=None)
@common
def eval_(folder: Path, data: str, split: str | None, as_json: bool, **_: Any) -> int:
    """A run's networks and files on images: its own test split, or all of others with the same classes.

    \b
    stillroom eval runs/digits
    stillroom eval runs/photos data=new_photos/
    stillroom eval runs/photos --split val --json
    """
    from stillroom import console, tables
    from stillroom.reopen import Finished

    finished = Finished(folder)
    found, task = finished.evaluate(data.removeprefix("data=") or None, split=split), finished.run.info.get("task")
    console.out.print_json(json.dumps(found)) if as_json else console.out.print(tables.results(found, task))
    return 0


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--target", default="onnx", help="One of `stillroom list targets`.")
@click.option("--bits", type=click.Choice(["32", "8"]), default="32")
@click.option("--agreement", type=float, default=None, help="Least agreement with the student, 0 to 1.")
@common
def export(folder: Path, target: str, bits: str, agreement: float | None, as_json: bool, **_: Any) -> int:
    """One more file of a run's student, verified on its own runtime.

    \b
    stillroom export runs/digits --bits 8
    stillroom export runs/digits --target onnx
    stillroom export runs/digits --bits 8 --agreement 0.99
    """
    from stillroom import console
    from stillroom.reopen import Finished

    path = Finished(folder).export(target, bits=int(bits), agreement=agreement)
    console.out.print_json(json.dumps({"path": str(path)})) if as_json else console.out.print(str(path), markup=False)
    return 0


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seconds", type=float, default=3.0, help="For all networks and files together.")
@common
def bench(folder: Path, seconds: float, as_json: bool, **_: Any) -> int:
    """Times of a run's networks and files on this machine, taken in turns.

    \b
    stillroom bench runs/digits
    stillroom bench runs/digits --seconds 20
    stillroom bench runs/digits --json
    """
    from stillroom import console, tables
    from stillroom.reopen import Finished

    found = Finished(folder).bench(seconds)
    if as_json:
        console.out.print_json(json.dumps(found))
    else:
        console.out.print(tables.times(found))
    return 0


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@common
def report(folder: Path, as_json: bool, **_: Any) -> int:
    """Write a run's report.html and model card again, from its files; of several seeds, the page of all of them.

    \b
    stillroom report runs/digits
    stillroom report runs/digits --json
    stillroom report runs/photos && xdg-open runs/photos/report.html
    """
    from stillroom import console
    from stillroom import report as pages
    from stillroom.report import seeds, spread

    if seeds.there(folder):
        path = spread.write(folder)
    else:
        pages.card(folder)
        path = pages.write(folder)
    console.out.print_json(json.dumps({"path": str(path)})) if as_json else console.out.print(str(path), markup=False)
    return 0


@main.command()
@common
def doctor(as_json: bool, **_: Any) -> int:
    """What there is here: devices, runtimes, disk, what is missing and how to get it.

    \b
    stillroom doctor
    stillroom doctor --json
    stillroom doctor -v
    """
    from stillroom import console
    from stillroom.doctor import examine

    found = examine()
    if as_json:
        console.out.print_json(json.dumps(found))
    else:
        for name, text in found.items():
            console.out.print(f"{name:12} {text}", markup=False)
    return 0
