"""One contestant, once: `python contestant.py JOB` prints its rate as the last line, in JSON."""

from __future__ import annotations

import importlib
import json
from importlib import metadata

from job import Job

CONTESTANTS = {
    "bare": ("bare", {}),
    "untaught": ("by_stillroom", {"taught": False}),
    "live": ("by_stillroom", {"taught": True}),
    "cached": ("by_stillroom", {"taught": True, "cached": True}),
    "torchdistill": ("by_torchdistill", {}),
    "timm": ("by_timm", {}),
}
OTHERS = {"cache": ("caching", {})}


def main() -> None:
    job = Job.told()
    module, arguments = (CONTESTANTS | OTHERS)[job.who]
    found = importlib.import_module(module).run(job, **arguments)
    if job.who == "torchdistill":
        found["version"] = metadata.version("torchdistill")
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
