"""The gain of a student over its baseline in a sentence, as far as the test over the same images supports it."""

from __future__ import annotations

from stillroom.report.format import number, p_value, percent, points, signed
from stillroom.report.metric_value import MetricValue
from stillroom.report.run_data import ModelResult, RunData

SIGNIFICANCE = 0.05


def verdict(run: RunData) -> tuple[str, str]:
    """The difference between student and baseline: ("better" | "worse" | "open" | "unknown", sentence)."""
    student, baseline = run.model("student"), run.model("baseline")
    ours, theirs = run.headline(student), run.headline(baseline)
    if student is None or ours is None:
        return "unknown", ""
    if baseline is None or theirs is None:
        return "unknown", "No baseline was measured, so this run does not show what distillation changed."
    gain = student.metrics.get("gain")
    if gain is None or gain.p is None or gain.ci95 is None:
        kind, sentence = _by_intervals(run, student, baseline, ours, theirs)
    else:
        kind, sentence = _by_test(run, ours, theirs, gain, gain.p)
    return kind, f"{sentence} {budget}".strip() if (budget := _budget(run)) else sentence


def _by_test(run: RunData, ours: float, theirs: float, gain: MetricValue, p: float) -> tuple[str, str]:
    """From the paired test."""
    difference, (low, high) = ours - theirs, gain.ci95 or (0.0, 0.0)
    without = "Labels alone" if number(run.section("stages", "baseline").get("steps")) else "Without distillation"
    counts = ""
    if gain.better is not None and gain.worse is not None:
        counts = f": the student alone is right on {gain.better}, the baseline alone on {gain.worse}"
    evidence = (
        f"95 % interval {signed(low)} to {signed(high)}, {p_value(p)}, {gain.test} on the same {gain.n} images{counts}"
    )
    sentence = f"{without} {percent(theirs)}, distilled {percent(ours)}: {signed(difference)} points ({evidence})"
    if p >= SIGNIFICANCE or not difference:
        return "open", f"{sentence}; no difference is shown."
    return ("better", f"{sentence}.") if difference > 0 else ("worse", f"{sentence}; distillation did harm.")


def _by_intervals(
    run: RunData, student: ModelResult, baseline: ModelResult, ours: float, theirs: float
) -> tuple[str, str]:
    """From the two intervals, where no paired test was recorded: weaker, but never wrong about a gain."""
    values = f"{percent(ours)} vs. {percent(theirs)}"
    if ours == theirs:
        good = "accurate" if run.task.predicts_classes and not run.task.teacher_is_reference else "good"
        return "open", f"The baseline is exactly as {good} ({percent(ours)}): this run shows no gain from distillation."
    gap, side = points(ours - theirs), "above" if ours > theirs else "below"
    ends, other_ends = student.interval(run.task.headline), baseline.interval(run.task.headline)
    if ends is None or other_ends is None:
        return "open", f"The student scores {gap} {side} the baseline ({values}); no intervals were recorded."
    if max(ends[0], other_ends[0]) <= min(ends[1], other_ends[1]):
        effect = "helped" if ours > theirs else "helped or harmed"
        doubt = f"the 95 % intervals overlap, so this run alone does not show that distillation {effect}."
        return "open", f"The student scores {gap} {side} the baseline ({values}), but {doubt}"
    if ours > theirs:
        return "better", f"Distillation added {gap} to the baseline ({values}); the 95 % intervals do not overlap."
    return "worse", f"Distillation cost {gap}: the baseline is better ({values}); the 95 % intervals do not overlap."


def _budget(run: RunData) -> str:
    """What the student was trained for beyond the baseline; empty where both took as many steps."""
    chain = [str(row.get("stage")) for row in run.records("compress")] or ["student"]
    steps = [number(run.section("stages", stage).get("steps")) for stage in chain]
    own, known = number(run.section("stages", "baseline").get("steps")), [count for count in steps if count]
    if not own or not known or sum(known) == own:
        return ""
    return f"The student was trained for {sum(known):.0f} steps, the baseline for {own:.0f}."
