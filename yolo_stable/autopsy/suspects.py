"""Suspects: finds the guilty ones by asking which parts of them break the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Sick = Callable[[Sequence[int]], "bool | None"]
"""Says whether a part of the suspects breaks the training alone; None: not known."""
MOST_GUILTY = 3
"""After this many that each break it alone, the rest is not searched one by one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """What a search found."""

    guilty: tuple[int, ...]
    """The suspects to name."""
    alone: bool = False
    """Each of the guilty breaks it alone."""
    rest_is_healthy: bool | None = None
    """Whether all is well without the guilty; None: not known, or nothing is left."""
    every: bool = False
    """Everything breaks it: no suspect is to blame."""

    @property
    def exact(self) -> bool:
        """Whether the guilty break it and the others do not."""
        return self.alone and self.rest_is_healthy is not False and not self.every


def bisect(sick: Sick, suspects: Sequence[int]) -> SearchResult:
    """Find one guilty suspect of a group that breaks the training.

    It asks at most ``ceil(log2(n)) + 2`` times: once per halving, once for the last one alone, once for all others.

    Returns:
        One suspect that breaks it alone; all, if only several together break it or nothing is known.

    Examples:
        >>> bisect(lambda part: 5 in part, range(8))
        SearchResult(guilty=(5,), alone=True, rest_is_healthy=True, every=False)
        >>> bisect(lambda part: {1, 6} <= set(part), range(8)).guilty
        (0, 1, 2, 3, 4, 5, 6, 7)
    """
    everyone = tuple(suspects)
    group, known = everyone, len(everyone) == 1
    while len(group) > 1:
        half = group[: len(group) // 2]
        answer = sick(half)
        if answer is None:
            return SearchResult(guilty=group)
        group, known = (half, True) if answer else (group[len(half) :], False)
    if not known and not sick(group):
        return SearchResult(guilty=everyone)
    rest = tuple(s for s in everyone if s not in group)
    answer = sick(rest) if rest else None
    return SearchResult(guilty=group, alone=True, rest_is_healthy=None if answer is None else not answer)


def search(
    sick: Sick,
    suspects: Sequence[int],
    *,
    guess: Sequence[int] = (),
    sure: bool = False,
    neutral: Callable[[], bool | None],
) -> SearchResult:
    """Find all guilty suspects, or that none is.

    Args:
        sick: Is asked about parts of the suspects.
        suspects: All of them; together they break the training.
        guess: Tried first; a good one saves the search.
        sure: The guess was observed: if it breaks the training alone, the others are not tried.
        neutral: Says whether even something beyond suspicion breaks the training.

    Returns:
        The guilty, at most ``MOST_GUILTY``; with ``every`` if no suspect is to blame. It asks at most
        ``MOST_GUILTY * (ceil(log2(n)) + 2) + 3`` times.
    """
    everyone = tuple(suspects)
    first = tuple(s for s in everyone if s in set(guess))
    if first and len(first) < len(everyone) and sick(first):
        rest = tuple(s for s in everyone if s not in first)
        if sure or sick(rest) is False:
            return SearchResult(guilty=first, alone=True, rest_is_healthy=None if sure else True)
    if neutral():
        return SearchResult(guilty=everyone, alone=True, every=True)
    found: list[int] = []
    rest = everyone
    while True:
        finding = bisect(sick, rest)
        if not finding.alone:  # several of these break it together, without those found before
            guilty = tuple(found) or finding.guilty
            return SearchResult(guilty=guilty, alone=bool(found), rest_is_healthy=False if found else None)
        found += finding.guilty
        rest = tuple(s for s in rest if s not in finding.guilty)
        if finding.rest_is_healthy is not False:
            every = len(found) > 1 and not rest
            return SearchResult(guilty=tuple(found), alone=True, rest_is_healthy=finding.rest_is_healthy, every=every)
        if len(found) >= MOST_GUILTY:
            return SearchResult(guilty=everyone, alone=True, rest_is_healthy=False, every=True)


def healing(sick_without: Sick, suspects: Sequence[int]) -> int | None:
    """Return a part without which the training is healthy; None if there is no single one.

    It asks at most ``ceil(log2(n)) + 1`` times.

    Examples:
        >>> healing(lambda gone: 2 not in gone, range(4))
        2
    """
    group, known = tuple(suspects), False
    while len(group) > 1:
        half = group[: len(group) // 2]
        answer = sick_without(half)
        group, known = (half, True) if answer is False else (group[len(half) :], False)
    return group[0] if group and (known or sick_without(group) is False) else None
