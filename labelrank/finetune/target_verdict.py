"""The finding of a comparison of targets, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labelrank.finetune.analysis import SAME, Analysis, RankedAmong
from labelrank.finetune.verdict import Verdict, lead_text, percent_text, place_text, signed_text
from labelrank.notices import Notice
from labelrank.words import plural

TARGET_FINDINGS = (
    *("geometry_better", "softer_better", "geometry_worse", "no_gain", "too_few"),
    *("smoothing_better", "smoothing_worse"),
)
"""The possible findings of a comparison of targets."""
_CLAIMED = ("onehot", "smoothing", "tuned-smoothing")
_SUBJECTS = {"geometry": "class geometry", "smoothing": "label smoothing"}
NAMES = {
    "onehot": "one-hot targets",
    "smoothing": "label smoothing of equal entropy",
    "tuned-smoothing": "label smoothing chosen on the validation samples",
    "groups": "targets by groups",
}


@dataclass(frozen=True)
class Pair:
    """The accuracy with the targets in question less that of another arm, paired by seed and test row."""

    arm: str
    """Its name; permuted for the mean of all permutations."""
    difference: float
    low: float | None
    """`low` to `high`: interval for new seeds and new test rows; None with one seed or if nothing differs."""
    high: float | None

    @property
    def sign(self) -> int:
        """1 if these targets are better, -1 if they are worse, 0 if the interval tells neither."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def target_verdict(
    analysis: Analysis,
    pairs: Sequence[Pair],
    *,
    n_test: int,
    subject: str = "geometry",
    calibration: Mapping[str, float | None] | None = None,
    of_heads: bool = True,
) -> Verdict:
    """Return the verdict on whether class geometry, or label smoothing, helps.

    Args:
        analysis: Of accuracies as fractions, in which the geometry stands for the ranked order and its permutations for
            random ones.
        pairs: The subject less each other kind of targets, and less the mean of all permutations (arm permuted).
        n_test: Number of test rows.
        subject: geometry or smoothing: the targets that the comparison is about.
        calibration: Expected calibration error of each arm, where it is known.
        of_heads: Whether heads alone were trained, and no encoder.
    """
    by_arm = {pair.arm: pair for pair in pairs}
    finding = _finding(analysis, by_arm) if subject == "geometry" else _of_smoothing(by_arm)
    details = [
        *_details(finding, analysis, pairs, subject, of_heads),
        *_calibrated(calibration or {}, subject),
        Notice("", f"All of this is about these training samples, tested on {n_test:,}; other data may say otherwise."),
    ]
    return Verdict(finding, _text(finding, analysis, by_arm, subject), tuple(details))


def _finding(analysis: Analysis, by_arm: dict[str, Pair]) -> str:
    onehot = by_arm.get("onehot")
    if onehot is None or onehot.low is None:
        return "too_few"
    if onehot.sign < 0:
        return "geometry_worse"
    if onehot.sign == 0:
        return "no_gain"
    others = [by_arm[name] for name in _CLAIMED if name in by_arm]
    smoothed = any(name in by_arm for name in _CLAIMED[1:])
    if smoothed and all(pair.sign > 0 for pair in others) and _beats_permutations(analysis):
        return "geometry_better"
    return "softer_better"


def _of_smoothing(by_arm: dict[str, Pair]) -> str:
    onehot = by_arm.get("onehot")
    if onehot is None or onehot.low is None:
        return "too_few"
    return {1: "smoothing_better", -1: "smoothing_worse", 0: "no_gain"}[onehot.sign]


def _beats_permutations(analysis: Analysis) -> bool:
    among, p_any = analysis.ranked, analysis.p_any
    if among is None or p_any is None:
        return False
    return p_any <= analysis.alpha and among.p <= analysis.alpha + SAME


def _text(finding: str, analysis: Analysis, by_arm: dict[str, Pair], subject: str) -> str:
    what = _SUBJECTS[subject]
    if finding == "too_few":
        if "onehot" not in by_arm:
            return f"Nothing is said of {what}: one-hot targets are not compared with it. Add the arm onehot."
        if analysis.n_seeds > 1:
            return (
                f"Nothing can be told: targets by {what} and one-hot targets are right on the same test samples "
                "with each seed. Take a harder task or more test samples."
            )
        return (
            "Too few runs to tell: with one seed nothing tells the targets from chance. Use 2 seeds or more; 5 are "
            "usual."
        )
    pair = by_arm["onehot"]
    level = analysis.level
    against = f"{_difference(pair, level)} against one-hot targets"
    if finding in ("geometry_worse", "smoothing_worse"):
        return f"{what.capitalize()} makes it worse: {against}."
    if finding == "no_gain":
        return f"{what.capitalize()} is not shown to help: {against}."
    if finding == "smoothing_better":
        return f"{what.capitalize()} helps: {against}."
    rest = [f"{_difference(by_arm[name], level)} against {NAMES[name]}" for name in _CLAIMED[1:] if name in by_arm]
    if analysis.ranked is not None:
        rest.append(_among(analysis.ranked, level))
    if finding == "geometry_better":
        own = percent_text(analysis.ranked.mean) if analysis.ranked is not None else ""
        return f"Class geometry helps: its accuracy is {own}, {'; '.join([against, *rest])}."
    lacking = _lacking(analysis, by_arm)
    return (
        f"Softer targets help, but it is not shown that the geometry is what helps: {'; '.join([against, *rest])}. "
        f"{lacking}"
    )


