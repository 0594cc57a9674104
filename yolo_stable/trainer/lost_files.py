"""Lost files: unreadable image files of a data set, and how many a run may lose."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..provenance.path_states import LEFT_OUT, PathStates, key_of
from ..provenance.reading import parts_of, paths_of
from ..provenance.unreadable import Problem

FEW = 3
"""So many lost files never end a run of which at least half remains: of a small data set they are a large share."""


class LostFiles:
    """Counts the lost files of the training or the validation images as soon as a worker notices them.

    Args:
        states: Of their files.
        datasets: Several where somebody joins some; their lists of files may be changed while they are in use.
    """

    def __init__(self, states: PathStates, datasets: Iterable[Any] = ()) -> None:
        self.states, self.datasets = states, list(datasets)
        self.lost: dict[str, Problem] = {}
        self._known: set[int] = set()
        self._paths: dict[int, str] = {}
        self._counted = (0, 0)
        """Entries in the lists of files when the files were counted, and the number of files."""

    @property
    def images(self) -> int:
        """How many image files there are, each counted once; counted again when their lists have another length."""
        entries = sum(map(len, self.parts()))
        if entries != self._counted[0]:
            files = {os.path.abspath(path) for part in self.parts() for path in paths_of(part)}
            self._counted = entries, len(files)
        return self._counted[1]

    def news(self) -> list[tuple[str, Problem]]:
        """Return the files lost since the last call, and why; free while none is."""
        new = {key: state for key, state in self.states.entries().items() if key not in self._known}
        self._known |= new.keys()
        found = [(self._path_of(key), Problem(state)) for key, state in new.items() if state != LEFT_OUT]
        self.lost.update(found)
        return found

    def lost_entries(self) -> dict[int, int]:
        """Return the states of all lost files by key."""
        return {key: state for key, state in self.states.entries().items() if state != LEFT_OUT}

    def learn(self, entries: Mapping[int, int]) -> None:
        """Take over the lost files of another rank; they are news here.

        Args:
            entries: Its :meth:`lost_entries`.
        """
        for key, state in entries.items():
            self.states.set_by_key(key, state)

    def parts(self) -> Iterator[Any]:
        """Yield the Ultralytics data sets that they consist of."""
        for dataset in self.datasets:
            yield from (part for part, _ in parts_of(dataset))

    def are_too_many(self, share: float | None) -> bool:
        """Return whether more are lost than a run may lose.

        Args:
            share: Of the data set; None: any.
        """
        return share is not None and len(self.lost) > self.allowed(share)

    def allowed(self, share: float) -> int:
        """Return how many files a run may lose."""
        return int(min(max(share * self.images, FEW), self.images / 2))

    def in_words(self) -> str:
        """Return the number of lost files, and what happened to the first ones."""
        shown = [f"{path} {problem.words}" for path, problem in list(self.lost.items())[:FEW]]
        more = f"; and {len(self.lost) - FEW} more" if len(self.lost) > FEW else ""
        return f"{len(self.lost)} of {self.images} images cannot be read any more ({'; '.join(shown)}{more})"

    def _path_of(self, key: int) -> str:
        if key not in self._paths:  # the lists may be others now
            self._paths |= {key_of(path): path for part in self.parts() for path in paths_of(part)}
        return self._paths.get(key, "an image that is not in the data set any more")
