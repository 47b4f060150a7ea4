"""A search that finds no compression."""

from __future__ import annotations

from stillroom.errors import DeviceLimitError


class NoCompressionWithinLimits(DeviceLimitError):
    code = "SR-B931"
    what = "no compression of this student keeps within {limits} on {where}"
    why = "measured on untrained files: {rows}"
    effect = "nothing was trained"
    fix = (
        "choose a smaller student or another runtime, or allow more in [deploy]; a compression that you name "
        "yourself in [[compress]] is trained whatever it comes to"
    )
