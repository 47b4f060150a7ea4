"""The results of a run in sentences, with no stronger claim than one run on one test split supports."""

from __future__ import annotations

from stillroom.report import gain
from stillroom.report.format import divide, interval, percent, share, times
from stillroom.report.run_data import ModelResult, RunData, precision_name


def headline(run: RunData) -> str:
    """The first sentence: quality and cost relative to the teacher, and the state of the smallest file."""
    student, teacher = run.model("student"), run.model("teacher")
    if student is None or run.headline(student) is None:
        return f"No {run.task.metric_name} of a student was recorded in this run."
    sentence = _quality(run, student, teacher) + _cost(student, teacher)
    file = _smallest_file(run.files)
    return f"{sentence}; {file}." if file else f"{sentence}."


def methods(run: RunData) -> list[str]:
    """What each method compares between student and teacher, and why it was chosen, as recorded before training."""
    record = run.info.get("lessons")
    if not isinstance(record, dict) or not isinstance(pairs := record.get("pairs"), dict):
        return []
    why = [f"Chosen for the situation “{record['auto']}”: {record.get('why', '')}."] if record.get("auto") else []
    return why + [
        f"{label}: {'; '.join(map(str, compared)) if compared else 'predictions'}"
        for label, compared in pairs.items()
        if isinstance(compared, list)
    ]


def state(run: RunData) -> str:
    """A sentence about a run that did not end normally; empty for one that did."""
    status, code = str(run.info.get("status") or "unknown"), run.info.get("exit_code")
    bad = [model.label for model in run.files if not model.verified]
    if bad:
        files = f"The {bad[0]} file is" if len(bad) == 1 else f"The {' and '.join(bad)} files are"
        return f"{files} UNVERIFIED: the output differs too much from the student's, or was not compared. Don't deploy."
    # The pipeline writes the report just before it ends the run: metrics are the last thing that a run adds.
    if status not in ("done", "unverified") and not (status == "running" and run.models):
        return f"This run is not finished: its status is “{status}”. The page shows what its folder holds so far."
    if code == 8:
        return "The run is done, but the deployment limits of its recipe were not met."
    return f"The run ended with exit code {code}." if code not in (0, None) else ""


def limitations(run: RunData) -> list[str]:
    """What the results do not show, for the card and for the last part of the report."""
    student = run.model("student")
    metric = student.metrics.get(run.task.headline) if student else None
    found = []
    if metric is not None and metric.n:
        ends = f" (95 % interval {interval(metric.ci95)})" if metric.ci95 else ""
        title = run.task.title
        found.append(
            f"{title} was measured on {metric.n:,} test images of one data set{ends}; other images may differ."
        )
    if run.task.teacher_is_reference:
        found.append("No image had a label: how often student or teacher are correct was not measured.")
    found += _seed_limitations(run)
    if student and student.value("latency_ms") is not None:
        found.append("Latency and throughput apply to the machine named here; another machine has other values.")
    where = str(run.deployment.get("where") or "")
    if where not in ("", "this machine"):
        found.append(f"The deployment limits were checked on {where}, all other values on the machine named here.")
    if gain.verdict(run)[0] in ("open", "worse"):
        found.append("This run does not show that the student is better than the baseline.")
    found.append("Robustness to other cameras, crops, noise or classes outside the list was not measured.")
    return found


def _seed_limitations(run: RunData) -> list[str]:
    seeds, students = run.info.get("seeds"), run.info.get("students")
    if not isinstance(seeds, list):
        return []
    if isinstance(students, int) and students > 1:
        return [f"One of {students} seeds ({seeds[0]}); the page in the folder above shows the differences."]
    if len(seeds) == 1:
        return [f"One seed ({seeds[0]}): the variation between seeds was not measured."]
    return []


def _quality(run: RunData, student: ModelResult, teacher: ModelResult | None) -> str:
    ours, theirs, name = run.headline(student), run.headline(teacher), run.task.metric_name
    if run.task.teacher_is_reference:
        return f"The student agrees with its teacher on {percent(ours)} of the test images"
    ratio = divide(ours, theirs)
    if teacher is None or ours is None or theirs is None or ratio is None:
        return f"The student reaches {percent(ours)} {name}"
    if ours < theirs:
        return f"The student retains {percent(min(ratio, 0.999) if ratio > 0.999 else ratio)} of the teacher's {name}"
    if ours == theirs:
        good, of = ("accurate", "") if run.task.predicts_classes else ("good", f"{name} ")
        return f"The student is as {good} as its teacher ({of}{percent(ours)})"
    of = "" if run.task.predicts_classes else f"{name} "
    return f"The student scores above its teacher ({of}{percent(ours)} vs. {percent(theirs)})"


def _cost(student: ModelResult, teacher: ModelResult | None) -> str:
    for name, unit in (("macs", "MACs"), ("parameters", "parameters")):
        ratio = divide(student.value(name), teacher.value(name) if teacher else None)
        if ratio is not None and ratio <= 1:
            return f" with {share(ratio, 1)} of its {unit}"
        if ratio is not None:
            return f", with {times(ratio)} its {unit}"
    return ""


def _smallest_file(files: tuple[ModelResult, ...]) -> str:
    small = min((file for file in files if file.bits), key=lambda file: file.bits or 32, default=None)
    if small is None:
        return ""
    status = "verified" if small.verified else "UNVERIFIED"
    same_runtime = [file for file in files if file.target == small.target and (file.bits or 32) > (small.bits or 32)]
    large = max(same_runtime, key=lambda file: file.bits or 32, default=None)
    ratio = divide(large.value("bytes"), small.value("bytes")) if large else None
    if large is None or ratio is None:
        return f"the {small.label} file is {status}"
    precision, other = precision_name(small.bits), precision_name(large.bits)
    if ratio < 1.05:
        return f"the {precision} file is no smaller than the {other} file, and {status}"
    conjunction = "and verified" if small.verified else "but UNVERIFIED"
    return f"the {precision} file is {times(ratio)} smaller than the {other} file {conjunction}"
