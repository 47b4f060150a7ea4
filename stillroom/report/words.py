"""What the numbers say, in sentences. Claims no more than one run on one test split can carry."""

from __future__ import annotations

from stillroom.report.folder import Folder, Speaker, kind
from stillroom.report.format import divide, interval, percent, points, share, times


def headline(folder: Folder) -> str:
    """The first sentence: what is kept of the teacher, at which cost, and what became of the smallest file."""
    student, teacher = folder.speaker("student"), folder.speaker("teacher")
    if student is None or folder.leads(student) is None:
        return f"No {folder.about.spoken} of a student was recorded in this run."
    said = _kept(folder, student, teacher) + _cost(student, teacher)
    file = _file(folder.files)
    return f"{said}; {file}." if file else f"{said}."


def verdict(folder: Folder) -> tuple[str, str]:
    """What teaching added over the same student untaught: ("better" | "worse" | "open" | "unknown", sentence)."""
    student, baseline = folder.speaker("student"), folder.speaker("baseline")
    taught, untaught = folder.leads(student), folder.leads(baseline)
    if student is None or taught is None:
        return "unknown", ""
    if baseline is None or untaught is None:
        return "unknown", "No untaught baseline was measured, so this run can't say what the teacher added."
    against = f"{percent(taught)} against {percent(untaught)}"
    if taught == untaught:
        good = "accurate" if folder.about.right and not folder.about.by_teacher else "good"
        return "open", f"The same student, untaught, is exactly as {good} ({percent(taught)}): no gain is shown here."
    gap, side = points(taught - untaught), "above" if taught > untaught else "below"
    ours, theirs = student.interval(folder.about.headline), baseline.interval(folder.about.headline)
    if ours is None or theirs is None:
        return "open", f"It scores {gap} {side} the same student untaught ({against}); no intervals were recorded."
    if max(ours[0], theirs[0]) <= min(ours[1], theirs[1]):
        shown = "helped" if taught > untaught else "helped or harmed"
        tail = f"the 95 % intervals overlap, so this run alone does not show that teaching {shown}."
        return "open", f"It scores {gap} {side} the same student untaught ({against}), but {tail}"
    if taught > untaught:
        said = f"Teaching added {gap} over the same student untaught ({against})"
        return "better", f"{said}; the 95 % intervals do not overlap."
    said = f"Teaching cost {gap}: the same student, untaught, is better ({against})"
    return "worse", f"{said}; the 95 % intervals do not overlap."


def lessons(folder: Folder) -> list[str]:
    """What the student imitated, where, and why, a sentence a method: as the run wrote it down before training."""
    said = folder.run.get("lessons")
    if not isinstance(said, dict) or not isinstance(pairs := said.get("pairs"), dict):
        return []
    why = [f"Chosen for the situation “{said['auto']}”: {said.get('why', '')}."] if said.get("auto") else []
    return why + [
        f"{label}: {'; '.join(map(str, places)) if places else 'predictions'}"
        for label, places in pairs.items()
        if isinstance(places, list)
    ]


def state(folder: Folder) -> str:
    """A sentence about a run that did not simply end well; empty for one that did."""
    status, code = str(folder.run.get("status") or "unknown"), folder.run.get("exit_code")
    bad = [speaker.label for speaker in folder.files if not speaker.verified]
    if bad:
        files = f"The {bad[0]} file is" if len(bad) == 1 else f"The {' and '.join(bad)} files are"
        return f"{files} UNVERIFIED: what comes out differs too much from the student, or was not compared. Don't ship."
    # The pipeline writes the report just before it ends the run: figures are the last thing that a run adds.
    if status not in ("done", "unverified") and not (status == "running" and folder.speakers):
        return f"This run is not finished: its status is “{status}”. What follows is what its folder holds so far."
    if code == 8:
        return "The run is done, but the target that its recipe sets was not met."
    return f"The run ended with exit code {code}." if code not in (0, None) else ""


def limits(folder: Folder) -> list[str]:
    """What a reader must not conclude: for the card and for the report's last part."""
    student = folder.speaker("student")
    found = student.figures.get(folder.about.headline) if student else None
    said = []
    if found is not None and found.n:
        end = f" (95 % interval {interval(found.ci95)})" if found.ci95 else ""
        title = folder.about.title
        said.append(f"{title} was measured on {found.n:,} test images of one data set{end}; other images may differ.")
    if folder.about.by_teacher:
        said.append("No image had a label: how often the student, or its teacher, is right was not measured.")
    seeds = folder.run.get("seeds")
    students = folder.run.get("students")
    if isinstance(seeds, list) and isinstance(students, int) and students > 1:
        said.append(f"One of {students} seeds ({seeds[0]}); the page in the folder above shows how far they differ.")
    elif isinstance(seeds, list) and len(seeds) == 1:
        said.append(f"One seed ({seeds[0]}): how much another seed would change the figures was not measured.")
    if student and student.value("latency_ms") is not None:
        said.append("Latency and throughput belong to the machine named here; another machine has other figures.")
    where = str(folder.target.get("where") or "")
    if where not in ("", "this machine"):
        said.append(f"The target's figures were found on {where}, all others on the machine named here.")
    if verdict(folder)[0] in ("open", "worse"):
        said.append("This run does not show that the teacher made this student better than training it alone.")
    said.append("Robustness to other cameras, crops, noise or classes outside the list was not measured.")
    return said


def _kept(folder: Folder, student: Speaker, teacher: Speaker | None) -> str:
    ours, theirs, figure = folder.leads(student), folder.leads(teacher), folder.about.spoken
    if folder.about.by_teacher:
        return f"The student agrees with its teacher on {percent(ours)} of the test images"
    kept = divide(ours, theirs)
    if teacher is None or ours is None or theirs is None or kept is None:
        return f"The student reaches {percent(ours)} {figure}"
    if ours < theirs:
        return f"The student keeps {percent(min(kept, 0.999) if kept > 0.999 else kept)} of the teacher's {figure}"
    if ours == theirs:
        good, of = ("accurate", "") if folder.about.right else ("good", f"{figure} ")
        return f"The student is as {good} as its teacher ({of}{percent(ours)})"
    of = "" if folder.about.right else f"{figure} "
    return f"The student scores above its teacher ({of}{percent(ours)} against {percent(theirs)})"


def _cost(student: Speaker, teacher: Speaker | None) -> str:
    for name, unit in (("macs", "MACs"), ("parameters", "parameters")):
        part = divide(student.value(name), teacher.value(name) if teacher else None)
        if part is not None and part <= 1:
            return f" with {share(part, 1)} of its {unit}"
        if part is not None:
            return f", at {times(part)} its {unit}"
    return ""


def _file(files: tuple[Speaker, ...]) -> str:
    small = min((file for file in files if file.bits), key=lambda file: file.bits or 32, default=None)
    if small is None:
        return ""
    checked = "verified" if small.verified else "UNVERIFIED"
    same = [file for file in files if file.target == small.target and (file.bits or 32) > (small.bits or 32)]
    large = max(same, key=lambda file: file.bits or 32, default=None)
    ratio = divide(large.value("bytes"), small.value("bytes")) if large else None
    if large is None or ratio is None:
        return f"the {small.label} file is {checked}"
    if ratio < 1.05:
        return f"the {kind(small.bits)} file is no smaller than the {kind(large.bits)} file, and {checked}"
    joined = "and verified" if small.verified else "but UNVERIFIED"
    return f"the {kind(small.bits)} file is {times(ratio)} smaller than the {kind(large.bits)} file {joined}"
