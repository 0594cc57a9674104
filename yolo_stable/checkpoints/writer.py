"""Checkpoint writer: writes healthy checkpoints whole, in Ultralytics' own format.

Ultralytics' own ``save_model`` makes the content: while it runs, ``last``, ``best`` and ``wdir`` of the trainer, which it keeps
here, are paths whose ``write_bytes`` keeps the bytes, so that its branches for quantization and distillation stay its own. Its
final strip, and the calibration of a depth model behind it, are replaced by ones that call its own on a temporary file.

The thread that trains has the state audited, lets Ultralytics make the content and copies the state to the host; a thread of its
own (``_shared/background.py``) does the rest with what was copied (``save.py``). Until that is done, one copy of model, EMA and
optimizer, and the content up to twice, are held beyond the training's own memory. Two saves never run at a time: a new one waits
for the one before, and so does the end of an epoch, so that a crash costs one epoch at most, however short they are.

Whatever reads files waits: ``last``, ``best`` and ``wdir`` of the trainer are properties that do; ``save_model`` returns with all
written when callbacks that are not Ultralytics' own run behind it (``on_model_save``, ``on_fit_epoch_end``), as they may know the
paths; the strip, a halt, a signal, an error and the end of ``train()`` wait as well. What the thread could not do is said by the
thread that trains, after the next batch (``tests/checkpoints/test_save.py``).
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import ultralytics.engine.trainer as stock
import ultralytics.models.yolo.depth.calibrate as calibration
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import strip_optimizer, unwrap_model

from .._shared.atomic_file import PART, reason, write_whole
from .._shared.background import Background
from ..errors import InvalidCallError
from ..guard import StepGuard
from ..guard.health import all_finite, non_finite_names
from .float16 import beyond_half, put_back
from .live_state import CLASS_WEIGHTS, named_state
from .reader import LAST, LAST_GOOD, load, network_of, require_whole
from .save import Outcome, Save, write
from .state_file import NAME as STATE_FILE
from .state_file import SavedState, on_host
from .trainer_view import TrainerView

PLACES = ("last", "best", "wdir")
"""Attributes of a trainer with the paths of its checkpoints; the writer keeps them."""


def place(name: str) -> Any:
    """Return the trainer property of one of the ``PLACES``, which waits for a save in progress."""
    return property(
        lambda trainer: trainer.services.checkpoints.place(name),
        lambda trainer, path: trainer.services.checkpoints.put_place(name, path),
    )


class CheckpointWriter:
    """Writes ``weights/`` of a guarded trainer.

    Args:
        trainer: Read for the live state, the place in the run and the log.
        collect_state: Returns copies of what the checkpoint lacks; called with the last whole epoch, and
            ``at_the_end_of_an_epoch=``.
        make_content: Has Ultralytics' ``save_model`` make a checkpoint of a last whole epoch, and write it.
    """

    def __init__(
        self,
        trainer: TrainerView,
        *,
        collect_state: Callable[..., SavedState],
        make_content: Callable[[int], object],
    ) -> None:
        self._trainer, self._collect_state, self._make_content = trainer, collect_state, make_content
        self._places: dict[str, Path] = {}
        self._slots: dict[str, Path] = {}
        """Stand-ins for the paths while Ultralytics makes a checkpoint."""
        self._digest_on_disk: str | None = None
        """SHA-256 of ``last.pt`` on the disk, if this run wrote or resumed it."""
        self._writing: Background[Outcome] | None = None
        self._saved_by: int | None = None
        """The training thread, which alone handles the result of a save."""
        self._stands = False
        """Whether the newest save was written."""
        self._was_loaded = False
        """Whether a checkpoint of this run was loaded back before it was written."""
        self._said_beyond_half = False
        self._said_not_kept = False

    # ---- where they are --------------------------------------------------------------------------------------------------

    def place(self, name: str) -> Path:
        """Return one of the ``PLACES`` after any save in progress.

        Raises:
            AttributeError: Ultralytics has not set it yet.
        """
        self.finish()
        try:
            return self._slots.get(name) or self._places[name]
        except KeyError:
            raise AttributeError(f"{self._trainer.name} has no {name} yet") from None

    def put_place(self, name: str, path: Path) -> None:
        """Take one of the ``PLACES`` from Ultralytics."""
        self._places[name] = path

    def resumed_from(self, last_digest: str | None) -> None:
        """Continue after a checkpoint.

        Args:
            last_digest: Its SHA-256.
        """
        self._digest_on_disk = last_digest

    @property
    def _state_file(self) -> Path:
        return self._trainer.wdir / STATE_FILE

    # ---- saving ----------------------------------------------------------------------------------------------------------

    @property
    def is_writing(self) -> bool:
        """Whether a save is in progress."""
        return self._writing is not None and not self._writing.idle

    def save(self) -> bool:
        """Save at the end of an epoch; a state that is not finite leaves the checkpoints on disk as they are.

        Stock would write zeros in the place of NaN, and 65504 in the place of what float16 cannot hold; the latter stays
        float32 here. What cannot be written (a full disk) is said, and training goes on.

        What is to be saved is copied here, and written beside the training that goes on. Who asks the trainer for ``last``,
        ``best`` or ``wdir`` meanwhile waits until it is written. With callbacks for the moment behind a save, it is written
        when this returns: they may know where the files are without asking.

        Returns:
            Whether ``last.pt`` is written, or is being written.
        """
        begun = self._begin(self._trainer.epoch, at_the_end_of_an_epoch=True)
        return begun and (self.finish() if self._has_readers() else True)

    def save_now(self, epoch_completed: int) -> bool:
        """Save in the middle of an epoch, so that a resumed run begins this epoch anew with the weights of now.

        Writes ``last.pt``, ``last_good.pt`` and the side file; ``best.pt`` and ``epochN.pt`` belong to whole epochs. The
        gradients of a window that is open are not kept.

        Args:
            epoch_completed: The last whole epoch, from 0; -1 in the middle of the first one.

        Returns:
            Whether it was written.
        """
        return self.save_soon(epoch_completed) and self.finish()

    def save_soon(self, epoch_completed: int) -> bool:
        """Begin to save as :meth:`save_now` does; training continues while the files are written.

        Args:
            epoch_completed: The last whole epoch, from 0; -1 in the middle of the first one.

        Returns:
            Whether it was begun: nothing was found that is not finite.
        """
        return RANK in {-1, 0} and self._begin(epoch_completed, at_the_end_of_an_epoch=False)

    def finish(self) -> bool:
        """Wait for a save in progress, and report what could not be written.

        Another thread, such as one that watches the files, only waits: what came of it is the training thread's to tell.

        Returns:
            Whether the newest save that was asked for was written, as far as the training thread knows.
        """
        if self._writing is not None and self.is_writing:
            if threading.get_ident() == self._saved_by:
                self._take_over(self._writing.result())
            else:
                self._writing.wait()
        return self._stands

    def notice(self) -> None:
        """Report a save that is complete, without waiting for one in progress."""
        if self._writing is not None and self._writing.done:
            self.finish()

    def _begin(self, epoch: int, *, at_the_end_of_an_epoch: bool) -> bool:
        self.finish()  # never two at a time: what is copied for one is held in memory until it is written
        self._stands, self._saved_by = False, threading.get_ident()
        trainer, last = self._trainer, self._trainer.last
        assert trainer.guard is not None
        # With several ranks a ruined state waits for the next window to be put right, and may be finite.
        if not trainer.guard.inspect():
            return self._refuse(epoch, _unhealthy(trainer.guard), "not healthy")
        bad = self._live_culprits()
        if bad:
            return self._refuse(epoch, bad)
        files = self._contents(epoch)
        if last not in files:  # a trainer behind this one writes in its own way
            trainer.run_log.saved(last, epoch + 1)
            self._stands = True
            return True
        copies = [path for path in files if path != last] if at_the_end_of_an_epoch else []
        save = Save(
            epoch=epoch,
            step=trainer.guard.counts.applied,
            content=files[last],
            state=self._copied(epoch, at_the_end_of_an_epoch),
            last=last,
            copies=(*copies, last.with_name(LAST_GOOD)),
            state_file=self._state_file if trainer.args.save else None,
            before=self._digest_on_disk,
            is_first=not self._was_loaded,
        )
        self._writing = self._writing or Background()
        self._writing.start(lambda: write(save))
        return True

    def _has_readers(self) -> bool:
        """Return whether foreign callbacks run after a save; Ultralytics' own ask the trainer for its files."""
        callbacks = self._trainer.callbacks
        behind = [*callbacks.get("on_model_save", ()), *callbacks.get("on_fit_epoch_end", ())]
        return any(not str(getattr(call, "__module__", "")).startswith("ultralytics.") for call in behind)

    def _take_over(self, outcome: Outcome) -> None:
        """Record the result of a save, and report what could not be written."""
        save, epoch = outcome.save, outcome.save.epoch
        self._stands = outcome.written
        if outcome.failed or not outcome.written:
            LOGGER.info("")  # ends the line of the progress bar
        if outcome.beyond_half and not self._said_beyond_half:
            self._said_beyond_half = True
            LOGGER.warning(
                f"{outcome.beyond_half[0]} and {len(outcome.beyond_half) - 1} more hold numbers that float16 cannot (above"
                " 65504): checkpoints keep them in float32. Inference in half precision would overflow."
            )
        if outcome.culprits:
            self._refuse(epoch, outcome.culprits)
        if outcome.damage:
            good = self._trainer.run_log.good_checkpoint()
            LOGGER.warning(f"checkpoint of epoch {epoch + 1} not written: it is {outcome.damage}. {good}")
        if outcome.written:
            self._was_loaded = True
            self._digest_on_disk = outcome.digest
            self._trainer.run_log.saved(save.last, epoch + 1, save.step)
        for path, error in outcome.failed.items():
            if path == save.state_file:
                self._say_not_kept(path, error)
            else:
                self._warn(path, error)

    def _copied(self, epoch: int, at_the_end_of_an_epoch: bool) -> SavedState:
        """Return a copy of the current state; without plain values that cannot be copied."""
        try:
            return self._collect_state(epoch, at_the_end_of_an_epoch=at_the_end_of_an_epoch)
        except (TypeError, ValueError) as error:
            assert self._trainer.guard is not None
            if self._trainer.args.save:
                self._say_not_kept(self._state_file, error)
            return SavedState(on_host(self._trainer.guard.state.live()), {})

    def _say_not_kept(self, path: Path, error: Exception) -> None:
        """Report a missing side file; a lasting reason only once."""
        if isinstance(error, OSError) or not self._said_not_kept:
            LOGGER.warning(
                f"{path} could not be written: {_why(error)}. Training goes on, and {LAST} is written without it:"
                " resumed from that alone, weights are rounded to float16 and the order of the data begins anew."
            )
            self._said_not_kept |= not isinstance(error, OSError)

    def _live_culprits(self) -> tuple[str, ...]:
        """Name non-finite tensors that the guard's audit does not cover: stock's save must never get one."""
        trainer = self._trainer
        assert trainer.guard is not None
        state = list(named_state(unwrap_model(trainer.model), trainer.optimizer))
        if trainer.guard.recovery is None:
            state += [(f"EMA {name}", tensor) for name, tensor in trainer.ema.ema.state_dict().items()]
        else:
            state = [(name, tensor) for name, tensor in state if name == CLASS_WEIGHTS]
        state = [(name, tensor) for name, tensor in state if isinstance(tensor, torch.Tensor)]
        return () if all_finite(tensor for _, tensor in state) else non_finite_names(state)

    def _refuse(self, epoch: int, bad: tuple[str, ...], what: str = "not finite") -> bool:
        self._trainer.run_log.checkpoint_kept(epoch + 1, bad)
        LOGGER.warning(
            f"checkpoint of epoch {epoch + 1} not written, {what}: {', '.join(bad)}. {self._trainer.run_log.good_checkpoint()}"
        )
        return False

    def _contents(self, epoch: int) -> dict[Path, bytes]:
        """Let Ultralytics make the checkpoint, and catch the files that it would write."""
        written: dict[Path, bytes] = {}

        class Slot(type(Path())):  # Ultralytics writes to paths: these keep what is written to them
            def write_bytes(self, data: Any) -> int:
                written[Path(self)] = bytes(data)
                return len(data)

            def mkdir(self, *args: Any, **kwargs: Any) -> None:
                """Do nothing: the writer makes folders."""

        try:
            self._slots = {name: Slot(path) for name, path in self._places.items()}
            self._make_content(epoch)
        finally:
            self._slots = {}
        return written

    def _warn(self, path: Path, error: Exception) -> None:
        old = "the file of the last save is still there" if path.exists() else "there is no older one"
        LOGGER.warning(
            f"{path} could not be written: {_why(error)}. Training goes on and tries again with the next save; {old}."
        )

    @contextlib.contextmanager
    def stripping(self) -> Iterator[None]:
        """Make Ultralytics' final strip and calibration replace files whole, the strip in sufficient precision."""
        self.finish()
        before = stock.strip_optimizer, calibration.calibrate_checkpoint
        try:
            stock.strip_optimizer, calibration.calibrate_checkpoint = self._strip, self._calibrate
            yield
        finally:
            stock.strip_optimizer, calibration.calibrate_checkpoint = before

    def _strip(self, path: Path, s: str = "", updates: dict[str, Any] | None = None) -> dict[str, Any]:
        """Strip as ``strip_optimizer`` does; the old file stays until the new one is whole."""
        path = Path(path)
        try:
            network = network_of(load(path))
        except InvalidCallError as error:
            LOGGER.warning(f"{path} was not stripped of its optimizer: it is {error}.")
            return {}
        kept = beyond_half(getattr(network, "student_model", network).state_dict().items())
        part = path.with_name(f"{path.name}.stripped{PART}")
        try:
            with _without_its_line("Optimizer stripped"):
                combined = strip_optimizer(path, str(part), updates)
            if kept:
                put_back(combined["model"], kept)
                torch.save(combined, part)
            size = self._replace(path, part)
        except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError when the disk is full
            LOGGER.warning(
                f"{path} was not stripped of its optimizer: {_why(error)}. It stays whole as it is, only larger."
            )
            return {}
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        LOGGER.info(f"Optimizer stripped from {path}, {size / 1e6:.1f}MB")
        return combined

    def _calibrate(self, path: Path, *args: Any, **options: Any) -> dict[str, Any] | None:
        """Calibrate as ``calibrate_checkpoint`` does; the old file stays until the new one is whole."""
        path = Path(path)
        part = path.with_name(f"{path.name}.calibrated{PART}")
        try:
            shutil.copyfile(path, part)
            with _without_its_line("Auto-calibration written"):
                chosen = _CALIBRATE(part, *args, **options)
            if chosen is None:
                return None
            self._replace(path, part)
        except (OSError, RuntimeError) as error:
            LOGGER.warning(
                f"{path} was not calibrated: {_why(error)}. It stays whole as it is, with depth uncalibrated."
            )
            return None
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        LOGGER.info(
            f"Auto-calibration written to {path.name}: '{chosen['candidate']}' a={chosen['a']:.4f} b={chosen['b']:.4f}"
        )
        return chosen

    def _replace(self, path: Path, part: Path) -> int:
        """Replace a checkpoint, and ``last_good.pt`` with ``last.pt``, by a file beside it that is whole; return its bytes.

        Raises:
            InvalidCallError: The file beside it is damaged.
            OSError: The checkpoint could not be written.
        """
        content = part.read_bytes()
        require_whole(content)
        write_whole(path, content)
        if path == self._trainer.last:
            good = path.with_name(LAST_GOOD)
            try:
                write_whole(good, content)
            except OSError as error:
                self._warn(good, error)
        return len(content)


def _unhealthy(guard: StepGuard) -> tuple[str, ...]:
    assert guard.recovery is not None
    return guard.recovery.audit.inspect(guard.state.live()).names


def _why(error: Exception) -> str:
    return reason(error) if isinstance(error, OSError) else " ".join(str(error).split()) or type(error).__name__


_CALIBRATE = calibration.calibrate_checkpoint


@contextlib.contextmanager
def _without_its_line(start: str) -> Iterator[None]:
    """Suppress Ultralytics' log line about the temporary file, which begins with ``start``."""

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(start)

    LOGGER.addFilter(other)
    try:
        yield
    finally:
        LOGGER.removeFilter(other)