def _lacking(analysis: Analysis, by_arm: dict[str, Pair]) -> str:
    """Return what keeps a gain over one-hot targets from being the geometry's, in a sentence."""
    worse = [NAMES[name] for name in _CLAIMED[1:] if name in by_arm and by_arm[name].sign < 0]
    if worse:
        return f"It is worse than {_listed(worse)}."
    equal = [NAMES[name] for name in _CLAIMED[1:] if name in by_arm and by_arm[name].sign == 0]
    if equal:
        return f"The interval does not tell it from {_listed(equal)}."
    if not any(name in by_arm for name in _CLAIMED[1:]):
        return "Label smoothing is not compared with it: add the arm smoothing."
    if analysis.ranked is None:
        return "That takes 19 permutations of the classes or more: permuted:19."
    if analysis.ranked.p_least > analysis.alpha + SAME:
        some = plural(analysis.n_random, "permutation")
        are = "is" if analysis.n_random == 1 else "are"
        return f"{some} of the classes {are} too few for that; it takes 19 or more: permuted:19."
    return "Its own permutations are not shown to be worse."


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _among(among: RankedAmong, level: float) -> str:
    return (
        f"{lead_text(among, level)} against the same geometry with permuted classes, among which it came "
        f"{place_text(among)}"
    )


def _details(finding: str, analysis: Analysis, pairs: Sequence[Pair], subject: str, of_heads: bool) -> list[Notice]:
    said = []
    known = [pair.arm for pair in pairs if pair.low is not None]
    if known and "permuted" not in known:
        said.append("Intervals are for new seeds and new test samples of the same kind.")
    elif known:
        said.append(
            "Intervals against one-hot targets, smoothing and groups are for new seeds and new test samples of the "
            "same kind; that against permuted classes is for new seeds and permutations on these."
        )
    groups = next((pair for pair in pairs if pair.arm == "groups"), None)
    if groups is not None:
        said.append(f"{_difference(groups, analysis.level)} against {NAMES['groups']} of equal entropy.")
    if analysis.ranked is not None and analysis.ranked.p_least > analysis.alpha + SAME:
        lead = next((f"{_difference(one, analysis.level)}; " for one in pairs if one.arm == "permuted"), "")
        way = "" if of_heads else " Heads on the features of the frozen encoder compare 19 in a fraction of the time."
        said.append(f"{_few(analysis.n_random, lead)}{way}")
    text = (
        "All arms share the recipe. Where that lets one-hot targets fit the training samples too closely, any softer "
        "targets help"
    )
    smoothing = next((pair for pair in pairs if pair.arm == "smoothing"), None)
    if subject == "geometry" and smoothing is not None:
        # Where it is better than one-hot targets, the verdict has said it.
        lead = "" if finding in ("softer_better", "geometry_better") else _difference(smoothing, analysis.level)
        text += f": judge the geometry by its lead on smoothing{lead and f', {lead}'}"
    said.append(f"{text}.")
    return [Notice("", text) for text in (*said, *analysis.notes)]


def _few(n_permuted: int, lead: str) -> str:
    """Return what so few permutations show, and what they cannot, in a sentence."""
    if n_permuted == 1:
        return (
            f"Against the one permutation here: {lead}that is about these wrong neighbours, not about most. A geometry "
            "that says nothing of the classes beats one permutation in 1 of 2 comparisons."
        )
    return (
        f"Against the {n_permuted} permutations here: {lead}that is about these wrong neighbours, not about most. A "
        f"geometry that says nothing of the classes comes first of them in 1 of {n_permuted + 1} comparisons."
    )


def _calibrated(error: Mapping[str, float | None], subject: str) -> list[Notice]:
    """Return that the subject's probabilities are further off than those of one-hot targets, if they are."""
    own, onehot = error.get(subject), error.get("onehot")
    if own is None or onehot is None or own <= onehot:
        return []
    return [
        Notice(
            "",
            f"Its probabilities are further off: the expected calibration error is {percent_text(own)}, against "
            f"{percent_text(onehot)} with one-hot targets. Where probabilities count, divide the logits by a "
            "temperature chosen on validation samples.",
        )
    ]


def _difference(pair: Pair, level: float) -> str:
    text = f"{signed_text(pair.difference)} points"
    if pair.low is None or pair.high is None:
        return text
    return f"{text} ({100 * level:.0f} % interval {signed_text(pair.low)} to {signed_text(pair.high)})"
