"""The gain of a student over its baseline in a sentence, as far as the test over the same images supports it."""

from __future__ import annotations

from stillroom.report.format import number, percent, points, signed
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
        kind, sentence = _by_test(ours, theirs, gain, gain.p, gain.ci95)
    return kind, f"{sentence} {budget}".strip() if (budget := _budget(run)) else sentence


def p_text(p: float) -> str:
    """A p-value: "p = 0.03", "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}" if p < 0.1 else f"p = {p:.2f}"


def _by_test(ours: float, theirs: float, gain: MetricValue, p: float, ends: tuple[float, float]) -> tuple[str, str]:
    """From the paired test."""
    difference = ours - theirs
    values = f"{percent(ours)} vs. {percent(theirs)}"
    interval = f"95 % interval {signed(ends[0])} to {signed(ends[1])}"
    test = f"{p_text(p)}, {gain.test} on the same {gain.n} images"
    if gain.better is not None and gain.worse is not None:
        test += f", of which the student alone has {gain.better} right and the baseline alone {gain.worse}"
    if p < SIGNIFICANCE and difference:
        if difference > 0:
            return "better", f"Distillation added {points(difference)} to the baseline ({interval}): {values}; {test}."
        return "worse", f"Distillation cost {points(difference)} against the baseline ({interval}): {values}; {test}."
    side = f"{points(difference)} {'above' if difference > 0 else 'below'}" if difference else "level with"
    return "open", f"The student is {side} the baseline ({interval}): {values}; {test}: no difference is shown."


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
