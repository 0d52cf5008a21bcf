"""Groups: from the label space to the groups that its classes form, with their names, and how orders show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labelrank.json_values import plain

if TYPE_CHECKING:
    import numpy as np

    from labelrank.ranking.criteria import OrderCriteria
    from labelrank.ranking.groups import Agreement
    from labelrank.ranking.tree import GroupSuggestion
    from labelrank.steps.label_space import LabelSpace


@dataclass(frozen=True)
class GroupSummary:
    """The groups that the classes form."""

    suggestion: GroupSuggestion
    groups: tuple[tuple[str, ...], ...]
    """Names of the classes of each group, in the order of the tree."""
    agreement: Agreement | None
    """With groups that were given."""
    orders: OrderCriteria | None
    """How orders show which classes are near each other; where asked for."""
    refused: dict[str, str]
    """Why the other orders are not judged: the features do not allow them."""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values: the fields of this class and of those in it."""
        result: dict[str, Any] = plain(self)
        return result


def groups_of(
    space: LabelSpace, n_groups: int | None = None, given: np.ndarray | None = None, *, judge_orders: bool = False
) -> GroupSummary:
    """Return the groups that the classes form.

    Args:
        space: Of K classes.
        n_groups: How many; None for the number that is suggested.
        given: int (K,), groups to compare with.
        judge_orders: Whether to find the criteria of all orders that the features allow.

    Raises:
        RankingError: As for `LabelSpace.tree`, or there is no cut into so many groups.
    """
    from labelrank.ranking.groups import agreement

    suggestion = space.suggestion
    cut = space.tree.cut(suggestion.n_groups if n_groups is None else n_groups)
    groups: list[list[str]] = [[] for _ in range(cut.max() + 1)]
    for number in space.tree.order:
        groups[cut[number]].append(space.names[number])
    orders, refused = space.orders() if judge_orders else ({}, {})
    return GroupSummary(
        suggestion=suggestion,
        groups=tuple(map(tuple, groups)),
        agreement=None if given is None else agreement(cut, given),
        orders=space.criteria(orders, given) if judge_orders else None,
        refused=refused,
    )
