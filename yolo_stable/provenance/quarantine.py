"""Quarantine: images that are left out of the rest of a run, as they were found guilty twice, or cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .._shared.atomic_file import reason, write_whole
from .._shared.text import listed
from ..errors import InvalidCallError
from .path_states import LEFT_OUT, PathStates

STRIKES = 2
"""So often an image is blamed before it is left out: once may be an accident, of the device or of its neighbours."""
SHARE = 0.5
"""So much of each data set always remains."""
HEAD = """\
# Images that yolo-stable left out of a training, one path a line. Lines that start with # are not read.
"""
LOST = "# the next one"
"""So begins the line before an image that could not be read."""


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
            said.append(f"Not in the data set: {listed(self.unknown)}.")
        if self.refused:
            said.append(f"Not left out, as at least half of the images must remain: {listed(self.refused)}.")
        return " ".join(said)


class Quarantine:
    """Knows by path which images are left out, and tells all loader workers, also those that already run.

    Only the main process changes it. Counts live as long as it does, and longer with :meth:`state_dict`.

    Args:
        images: Number of images in the data set, or the states of its files.

    Examples:
        >>> quarantine = Quarantine(4)
        >>> quarantine.describe(["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
        >>> quarantine.blame("b.jpg"), quarantine.blame("b.jpg")
        (False, True)
        >>> quarantine.left_out, quarantine.has_out("c.jpg")
        (['b.jpg'], False)
    """

    def __init__(self, images: int | PathStates) -> None:
        self.states = images if isinstance(images, PathStates) else PathStates(images)
        self.counts: dict[str, int] = {}
        """How often each image was blamed."""
        self.refused: list[str] = []
        """Images that were to be left out and were not, as too few would have remained."""
        self.lost: dict[str, str] = {}
        """Images that cannot be read, and why; they are out as well."""
        self._out: list[str] = []
        self._parts: dict[int, dict[str, str]] = {}
        """The paths of each data set by their absolute form."""

    def describe(self, paths: Sequence[str], part: int = 0) -> None:
        """Learn the image files, by index, of a data set (of several that are joined: of one ``part``). ``trace`` calls it."""
        self._parts[part] = known = {}
        for path in paths:
            known.setdefault(os.path.abspath(path), path)

    @property
    def images(self) -> int:
        """How many different files there are."""
        return len(set().union(*self._parts.values()))

    def has_out(self, path: str) -> bool:
        """Say whether an image is out, for whatever reason."""
        return self.states.get(path) != 0

    @property
    def left_out(self) -> list[str]:
        """The paths of images that are left out, in the order of the data set; unreadable ones last."""
        order = {path: n for n, path in enumerate(path for part in self._parts.values() for path in part)}
        guilty = sorted(self._out, key=lambda path: order.get(os.path.abspath(path), len(order)))
        return guilty + [path for path in self.lost if path not in self._out]

    def blame(self, image: str | os.PathLike[str]) -> bool:
        """Count that an image was found guilty, and leave it out the second time.

        Returns:
            Whether it was left out now; not when it is too early or too late, or too few would remain.
        """
        path = self._spelled(image)
        if self.has_out(path):
            return False
        self.counts[path] = self.counts.get(path, 0) + 1
        return self.counts[path] >= STRIKES and bool(self._leave_out([path]).taken)

    def to_blame(self, images: Iterable[str], guilty: int) -> list[str]:
        """Return whom to blame when at most ``guilty`` of these images did it and nobody can tell which.

        All of them when none was blamed before, else those that were blamed most, as they explain it. Never more than can be
        guilty: an image that was blended with a bad one twice must not be left out for it.

        Examples:
            >>> quarantine = Quarantine(3)
            >>> quarantine.describe(["bad.jpg", "a.jpg", "b.jpg"])
            >>> [quarantine.blame(path) for path in quarantine.to_blame(["bad.jpg", "a.jpg"], guilty=1)]
            [False, False]
            >>> quarantine.to_blame(["bad.jpg", "b.jpg"], guilty=1)
            ['bad.jpg']
        """
        named = list(dict.fromkeys(images))
        counts = [self.counts.get(self._spelled(path), 0) for path in named]
        if len(named) <= guilty or not any(counts):
            return named
        top = [path for path, count in zip(named, counts, strict=True) if count == max(counts)]
        return top if len(top) <= guilty else []

    def leave_out(self, paths: Iterable[str | os.PathLike[str]]) -> LeftOut:
        """Leave images out, as long as at least half of each data set remains; unknown and refused ones are in the result."""
        given = list(dict.fromkeys(os.fspath(path) for path in paths))
        unknown = [path for path in given if not self._knows(path)]
        came = self._leave_out([self._spelled(path) for path in given if path not in unknown])
        return replace(came, unknown=tuple(unknown))

    def lose(self, path: str, why: str) -> None:
        """Note why an image cannot be read; its state is set already."""
        self.lost.setdefault(self._spelled(path), why)

    def _leave_out(self, paths: Iterable[str]) -> LeftOut:
        taken, refused = [], []
        for path in paths:
            if self.has_out(path):
                continue
            if self._spares(path) and self.states.set(path, LEFT_OUT):
                self._out.append(path)
                taken.append(path)
            else:
                refused.append(path)
        self.refused += [path for path in refused if path not in self.refused]
        return LeftOut(taken=tuple(taken), refused=tuple(refused))

    def _spares(self, path: str) -> bool:
        """Say whether enough images remain without this one, in each data set that has it."""
        key = os.path.abspath(path)
        out = {os.path.abspath(one) for one in self._out}
        parts = (part for part in self._parts.values() if key in part)
        return all(len(out & part.keys()) + 1 <= len(part) * (1 - SHARE) for part in parts)

    def _knows(self, path: str) -> bool:
        return any(os.path.abspath(path) in part for part in self._parts.values())

    def _spelled(self, image: str | os.PathLike[str]) -> str:
        """Return a path as the data set spells it; a path that it lacks stays."""
        path = os.fspath(image)
        key = os.path.abspath(path)
        return next((part[key] for part in self._parts.values() if key in part), path)

    # ---- kept ------------------------------------------------------------------------------------------------------------

    def write(self, path: Path, but: Callable[[str], bool] = lambda path: False) -> None:
        """Write the paths of all images that are left out, except those ``but`` says were broken on purpose, whole or not at all.

        Raises:
            OSError: It could not be written; the old file is untouched.
        """
        lines = [_line(path) for path in self.left_out if path not in self.lost and not but(path)]
        for lost, why in self.lost.items():
            lines += [f"{LOST} {why}:", _line(lost)]
        write_whole(path, (HEAD + "".join(f"{line}\n" for line in lines)).encode("utf-8", "surrogateescape"))

    def read(self, path: Path, *, lost: bool = True) -> LeftOut:
        """Leave out what a file of :meth:`write`, or one with a path a line, names; those that were unreadable only if ``lost``.

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
        before = ["", *lines]
        wanted = [line for n, line in enumerate(lines) if lost or not before[n].startswith(LOST)]
        return self.leave_out(line for line in wanted if line and not line.startswith("#"))

    def state_dict(self) -> dict[str, Any]:
        """Return counts and left-out paths as plain JSON types; not unreadable ones, which may come back."""
        return {"counts": dict(self.counts), "left_out": [path for path in self.left_out if path not in self.lost]}

    def load_state_dict(self, state: Mapping[str, Any]) -> LeftOut:
        """Go on with the counts of an earlier part of the run, and leave out what it left out."""
        self.counts = {str(path): int(count) for path, count in state["counts"].items()}
        return self.leave_out(state["left_out"])


def _line(path: str) -> str:
    """Return a path as a line; one that would read as a comment or as two lines becomes a comment for people."""
    if "\n" in path or "\r" in path or path != path.strip():
        return f"# cannot stand on a line: {path!r}"
    return f"./{path}" if path.startswith("#") else path
