"""Commands for a recipe: demo, run, check, plan, label."""

from __future__ import annotations

import json
from functools import partial
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
    from stillroom.pipeline.resume import RunResult, Shared


@main.command()
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Output folder; runs/digits by default.")
@common
def demo(folder: Path | None, **options: Any) -> int:
    """Run the built-in example on handwritten digits.

    Trains teacher, baseline and student, exports a verified int8 file and writes the report.

    \b
    stillroom demo
    stillroom demo --folder /tmp/demo
    stillroom demo --json
    """
    return _run(("digits",), folder, "auto", **options)


@main.command()
@click.argument("words", nargs=-1, metavar="[RECIPE] [KEY=VALUE ...]")
@click.option("--folder", type=click.Path(path_type=Path), default=None, help="Output folder; runs/NAME by default.")
@click.option("--devices", default="auto", help="Number of processes; 'auto': one per accelerator, or one on a CPU.")
@click.option(
    "--seeds", type=click.IntRange(min=1), default=None, help="Number of seeds, from 0; all share one teacher."
)
@common
def run(words: tuple[str, ...], folder: Path | None, devices: str, seeds: int | None, **options: Any) -> int:
    """Run a recipe. The same command again resumes.

    \b
    stillroom run fashion data.path=fashion_mnist/
    stillroom run teacher=timm/convnext_base student=timm/mobilenetv4_conv_small data=photos/
    stillroom run photos.toml train.lr=3e-4 name=photos-slow
    stillroom run fashion data.path=fashion_mnist/ --seeds 5
    """
    return _run(words, folder, devices, seeds, **options)


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
    from stillroom.cli import console
    from stillroom.distributed.engine import Engine
    from stillroom.distributed.signals import Signals
    from stillroom.pipeline import seeds as seed_runs

    recipe = _read(words, seeds)
    place, alone = folder or Path("runs") / recipe.name, len(recipe.seeds) == 1
    with Signals().listen() as signals:
        end = partial(console.report_error, as_json=as_json, verbose=verbose)
        engine = Engine(int(devices) if devices.isdigit() else "auto", end=end)

        def run_one(one: Recipe, place: Path, shared: Shared) -> RunResult:
            result = _run_one(one, place, engine, signals, shared, verbose=verbose, quiet=quiet)
            if engine.first:
                console.print_result(result, as_json=as_json, quiet=quiet, alone=alone)
            return result

        failures = seed_runs.run(recipe, place, run_one, writes=engine.first)
    if engine.first and not alone:
        console.print_multi_seed(place, as_json=as_json, failed=bool(failures))
    for failure in failures:
        raise failure
    return 0


def _run_one(
    recipe: Recipe, folder: Path, engine: Engine, signals: Signals, shared: Shared, *, verbose: bool, quiet: bool
) -> RunResult:
    from stillroom.cli import console
    from stillroom.pipeline import run

    first = engine.first
    progress = console.ProgressDisplay(quiet=quiet or not first)
    console.configure_logging(folder, verbose=verbose, quiet=quiet, first=first)
    try:
        return run.run(recipe, folder, shared, engine=engine, signals=signals, progress=progress)
    finally:
        progress.close()


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
        raise click.UsageError("give a recipe, or at least teacher=... student=... data=...")
    return recipe.read(names[0] if names else None, overrides)


@main.command()
@click.argument("words", nargs=-1, metavar="[RECIPE] [KEY=VALUE ...]")
@common
def check(words: tuple[str, ...], as_json: bool, **_: Any) -> int:
    """Check a recipe without training.

    Reads the images and runs one real batch through both networks.

    \b
    stillroom check photos.toml
    stillroom check teacher=resnet56 student=resnet8 data=photos/
    stillroom check fashion data.path=fashion_mnist/ --json
    """
    from stillroom.cli import console
    from stillroom.diagnostics.preflight import preflight

    found = preflight(_read(words))
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
@click.option("--devices", default="auto", help="Number of processes; 'auto': one per accelerator, or one on a CPU.")
@click.option("--compile", is_flag=True, help="Also time the compiled student; takes a minute.")
@common
def plan(words: tuple[str, ...], devices: str, compile: bool, as_json: bool, **_: Any) -> int:
    """Estimate hours, memory and disk space of a run.

    Times real batches; shows whether teacher outputs will be cached.

    \b
    stillroom plan photos.toml
    stillroom plan fashion data.path=fashion_mnist/ augment.num_views=8
    stillroom plan photos.toml --compile --json
    """
    from stillroom.cli import console
    from stillroom.diagnostics.cost import plan as measure_costs
    from stillroom.distributed.engine import Engine
    from stillroom.distributed.signals import Signals

    recipe = _read(words)
    with Signals().listen():
        engine = Engine(int(devices) if devices.isdigit() else "auto")
        found = measure_costs(recipe, engine=engine, compile=compile)
    console.out.print_json(json.dumps(found)) if as_json else console.print_plan(found)
    return 0


@main.command()
@click.argument("words", nargs=-1, metavar="[RECIPE] [KEY=VALUE ...]")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=None, help="Folder of the run; runs/NAME by default."
)
@click.option("--devices", default="auto", help="Number of processes; 'auto': one per accelerator, or one on a CPU.")
@click.option(
    "--audit", type=click.FloatRange(0, 1), default=0.01, help="Share of the entries to recompute and compare."
)
@common
def label(words: tuple[str, ...], folder: Path | None, devices: str, audit: float, as_json: bool, **_: Any) -> int:
    """Fill the cache of teacher outputs.

    Several processes and machines may do so at once; the same command resumes.

    \b
    stillroom label photos.toml augment.num_views=8
    stillroom label photos.toml & stillroom label photos.toml
    stillroom label photos.toml --audit 0.05 --json
    """
    from stillroom.cli import console
    from stillroom.distributed.engine import Engine
    from stillroom.distributed.signals import Signals
    from stillroom.io.run_dir import RunDir
    from stillroom.pipeline.prepare import prepare
    from stillroom.stages.fill_cache import fill_cache

    recipe = _read(words)
    with Signals().listen() as signals:
        engine = Engine(int(devices) if devices.isdigit() else "auto")
        run = RunDir(folder or Path("runs") / recipe.name, writes=False)
        found = fill_cache(prepare(recipe, engine), run, signals=signals, share=audit)
    if as_json:
        console.out.print_json(json.dumps(found))
    else:
        console.print_cache(found)
    return 0
