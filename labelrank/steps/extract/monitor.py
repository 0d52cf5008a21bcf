"""Monitor how stable the order of the classes is while samples come in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from labelrank.errors import SettingsError
from labelrank.features.parts import Part
from labelrank.features.store import FeatureSet
from labelrank.progress import ShouldStop
from labelrank.ranking.estimate import due
from labelrank.steps.extract.plan import Plan
from labelrank.steps.extract.report import StabilityOutcome, StabilityReport

if TYPE_CHECKING:
    from labelrank.ranking.stability import OrderStability

# Maximum of classes x features for estimates without a target; beyond it, the means of all classes would fill the
# memory.
_MAX_MEAN_VALUES = 2_000_000
_MAX_MEAN_VALUES_ASKED_FOR = 10_000_000
# The groups of class moments, and a few copies of them during an estimate.
_BYTES_PER_MEAN_VALUE = 256
_FIRST = 4
# An estimate factors matrices of features x features: on two cores it takes 2.4 s at 768 features, and an encoder does
# 7e11 operations a second. One of more than `_SHORT_S` is made for display only where it is a small share of the work.
_ESTIMATE_S, _ENCODED_PER_S = 2.4 / 768**3, 7e11
_SHORT_S, _SHARE = 0.1, 0.05
_PROJECTED = (8, 16, 32, 64, 128, 256, 512, 1024)


class Monitor:
    """Estimates how stable the order is, and tells when it is stable enough.

    Args:
        follow: Whether to estimate where the plan has no target.
        should_stop: Asked during an estimate, which raises Cancelled if it returns true.
    """

    def __init__(self, plan: Plan, *, follow: bool = True, should_stop: ShouldStop | None = None) -> None:
        self.target = plan.request.until_stable
        self._either = plan.request.either_direction
        self._shrinkage = plan.request.ranking_shrinkage
        self._seed, self._classes = plan.request.seed, len(plan.dataset.class_names)
        self._should_stop = should_stop
        self._is_off = plan.request.shard is not None or not (follow or self.target)
        self._order: OrderStability | None = None
        # Rounds without an estimate: too few samples, or about as many as features.
        self._unknown: list[int] = []
        self._was_enough = self._is_cheap = False
        self._estimated_at = 0
        self._of = sum(len(part.samples) for part in plan.parts)
        self._sample_flops = plan.flops
        self._taken = 0
        self.reached = False
        self.report: StabilityReport | None = None
        """The estimates so far; None if there are none."""

    def take(self, part: Part, features: FeatureSet) -> bool:
        """Take in the next part; return whether the order is stable enough to end."""
        self._taken += len(part.samples)
        if not features.keys or self._is_off:
            return False
        n_features = features.X.shape[1]
        values = self._classes * n_features
        if self.target is not None and values > _MAX_MEAN_VALUES_ASKED_FOR:
            raise SettingsError(
                f"To estimate the stability of {self._classes:,} classes with {n_features:,} features takes "
                f"{values * _BYTES_PER_MEAN_VALUE / 2**30:.0f} GiB of memory; take a fixed number of samples per class "
                "instead of a tau to stop at."
            )
        if self.target is None and values > _MAX_MEAN_VALUES:
            return False
        from labelrank.ranking.stability import OrderStability  # loads SciPy's statistics

        if self._order is None:
            self._order = OrderStability(n_features, shrinkage=self._shrinkage, seed=self._seed)
        self._order.update(np.asarray(features.X), features.y)
        # Without a target, estimates are only for display, and powers of two are enough.
        wanted = due(part.rounds) if self.target is not None else part.rounds >= _FIRST and part.rounds.bit_count() == 1
        self._is_cheap = self.target is not None or self._costs_little(n_features)
        if wanted and self._is_cheap and part.rounds > self._estimated_at:
            self._estimate(part.rounds)
        return self.reached

    def finish(self, rounds: int) -> None:
        """Make a last estimate from all samples."""
        if self._order is not None and self._is_cheap and rounds > self._estimated_at and not self.reached:
            self._estimate(rounds)

    def _costs_little(self, n_features: int) -> bool:
        """Return whether an estimate is short, or a small share of the encoder's work so far."""
        seconds = _ESTIMATE_S * n_features**3
        return seconds <= _SHORT_S or seconds <= _SHARE * self._taken * self._sample_flops / _ENCODED_PER_S

    def _estimate(self, rounds: int) -> None:
        assert self._order is not None
        found = self._order.estimate(should_stop=self._should_stop)
        self._estimated_at = rounds
        if found is None:
            self._unknown.append(rounds)
        elif self.target is not None:
            before, self._was_enough = self._was_enough, (found.aligned if self._either else found.tau) >= self.target
            # Two classes have only two orders, so they need two estimates in a row: on pure noise, one estimate let
            # 10 % of the runs pass, two let 2 % pass.
            self.reached = self._was_enough and (before or self._classes > 2)
        self.report = self._described()

    def _described(self) -> StabilityReport:
        assert self._order is not None
        projected = self._order.projection(_PROJECTED, either_direction=self._either)
        return StabilityReport(
            target=self.target,
            either_direction=self._either,
            classes=self._classes,
            points=self._order.history,
            unknown=tuple(self._unknown),
            projection=tuple(
                (n, round(float(tau), 4)) for n, tau in zip(_PROJECTED, projected, strict=True) if np.isfinite(tau)
            ),
            needed=self._order.needed(self.target, either_direction=self._either) if self.target else None,
        )

    def outcome(self) -> StabilityOutcome | None:
        """Return where the extraction ended; None if it had no target."""
        if self.target is None:
            return None
        last = self._order.history[-1] if self._order and self._order.history else None
        return StabilityOutcome(self.target, self._either, self.reached, last, self._taken, self._of)
