"""The command itself, and what all of its verbs share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from stillroom import __version__


def common(function: Callable[..., int | None]) -> Callable[..., None]:
    """The options every verb has, and how every verb ends: one exit code, no traceback unless it is asked for."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more, and show tracebacks.")
    @click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong, and the result.")
    @wraps(function)
    def verb(as_json: bool, verbose: bool, quiet: bool, **arguments: Any) -> None:
        from stillroom.cli import console

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
    8 done, but the target was missed, 130 Ctrl-C, 143 SIGTERM (everything is saved; the same command goes on).
    """
