"""Measurements that fail or are unreliable, and device limits that are missed."""

from __future__ import annotations

from stillroom.errors import BenchmarkError, DeviceLimitError, Exit


class UnstableTiming(BenchmarkError):
    code = "SR-B901"
    exit = Exit.DONE
    what = "unstable timing of {name}: spread {spread:.0%} > {limit:.0%}"
    why = "other programs or the processor's clock changed the times while they were taken"
    effect = "the time is reported with a flag, and no claim rests on it"
    fix = "let the machine rest and repeat `stillroom bench`"


class DriftingTiming(BenchmarkError):
    code = "SR-B902"
    exit = Exit.DONE
    what = "drifting timing of {name}: the last third took {drift:.2f} times as long as the first"
    why = (
        "the processor's clock changed while times were taken, for it grew hot or woke up; or another program began "
        "or ended"
    )
    effect = "the time is reported with a flag, and no claim rests on it"
    fix = "let the machine rest and cool, and repeat `stillroom bench`"


class HostUnreachable(BenchmarkError):
    code = "SR-B910"
    what = "can't reach {host}"
    why = "{problem}"
    effect = "nothing was measured there"
    fix = "try `ssh {host} true`: it must work without asking for anything (a key in ~/.ssh, the host known)"


class RuntimeNotInstalled(BenchmarkError):
    code = "SR-B911"
    what = "{package} is not installed on {where}"
    why = "{runtime} files are measured with it, by {python}: {problem}"
    effect = "nothing was measured there"
    fix = "on {where}: {python} -m pip install {package}; or name another Python that has it: deploy.python"


class MeasurementFailed(BenchmarkError):
    code = "SR-B912"
    what = "measuring failed on {where}"
    why = "{problem}"
    effect = "nothing was measured there, and nothing is left there"
    fix = "check that the file is whole and the runtime there is as new as here; `deploy.python` names the Python"


class MeasurementTimedOut(BenchmarkError):
    code = "SR-B913"
    what = "measuring did not end on {where} within {seconds} s"
    why = "the connection hangs, or the device is far slower than this kind of file needs"
    effect = "nothing was measured there"
    fix = "try again, or take a smaller student"


class InvalidHostName(BenchmarkError):
    code = "SR-B914"
    exit = Exit.USAGE
    what = "not a host name   {host}"
    why = "a host is NAME, USER@NAME or a name of ~/.ssh/config: letters, digits and . _ - @ : % / [ ], no `-` in front"
    effect = "nothing was started"
    fix = "mend deploy.host; options belong into ~/.ssh/config"


class UnsupportedRuntime(BenchmarkError):
    code = "SR-B915"
    exit = Exit.USAGE
    what = "files for {runtime} can't be measured in a process of their own"
    why = "the runtime does not declare how a device opens them"
    effect = "nothing was measured"
    fix = "give its class an `on_device`, see docs/deploy.md; or name another runtime of `stillroom list runtimes`"


class DeviceLimitsMissed(DeviceLimitError):
    code = "SR-B930"
    what = "the target is missed: {why}, and the budget is {limits}"
    why = "what was measured in the end is beyond it"
    effect = "everything is done and written down; the report shows it beside the figures"
    fix = (
        '`stillroom plan` shows what each compression would come to; prune further (`[[compress]] name = "prune", '
        "macs = ...`), choose a smaller student or another runtime, or allow more in [deploy]"
    )
