"""Images that are left out of the rest of a run, because they were found guilty twice."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .errors import InvalidCallError
from .whole_file import reason, write_whole

STRIKES = 2
"""So often an image is blamed before it is left out: once may be an accident, of the device or of its neighbours."""
SHARE = 0.5
"""So much of each data set always remains."""
HEAD = """\
# Images that yolo-stable left out of a training, one path a line. Lines that start with # are not read.
"""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What came of leaving images out."""

    taken: tuple[str, ...] = ()
    """Paths that are left out from now on; without those that already were."""
    unknown: tuple[str, ...] = ()
    """Paths that the data set does not have."""
    refused: tuple[str, ...] = ()
    """Paths that stay in, because too few images would remain."""

    def __str__(self) -> str:
        """Return it as a sentence for each kind.

        Examples:
            >>> print(LeftOut(taken=("a.jpg",), unknown=("b.jpg", "c.jpg")))
            1 image is left out. Not in the data set: b.jpg, c.jpg.
        """
        count = len(self.taken)
        said = [f"{count} image is left out." if count == 1 else f"{count} images are left out."]
        if self.unknown:
            said.append(f"Not in the data set: {_some(self.unknown)}.")
        if self.refused:
            said.append(f"Not left out, as at least half of the images must remain: {_some(self.refused)}.")
        return " ".join(said)


