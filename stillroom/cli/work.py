"""Verbs that work on a recipe: demo, run, check, plan, label."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillroom.cli._group import common, main
from stillroom.cli.errors import SeedsGivenTwice
from stillroom.config.errors import InvalidOverride

if TYPE_CHECKING:
    from stillroom.config.schema import Recipe
    from stillroom.distributed.engine import Engine
    from stillroom.distributed.signals import Signals
    from stillroom.io.run_dir import RunDir


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
@click.option(
    "--max-restarts", type=click.IntRange(min=0), default=0, help="Times that failed processes are started again."
)
@click.option("--seeds", type=click.IntRange(min=1), default=None, help="So many seeds from 0 on, with one teacher.")
@common
def run(
    words: tuple[str, ...], folder: Path | None, devices: str, max_restarts: int, seeds: int | None, **said: Any
) -> int:
    """Do what a recipe says. The same command again resumes.

    \b
    stillroom run fashion data.path=fashion_mnist/
    stillroom run teacher=timm/convnext_base student=timm/mobilenetv4_conv_small data=photos/
    stillroom run photos.toml train.lr=3e-4 name=photos-slow
    stillroom run fashion data.path=fashion_mnist/ --seeds 5
    """
    return _run(words, folder, devices, seeds, max_restarts, **said)


def _run(
    words: tuple[str, ...],
    folder: Path | None,
    devices: str,
    seeds: int | None = None,
    max_restarts: int = 0,
    *,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> int:
    from stillroom.distributed.processes import processes
    from stillroom.distributed.signals import Signals

    recipe = _read(words, seeds)
    place, alone = folder or Path("runs") / recipe.name, len(recipe.seeds) == 1
    started = processes(int(devices) if devices.isdigit() else "auto", folder=place, max_restarts=max_restarts)
    with Signals().listen() as signals, started as engine:
        from stillroom.cli import console, tables
        from stillroom.pipeline import seeds as seed_runs  # the launcher has ended by now without its many imports

        def do(one: Recipe, place: Path, **shared: Any) -> None:
            finished = _run_one(one, place, engine, signals, verbose=verbose, quiet=quiet, **shared)
            if engine.first and not as_json:
                console.out.print(tables.results(finished.metrics, finished.info.get("task")))
                if said := tables.target(finished.metrics):
                    console.out.print(said, markup=False)
                console.out.print(f"{place}/report.html", markup=False)
            elif engine.first and alone:
                console.out.print_json(json.dumps({"folder": str(place), "metrics": finished.metrics}))

        failures = seed_runs.run(recipe, place, do, writes=engine.first)
        if engine.first and not alone:
            console.several(place, as_json=as_json, failed=bool(failures))
        for failure in failures:
            raise failure
    return 0


def _run_one(
    recipe: Recipe, folder: Path, engine: Engine, signals: Signals, *, verbose: bool, quiet: bool, **shared: Any
) -> RunDir:
    from stillroom.cli import console, tables
    from stillroom.errors import Exit
    from stillroom.io.run_dir import RunDir
    from stillroom.pipeline import run

    first = engine.first
    watch = console.Watch(quiet=quiet or not first)
    console.listen(folder, verbose=verbose, quiet=quiet, first=first)
    try:
        return run.run(recipe, folder, engine=engine, signals=signals, progress=watch, **shared)
    except Exception as problem:
        failed = RunDir(folder)
        if getattr(problem, "exit", None) in (Exit.UNVERIFIED, Exit.TARGET_MISSED) and failed.metrics and not quiet:
            console.err.print(tables.results(failed.metrics, failed.info.get("task")))
        raise
    finally:
        watch.close()


def _read(words: tuple[str, ...], seeds: int | None = None) -> Recipe:
    from stillroom.config import recipe

    names = [word for word in words if "=" not in word]
    if len(names) > 1:
        raise InvalidOverride(text=names[1])
    overrides = dict(recipe.parse_override(word) for word in words if "=" in word)
    if seeds is not None and "seeds" in overrides:
        raise SeedsGivenTwice(count=seeds, seeds=overrides["seeds"])
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
    from stillroom.cli import console
    from stillroom.diagnostics.preflight import preflight as look

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
    from stillroom.cli import console
    from stillroom.distributed.processes import processes
    from stillroom.distributed.signals import Signals

    recipe = _read(words)
    started = processes(int(devices) if devices.isdigit() else "auto")
    with Signals().listen() as signals, started as engine:
        from stillroom.diagnostics.cost import plan as look

        found = look(recipe, engine=engine, signals=signals, compile=compile)
        if engine.first:
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
    from stillroom.cli import console
    from stillroom.distributed.processes import processes
    from stillroom.distributed.signals import Signals

    recipe = _read(words)
    started = processes(int(devices) if devices.isdigit() else "auto")  # the run's folder may be another command's
    with Signals().listen() as signals, started as engine:
        from stillroom.stages.fill_cache import fill_cache as fill

        found = fill(recipe, folder or Path("runs") / recipe.name, engine=engine, signals=signals, share=audit)
        if engine.first and as_json:
            console.out.print_json(json.dumps(found))
        elif engine.first:
            console.labelled(found)
    return 0
