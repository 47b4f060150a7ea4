"""Errors of model libraries, turned into this program's own, and the detection of a missing network connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import getproxies

from stillroom.errors import StillroomError
from stillroom.models._errors import InvalidModelArguments, PretrainedWeightsNotFound, WeightsNotCached

UNREACHABLE = (ConnectionError, TimeoutError, socket.gaierror)
UNREACHABLE_NAMES = {
    "ConnectError",  # of httpx, used by huggingface_hub; compared by name, because neither has to be installed
    "ConnectTimeout",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
}


@contextmanager
def argument_errors(name: str) -> Iterator[None]:
    """Turn any error of a model's constructor into SR-M304."""
    try:
        yield
    except (StillroomError, MemoryError):
        raise
    except Exception as problem:
        raise InvalidModelArguments(model=name, problem=first_line(problem)) from problem


@contextmanager
def download_errors(name: str) -> Iterator[None]:
    """Turn a download that fails without a network connection into SR-N801, any other error into SR-M308."""
    try:
        yield
    except (StillroomError, MemoryError):
        raise
    except Exception as problem:
        if is_offline_error(problem):
            raise WeightsNotCached(file=f"the pretrained weights of {name}", problem=first_line(problem)) from problem
        raise PretrainedWeightsNotFound(model=name, problem=first_line(problem), near="") from problem


@contextmanager
def hub_offline_if_unreachable(wanted: bool) -> Iterator[None]:
    """Put the Hugging Face library into offline mode if the name of its host can't be resolved.

    Offline it uses its cache at once; otherwise it would first make five attempts that take most of a minute.
    """
    import huggingface_hub.constants as constants

    before = constants.HF_HUB_OFFLINE
    try:
        if wanted and not before and not getproxies():  # a proxy may resolve names that this machine can't
            constants.HF_HUB_OFFLINE = not _resolves(urlsplit(constants.ENDPOINT).hostname)
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def is_offline_error(problem: BaseException | None) -> bool:
    """Whether an error, or any error that caused it, is an unreachable network."""
    seen = set[int]()
    while problem is not None and id(problem) not in seen:
        seen.add(id(problem))
        unreachable = isinstance(problem, URLError) and not isinstance(problem, HTTPError)
        if unreachable or isinstance(problem, UNREACHABLE) or type(problem).__name__ in UNREACHABLE_NAMES:
            return True
        problem = problem.__cause__ or problem.__context__
    return False


def first_line(problem: Any) -> str:
    """The first line of an error's text, with its type if the text is short."""
    lines = str(problem).strip().splitlines()
    text = lines[0][:300] if lines else ""
    return text if len(text) > 20 else f"{type(problem).__name__}: {text}".rstrip(": ")


def _resolves(host: str | None) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False
