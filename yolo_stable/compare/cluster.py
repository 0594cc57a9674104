"""Cluster backend: trains the runs of a comparison on Ray, several at a time, on one machine or many."""

from __future__ import annotations

import importlib
import math
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._shared.signals import SIGNALS
from ..errors import InvalidCallError
from .axes import WHERE
from .call import CompareCall
from .child import Launch
from .comparison import require_not_refused
from .outcome import FAILED, TrialOutcome
from .run_trial import PATIENCE, POLL, Stop, run_trial
from .trial import Trial

if TYPE_CHECKING:
    from .board import Board
    from .state import State

ASKED = ".stop"
"""File in the folder of the comparison that asks all runs to end. Ray itself would interrupt its processes, but they ignore
Ctrl-C when it was started in the background."""
NOTE = "The runs trained side by side (--ray): their times per epoch depend on the load of the machines, and cannot be compared."


@dataclass(frozen=True)
class Cluster:
    """Trains runs as tasks of Ray; all machines see the same files under the same paths."""

    ray: Any
    resources: Mapping[str, float] | None = None

    @classmethod
    def prepared(cls, call: CompareCall, resources: str | None, *, asked: bool = True) -> Cluster:
        """Check what can go wrong only side by side.

        Raises:
            InvalidCallError: Ray is not installed, the resources are not understood, or the model would be downloaded by
                several runs at once.
        """
        if not asked:
            raise InvalidCallError(f"{WHERE}: --resources works only with --ray. Add --ray, or leave it out.")
        wanted = _resources(resources)
        try:
            ray = importlib.import_module("ray")  # by name: it is an optional dependency
        except ImportError as error:
            raise InvalidCallError(
                f"{WHERE}: --ray needs Ray, which is not installed: pip install 'yolo-stable[ray]'. Without --ray the runs train"
                " one after the other."
            ) from error
        model = call.train.model
        if model is None or (model.endswith(".pt") and not Path(model).is_file()):
            raise InvalidCallError(
                f"{WHERE}: --ray needs model= as an existing file, not {model or 'the default'}, which all runs would download"
                " at the same time."
            )
        call.train.resolve_data()  # makes a built-in one, once
        return cls(ray, wanted)

    def __call__(self, trials: Sequence[Trial], state: State, board: Board, *, launch: Launch, stop: Stop) -> None:
        """Train the runs.

        Raises:
            InvalidCallError: As :class:`~yolo_stable.compare.comparison.TrialBackend`.
        """
        if not trials:
            return
        ray = self.ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report this machine to its makers
        started = not ray.is_initialized()
        if started:  # joins the cluster of RAY_ADDRESS or one that runs here, else starts one
            handlers = {number: signal.getsignal(number) for number in SIGNALS}
            ray.init(log_to_driver=False)
            for number, handler in handlers.items():  # Ray sets handlers below Python's, under which SIGTERM aborts
                signal.signal(number, handler)
        try:
            self._train(trials, state, board, launch, stop)
        finally:
            if started:
                ray.shutdown()

    def _train(self, trials: Sequence[Trial], state: State, board: Board, launch: Launch, stop: Stop) -> None:
        ray = self.ray
        resources = self.resources or {"GPU" if ray.cluster_resources().get("GPU", 0) >= 1 else "CPU": 1}
        options: dict[str, Any] = {"num_cpus": resources.get("CPU", 0), "num_gpus": resources.get("GPU", 0)}
        options["resources"] = {kind: number for kind, number in resources.items() if kind not in ("CPU", "GPU")}
        task = ray.remote(_task).options(**options)
        asked = state.folder / ASKED
        asked.unlink(missing_ok=True)  # of a comparison that was killed
        left = {}
        for number, trial in enumerate(trials, start=1):
            state.begin(trial)
            board.begin(trial, number)
            left[task.remote(trial, state.folder, os.getcwd(), launch)] = trial
        try:
            while left:
                ended, _ = ray.wait(list(left), timeout=POLL)
                for reference in ended:
                    trial = left.pop(reference)
                    outcome = self._outcome(reference)
                    state.end(trial, outcome)
                    board.end(trial, outcome)
                    require_not_refused(outcome, state)
                for trial in left.values():
                    board.watch(trial)
                if stop() is not None:
                    asked.touch()
        except BaseException:
            asked.touch()
            if left:
                ray.wait(list(left), num_returns=len(left), timeout=PATIENCE)
            raise
        finally:
            asked.unlink(missing_ok=True)

    def _outcome(self, reference: Any) -> TrialOutcome:
        """Return how a run ended; of one that Ray lost, why."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayError as error:  # its machine lost, or an error in the task
            return TrialOutcome(status=FAILED, reason=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _task(trial: Trial, comparison: Path, cwd: str, launch: Launch) -> TrialOutcome:
    """Train one run in a process of Ray."""
    os.chdir(cwd)

    def stop() -> signal.Signals | None:
        return signal.SIGTERM if (comparison / ASKED).exists() else None

    return run_trial(trial, comparison, launch=launch, stop=stop)


def _resources(text: str | None) -> dict[str, float] | None:
    """Read ``KIND=N,...``.

    Examples:
        >>> _resources("GPU=1,CPU=4")
        {'GPU': 1.0, 'CPU': 4.0}
    """
    if text is None:
        return None
    found = {}
    for word in text.split(","):
        kind, _, number = (part.strip() for part in word.partition("="))
        try:
            found[kind] = float(number)
        except ValueError:
            found[kind] = math.nan
        if not kind or not (math.isfinite(found[kind]) and found[kind] > 0):
            raise InvalidCallError(f"{WHERE}: --resources: {word!r} is not understood. Write it as GPU=1,CPU=4.")
    return found
