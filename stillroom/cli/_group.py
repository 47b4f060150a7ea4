"""The command group, and the options that all commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from stillroom import __version__


def common(function: Callable[..., int | None]) -> Callable[..., None]:
    """Adds the common options, error handling and exit code to a command; tracebacks only with `-v`."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
    @click.option("-v", "--verbose", is_flag=True, help="Show debug messages and tracebacks.")
    @click.option("-q", "--quiet", is_flag=True, help="Show warnings, errors and the result only.")
    @wraps(function)
    def command(as_json: bool, verbose: bool, quiet: bool, **arguments: Any) -> None:
        from stillroom.cli import console

        sys.path.insert(0, os.getcwd())  # `package.module:Name` may be the user's own code, beside the recipe
        console.configure_logging(None, verbose=verbose, quiet=quiet)
        try:
            code = function(as_json=as_json, verbose=verbose, quiet=quiet, **arguments)
        except click.ClickException:
            raise
        except (Exception, KeyboardInterrupt) as problem:
            resume = " ".join(["stillroom", *sys.argv[1:]])
            code = console.report_error(problem, as_json=as_json, verbose=verbose, resume=resume)
        finally:
            console.close_logging()
        sys.exit(code or 0)

    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def main() -> None:
    """Distil a large vision model into a small one on your images, and measure the result.

    \b
    stillroom demo
    stillroom run teacher=timm/convnext_base student=timm/mobilenetv4_conv_small data=photos/
    stillroom run fashion

    Exit codes: 0 done, 2 usage or recipe, 3 data, 4 model, 5 memory or disk, 6 diverged, 7 verification failed,
    8 done, but the deployment limits were missed, 130 Ctrl-C, 143 SIGTERM (saved; the same command resumes).
    """
