"""Calls of ``yolo-stable compare`` whose runs take milliseconds; ``python comparing_rig.py FOLDER`` carries one out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from yolo_stable.compare.axes import Axes
from yolo_stable.compare.call import CompareCall
from yolo_stable.compare.trial import Trial

Fates = Callable[..., None]
Starts = Callable[[], list[str]]
STUB = Path(__file__).with_name("comparing_stub.py")


def stub(trial: Trial, words: list[str]) -> list[str]:
    """Return the command of a run that takes milliseconds."""
    return [sys.executable, "-S", str(STUB), *words]


def compare_call(*words: str, data: str = "data.yaml", epochs: int | None = None, **axes: Any) -> CompareCall:
    return CompareCall.parse(data, words, Axes.parse(**axes), epochs)


class Pages(ModuleType):
    """Stands for ``yolo_stable.report``, and draws nothing."""

    def __init__(self) -> None:
        super().__init__("yolo_stable.report")
        self.made: list[tuple[list[Path], Path | None, str | None]] = []
        self.conclusion = ""
        self.error: Exception | None = None

    def write_report(
        self,
        runs: Sequence[Path],
        out: Path | None = None,
        *,
        title: str | None = None,
        conclusion: str = "",
        verb: str = "report",
    ) -> Path:
        if self.error is not None:
            raise self.error
        self.made.append((list(runs), out, f"{title}: {verb}"))
        self.conclusion = conclusion
        return out or Path("report.html")


def main() -> int:
    """Compare two learning rates with two seeds, in a process that can be killed."""
    from yolo_stable.compare import run_trial
    from yolo_stable.compare.comparison import run_comparison

    sys.modules["yolo_stable.report"] = Pages()
    run_trial.POLL = 0.01
    call = compare_call("optimizer=SGD", lr0="0.01,0.02", seeds="0,1")
    return run_comparison(call, out=Path(sys.argv[1]), json=Path(sys.argv[1] + ".json"), launch=stub)


if __name__ == "__main__":
    from yolo_stable.cli import main as cli
    from yolo_stable.errors import YoloStableError

    try:
        sys.exit(main())
    except YoloStableError as error:
        cli._end(str(error), error.exit_code)