class Quarantine:
    """Knows which images of a data set are left out, and tells all loader workers, also those that already run.

    Changed by the main process only. Counts live as long as it does, and longer with :meth:`state_dict`.

    Args:
        n_images: Number of images in the data set.

    Examples:
        >>> quarantine = Quarantine(4)
        >>> quarantine.describe(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
        >>> quarantine.blame("b.jpg"), quarantine.blame(1)
        (False, True)
        >>> quarantine.left_out, quarantine.instead(1, 0, 4)
        (['b.jpg'], 2)
    """

    def __init__(self, n_images: int) -> None:
        # In shared memory: a worker that was forked or spawned before an image was left out sees it as well.
        self.mask = torch.zeros(n_images, dtype=torch.uint8).share_memory_()
        self.counts: dict[str, int] = {}
        """How often each image was blamed."""
        self.refused: list[str] = []
        """Images that were to be left out and were not, as too few would have remained."""
        self._paths: list[str | None] = [None] * n_images
        self._indices: dict[str, list[int]] = {}
        self._starts: list[int] = [0]
        self._out = self.mask.numpy()

    def describe(self, paths: Sequence[str], start: int = 0) -> None:
        """Learn which images there are. ``trace`` calls it for each data set.

        Args:
            paths: The image files of a data set, by index.
            start: Index of the first one, where several data sets are joined.

        Raises:
            InvalidCallError: There are more than the quarantine was made for.
        """
        if start + len(paths) > len(self._paths):
            raise InvalidCallError(
                f"Quarantine({len(self._paths)}) is asked to hold images {start} to {start + len(paths) - 1}."
                " Make it as large as the data set."
            )
        if self._paths[start : start + len(paths)] == list(paths):
            return
        self._paths[start : start + len(paths)] = paths
        self._indices = {}
        for index, path in enumerate(self._paths):
            if path is not None:
                self._indices.setdefault(path, []).append(index)
        self._starts = sorted({*self._starts, start})

    # ---- in the loader ---------------------------------------------------------------------------------------------------

    def has_out(self, index: int) -> bool:
        """Return whether an image is left out."""
        return bool(self._out[index])

    def instead(self, index: int, first: int, behind: int) -> int | None:
        """Return the next image that may be drawn, from the beginning again behind the last; None when there is none.

        Args:
            index: The image that is left out.
            first: First index to choose among.
            behind: Index behind the last one.
        """
        for candidate in (*range(index + 1, behind), *range(first, index)):
            if not self._out[candidate]:
                return candidate
        return None

    # ---- in the run ------------------------------------------------------------------------------------------------------

    @property
    def left_out(self) -> list[str]:
        """The paths of images that are left out, in the order of the data set."""
        return [path for path, indices in self._indices.items() if self._out[indices[0]]]

    def blame(self, image: str | os.PathLike[str] | int) -> bool:
        """Count that an image was found guilty, and leave it out the second time.

        Args:
            image: Its path, or its index in the data set.

        Returns:
            True when it was left out now. False: not yet, already before, it is none of the data set, or too few would remain.
        """
        path = self._path_of(image)
        if path is None or self._out[self._indices[path][0]]:
            return False
        self.counts[path] = self.counts.get(path, 0) + 1
        return self.counts[path] >= STRIKES and bool(self.leave_out([path]).taken)

    def to_blame(self, images: Iterable[str], guilty: int) -> list[str]:
        """Return whom to blame of images of which at most so many are guilty, as nobody can tell them apart.

        All of them, when none was blamed before; else those that were blamed most, as they explain it. Not more than can be
        guilty: what is blended with a bad image twice must not be left out for it.

        Args:
            images: Paths.
            guilty: At most so many of them did it.

        Examples:
            >>> quarantine = Quarantine(3)
            >>> quarantine.describe(["bad.jpg", "a.jpg", "b.jpg"])
            >>> [quarantine.blame(path) for path in quarantine.to_blame(["bad.jpg", "a.jpg"], guilty=1)]
            [False, False]
            >>> quarantine.to_blame(["bad.jpg", "b.jpg"], guilty=1)
            ['bad.jpg']
        """
        named = list(dict.fromkeys(images))
        counts = [self.counts.get(self._path_of(path) or "", 0) for path in named]
        if len(named) <= guilty or not any(counts):
            return named
        top = [path for path, count in zip(named, counts, strict=True) if count == max(counts)]
        return top if len(top) <= guilty else []

    def leave_out(self, paths: Iterable[str | os.PathLike[str]]) -> LeftOut:
        """Leave images out, as long as at least half of each data set remains.

        Returns:
            What came of it; what is not known or was refused is not fatal, but should be said.
        """
        taken, unknown, refused = [], [], []
        for given in dict.fromkeys(os.fspath(path) for path in paths):
            path = self._path_of(given)
            if path is None:
                unknown.append(given)
            elif self._out[self._indices[path][0]]:
                continue
            elif self._spares(self._indices[path]):
                self._out[self._indices[path]] = 1
                taken.append(path)
            else:
                refused.append(path)
        self.refused += [path for path in refused if path not in self.refused]
        return LeftOut(tuple(taken), tuple(unknown), tuple(refused))

    def _spares(self, indices: list[int]) -> bool:
        """Return whether enough images remain without these, in each of the data sets that they are in."""
        ends = [*self._starts[1:], len(self._paths)]
        for part in {bisect_right(self._starts, index) - 1 for index in indices}:
            start, end = self._starts[part], ends[part]
            leaving = int(self._out[start:end].sum()) + sum(start <= index < end for index in indices)
            if leaving > (end - start) * (1 - SHARE):
                return False
        return True

    def _path_of(self, image: str | os.PathLike[str] | int) -> str | None:
        if isinstance(image, int):
            return self._paths[image] if 0 <= image < len(self._paths) else None
        path = os.fspath(image)
        spellings = path, os.path.normpath(path), os.path.abspath(path)
        return next((spelling for spelling in spellings if spelling in self._indices), None)

    # ---- kept ------------------------------------------------------------------------------------------------------------

    def write(self, path: Path, but: Callable[[str], bool] = lambda path: False) -> None:
        """Write the paths of all images that are left out, whole or not at all.

        Args:
            path: The file.
            but: Says which are left out in this run only, as they were broken on purpose.

        Raises:
            OSError: It could not be written; the old file is untouched.
        """
        lines = [_line(left_out) for left_out in self.left_out if not but(left_out)]
        write_whole(path, (HEAD + "".join(f"{line}\n" for line in lines)).encode("utf-8", "surrogateescape"))

    def read(self, path: Path) -> LeftOut:
        """Leave out what a file of :meth:`write`, or of somebody's own, names: one path a line.

        Raises:
            InvalidCallError: It cannot be read.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InvalidCallError(
                f"The quarantine file {path} cannot be read: {reason(error)}. Give the quarantine.txt of an earlier run, or"
                " a file with the path of an image on each line."
            ) from error
        text = content.decode("utf-8-sig", "surrogateescape")
        lines = [line.strip("\r\n \t") for line in text.split("\n")]
        return self.leave_out(line for line in lines if line and not line.startswith("#"))

    def state_dict(self) -> dict[str, Any]:
        """Return counts and paths that are left out, as plain JSON types."""
        return {"counts": dict(self.counts), "left_out": self.left_out}

    def load_state_dict(self, state: Mapping[str, Any]) -> LeftOut:
        """Go on with the counts of an earlier part of the run, and leave out what it left out."""
        self.counts = {str(path): int(count) for path, count in state["counts"].items()}
        return self.leave_out(state["left_out"])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "_out"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._out = self.mask.numpy()  # a view of the shared memory; pickled itself, it would be a copy


def _line(path: str) -> str:
    """Return a path as a line; one that would be read as a comment or as two lines is left as a comment for people."""
    if "\n" in path or "\r" in path or path != path.strip():
        return f"# cannot stand on a line: {path!r}"
    return f"./{path}" if path.startswith("#") else path


def _some(paths: Sequence[str], most: int = 3) -> str:
    return ", ".join(paths[:most]) + (f" and {len(paths) - most} more" if len(paths) > most else "")
