"""How a guarded trainer writes its checkpoints: whole, healthy, and in Ultralytics' own format."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import ultralytics.engine.trainer as stock
from safetensors import SafetensorError
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import strip_optimizer, unwrap_model

from .checkpoint_file import LAST_GOOD, culprits, digest, load, network_of
from .errors import InvalidCallError
from .guard import StepGuard
from .guard.health import all_finite, non_finite_names
from .half import beyond_half, halved, put_back
from .run_log import RunLog
from .startup import named_state
from .state_file import NAME as STATE_FILE
from .whole_file import PART, reason, write_whole

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Base
else:
    _Base = object


class GuardedCheckpoints(_Base):
    """The part of :class:`~yolo_stable.GuardedTrainerMixin` that writes ``weights/``."""

    guard: StepGuard | None
    run_log: RunLog
    _digest_on_disk: str | None = None
    """SHA-256 of the ``last.pt`` that is there, as far as it is ours or was resumed."""
    _said_beyond_half = False
    _said_not_kept = False

    def save_model(self) -> Any:
        """Write the checkpoints, unless something in them is not finite: then the ones on disk stay as they are.

        Stock would write zeros in the place of NaN, and 65504 in the place of what float16 cannot hold; the latter stays
        float32 here. What cannot be written (a full disk) is said, and training goes on.

        Returns:
            True once ``last.pt`` has been written.
        """
        return self._save(self.epoch, at_the_end_of_an_epoch=True)

    def save_now(self, epoch_completed: int) -> bool:
        """Save in the middle of an epoch, so that a resumed run begins this epoch anew with the weights of now.

        Writes ``last.pt``, ``last_good.pt`` and the side file; ``best.pt`` and ``epochN.pt`` belong to whole epochs. The
        gradients of a window that is open are not kept.

        Args:
            epoch_completed: The last whole epoch, from 0; -1 in the middle of the first one.

        Returns:
            Whether it was written.
        """
        if RANK not in {-1, 0}:
            return False
        epoch, self.epoch = getattr(self, "epoch", 0), epoch_completed
        try:
            return self._save(epoch_completed, at_the_end_of_an_epoch=False)
        finally:
            self.epoch = epoch

    if TYPE_CHECKING:

        def write_state_file(self, digest_of_last: str, *, at_the_end_of_an_epoch: bool) -> None:
            """Write what the checkpoint lacks; see :class:`~yolo_stable.resuming.GuardedResume`."""

    def _save(self, epoch: int, *, at_the_end_of_an_epoch: bool) -> bool:
        # With several ranks a ruined state waits for the next window to be put right, and may be finite.
        if self.guard is not None and not self.guard.inspect():
            return self._refuse(epoch, self._unhealthy(self.guard), "not healthy")
        bad = self._live_culprits()
        if bad:
            return self._refuse(epoch, bad)
        files = self._contents()
        if self.last not in files:  # a trainer behind this one writes in its own way
            self.run_log.saved(self.last, epoch + 1)
            return True
        if not at_the_end_of_an_epoch:
            files = {self.last: files[self.last]}
        content = self._mended(files[self.last])
        try:
            bad = culprits(load(content))
        except InvalidCallError as error:
            LOGGER.warning(
                f"checkpoint of epoch {epoch + 1} not written: it is {error}. {self.run_log.good_checkpoint()}"
            )
            return False
        if bad:
            return self._refuse(epoch, bad)
        # The side file first: after a crash between the two it is the newer one, and complete by itself.
        of_last = digest(content)
        has_state = not self.args.save or self._write_state(of_last, at_the_end_of_an_epoch=at_the_end_of_an_epoch)
        if not self._write(self.last, content):
            return False
        if not has_state:  # the one that is there goes with the last.pt of before, and would have this one refused
            with contextlib.suppress(OSError):
                (self.wdir / STATE_FILE).unlink(missing_ok=True)
        self._digest_on_disk = of_last
        self.run_log.saved(self.last, epoch + 1, 0 if self.guard is None else self.guard.counts.applied)
        for path in (*(path for path in files if path != self.last), self.last.with_name(LAST_GOOD)):
            self._write(path, content)
        return True

    def _write_state(self, of_last: str, *, at_the_end_of_an_epoch: bool) -> bool:
        """Write the side file; what keeps it from being written is said, and the checkpoint is written without it."""
        path = self.wdir / STATE_FILE
        try:
            self.write_state_file(of_last, at_the_end_of_an_epoch=at_the_end_of_an_epoch)
        except (OSError, TypeError, ValueError, SafetensorError) as error:  # a full disk; a state that is not JSON
            why = reason(error) if isinstance(error, OSError) else " ".join(str(error).split()) or type(error).__name__
            if isinstance(error, OSError) or not self._said_not_kept:  # the latter will be so at every save
                LOGGER.warning(
                    f"{path} could not be written: {why}. Training goes on, and {self.last.name} is written without it:"
                    " resumed from that alone, weights are rounded to float16 and the order of the data begins anew."
                )
                self._said_not_kept |= not isinstance(error, OSError)
            return False
        return True

    def _live_culprits(self) -> tuple[str, ...]:
        assert self.ema is not None
        state = [(f"EMA {name}", tensor) for name, tensor in self.ema.ema.state_dict().items()]
        model: Any = self.model
        state += named_state(unwrap_model(model), self.optimizer)
        state = [(name, tensor) for name, tensor in state if isinstance(tensor, torch.Tensor)]
        return () if all_finite(tensor for _, tensor in state) else non_finite_names(state)

    def _unhealthy(self, guard: StepGuard) -> tuple[str, ...]:
        assert guard.recovery is not None
        return guard.recovery.audit.inspect(guard.state.live()).names

    def _refuse(self, epoch: int, bad: tuple[str, ...], what: str = "not finite") -> bool:
        self.run_log.checkpoint_kept(epoch + 1, bad)
        LOGGER.warning(
            f"checkpoint of epoch {epoch + 1} not written, {what}: {', '.join(bad)}. {self.run_log.good_checkpoint()}"
        )
        return False

    def _contents(self) -> dict[Path, bytes]:
        """Let Ultralytics make the checkpoint, and take what it writes where it would write it."""
        written: dict[Path, bytes] = {}

        class Slot(type(Path())):  # Ultralytics writes to paths: these keep what is written to them
            def write_bytes(self, data: Any) -> int:
                written[Path(self)] = bytes(data)
                return len(data)

            def mkdir(self, *args: Any, **kwargs: Any) -> None:
                """Leave it to the writing."""

        places = self.last, self.best, self.wdir
        try:
            self.last, self.best, self.wdir = (Slot(place) for place in places)
            super().save_model()
        finally:
            self.last, self.best, self.wdir = places
        return written

    def _mended(self, content: bytes) -> bytes:
        """Put back in float32 what Ultralytics has clamped."""
        assert self.ema is not None
        assert self.optimizer is not None
        kept = beyond_half(self.ema.ema.state_dict().items())
        of_optimizer = beyond_half(halved(self.optimizer.state_dict()["state"]))
        if not kept and not of_optimizer:
            return content
        if kept and not self._said_beyond_half:
            self._said_beyond_half = True
            LOGGER.warning(
                f"{next(iter(kept))} and {len(kept) - 1} more hold numbers that float16 cannot (above 65504): checkpoints keep"
                " them in float32. Inference in half precision would overflow."
            )
        checkpoint = load(content)
        put_back(network_of(checkpoint), kept)
        for index, values in checkpoint["optimizer"]["state"].items():
            for key in values:
                values[key] = of_optimizer.get(f"{index}/{key}", values[key])
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        return buffer.getvalue()

    def _write(self, path: Path, content: bytes) -> bool:
        try:
            write_whole(path, content)
        except OSError as error:
            self._warn(path, error)
            return False
        return True

    def _warn(self, path: Path, error: OSError) -> None:
        old = "the file of the last save is still there" if path.exists() else "there is no older one"
        LOGGER.warning(
            f"{path} could not be written: {reason(error)}. Training goes on and tries again with the next save; {old}."
        )

    def final_eval(self) -> None:
        """Let Ultralytics strip and evaluate the checkpoints; stripping replaces files whole, in precision that holds them."""
        before = stock.strip_optimizer
        try:
            stock.strip_optimizer = self._strip
            super().final_eval()
        finally:
            stock.strip_optimizer = before

    def _strip(self, path: Path, s: str = "", updates: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do what ``strip_optimizer`` does, and leave the old file in its place until the new one is whole."""
        path = Path(path)
        try:
            network = network_of(load(path))
        except InvalidCallError as error:
            LOGGER.warning(f"{path} was not stripped of its optimizer: it is {error}.")
            return {}
        kept = beyond_half(getattr(network, "student_model", network).state_dict().items())
        part = path.with_name(f"{path.name}.stripped{PART}")
        try:
            with _without_its_line():
                combined = strip_optimizer(path, str(part), updates)
            if kept:
                put_back(combined["model"], kept)
                torch.save(combined, part)
            content = part.read_bytes()
            load(content)
            write_whole(path, content)
        except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError when the disk is full
            why = reason(error) if isinstance(error, OSError) else " ".join(str(error).split())
            LOGGER.warning(f"{path} was not stripped of its optimizer: {why}. It stays whole as it is, only larger.")
            return {}
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        if path == self.last:
            self._write(path.with_name(LAST_GOOD), content)
        LOGGER.info(f"Optimizer stripped from {path}, {len(content) / 1e6:.1f}MB")
        return combined


@contextlib.contextmanager
def _without_its_line() -> Iterator[None]:
    """Keep back the line in which Ultralytics names the temporary file."""

    def other(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Optimizer stripped")

    LOGGER.addFilter(other)
    try:
        yield
    finally:
        LOGGER.removeFilter(other)
