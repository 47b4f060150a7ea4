"""Commands for a finished run: eval, export, bench, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from stillroom.cli._group import common, main


def _renamed(_context: click.Context, option: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.UsageError(f"--{option.name} was renamed to --runtime")


@main.command("eval")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("data", default="")
@click.option(
    "--split", type=click.Choice(["train", "val", "test"]), default=None, help="Default: test, or all of other images."
)
@common
def eval_(folder: Path, data: str, split: str | None, as_json: bool, **_: Any) -> int:
    """Evaluate the networks and files of a run.

    On its own test split, or on other images with the same classes.

    \b
    stillroom eval runs/digits
    stillroom eval runs/photos data=new_photos/
    stillroom eval runs/photos --split val --json
    """
    from stillroom.cli import console, tables
    from stillroom.pipeline.finished import FinishedRun

    finished = FinishedRun(folder)
    found, task = finished.evaluate(data.removeprefix("data=") or None, split=split), finished.run.info.get("task")
    console.out.print_json(json.dumps(found)) if as_json else console.out.print(tables.results(found, task))
    return 0


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--runtime", default="onnx", help="One of `stillroom list runtimes`.")
@click.option("--target", default=None, hidden=True, callback=_renamed, expose_value=False)
@click.option(
    "--bits", type=click.Choice(["32", "8", "4"]), default="32", help="Bits per weight; with 4, activations stay float."
)
@click.option("--agreement", type=float, default=None, help="Minimum agreement with the student, 0 to 1.")
@common
def export(folder: Path, runtime: str, bits: str, agreement: float | None, as_json: bool, **_: Any) -> int:
    """Export the student of a run, and verify the file with its runtime.

    \b
    stillroom export runs/digits --bits 8
    stillroom export runs/digits --runtime openvino --bits 8
    stillroom export runs/digits --bits 8 --agreement 0.99
    """
    from stillroom.cli import console
    from stillroom.pipeline.finished import FinishedRun

    path = FinishedRun(folder).export(runtime, bits=int(bits), agreement=agreement)
    console.out.print_json(json.dumps({"path": str(path)})) if as_json else console.out.print(str(path), markup=False)
    return 0


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--seconds", type=float, default=3.0, help="Total time for all networks and files.")
@click.option("--profile", default="", help="A device profile: one of `stillroom list profiles` or a TOML file.")
@click.option("--host", default="", help="Another machine, in ssh syntax; it needs Python, numpy and the runtime.")
@common
def bench(folder: Path, seconds: float, profile: str, host: str, as_json: bool, **_: Any) -> int:
    """Measure the latency of the networks and files of a run.

    On this machine; with --host or --profile, of its files on that device.

    \b
    stillroom bench runs/digits
    stillroom bench runs/digits --seconds 20
    stillroom bench runs/digits --host pi@raspberrypi.local
    stillroom bench runs/digits --profile cpu --json
    """
    from stillroom.cli import console, tables
    from stillroom.config.device_profile import with_profile
    from stillroom.config.schema import Deploy
    from stillroom.pipeline.finished import FinishedRun

    device = with_profile(Deploy(profile=profile, host=host)) if profile or host else None
    found = FinishedRun(folder).bench(seconds, device)
    if as_json:
        console.out.print_json(json.dumps(found))
    else:
        console.out.print(tables.latencies(found))
    return 0


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@common
def report(folder: Path, as_json: bool, **_: Any) -> int:
    """Regenerate report and model card of a run.

    From the files of its folder, which may hold several seeds.

    \b
    stillroom report runs/digits
    stillroom report runs/digits --json
    stillroom report runs/photos && xdg-open runs/photos/report.html
    """
    from stillroom import report as pages
    from stillroom.cli import console
    from stillroom.report import multi_seed, multi_seed_page

    if multi_seed.is_multi_seed(folder):
        path = multi_seed_page.write(folder)
    else:
        pages.card(folder)
        path = pages.write(folder)
    console.out.print_json(json.dumps({"path": str(path)})) if as_json else console.out.print(str(path), markup=False)
    return 0
