"""Resume session: continues a run in full precision, with changed arguments, from verified files.

The order: ``check`` checks the files and takes arguments over; Ultralytics loads the rounded state; behind the building of the
guard ``restore`` puts the exact one in its place, and changed arguments over the saved groups (``EFFECTS``); at the first
``on_train_epoch_start``, after all callbacks, ``begin_epoch`` puts back the gradients of an open window, what the loss keeps, the
order of the data and, last, the random numbers: nothing draws between there and the first batch. Generators are restored on the
first rank only, whose they are: on the others they would draw what it draws.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.utils import LOGGER, RANK

from .._shared.atomic_file import PART
from .._shared.shell_text import AGAIN
from .._shared.text import one_line
from ..errors import FinishedRunError, InvalidCallError
from ..guard.wrappers import plainly_named, unwrap
from ..presets.run_plan import checkpoint_to_resume
from ..runlog.results_csv import keep_epochs
from .accumulation import Cadence
from .loader_state import restore_behind_reset
from .loop_state import (
    LoopMemory,
    collect,
    restore_data,
    restore_late,
    restore_memory,
    restore_training,
    restore_window,
)
from .reader import LAST, LAST_GOOD, digest, load_good
from .state_file import NAME, SavedState, on_host, read
from .trainer_view import TrainerView

OF_THE_RUN = ("model", "mode", "resume", "pretrained", "task", "data", "cfg", "project", "name", "exist_ok", "save_dir")
"""Arguments that a resumed run does not take from its call: it stays the same run in the same folder."""
EFFECTS = {
    "lr0": ("initial_lr", "lr"),
    "momentum": ("momentum", "betas"),
    "weight_decay": ("weight_decay",),
    "batch": ("weight_decay",),  # Ultralytics scales the decay with the batch
    "nbs": ("weight_decay",),
}
"""Arguments kept in the optimizer's groups, where the saved numbers would override the new ones."""
OF_THE_SCHEDULE = (
    "epochs",
    "time",
    "patience",
    "lr0",
    "lrf",
    "cos_lr",
    "warmup_epochs",
    "warmup_momentum",
    "warmup_bias_lr",
)
OF_THE_MACHINE = ("device", "workers", "cache", "compile", "profile", "seed", "deterministic")
OF_THE_OUTPUT = ("save", "save_period", "val", "plots", "verbose", "save_json", "project", "name", "exist_ok")
SAME_SCALE = frozenset(OF_THE_SCHEDULE + OF_THE_MACHINE + OF_THE_OUTPUT)
"""Arguments that do not change the size of loss and gradients; any other may invalidate the old baselines."""


class ResumeSession:
    """Resumes a run, and collects what a later resume needs.

    Args:
        trainer: Read for the call, the state that is put back and the place in the run.
        filled: Puts the names of the run into the commands of a text.
    """

    def __init__(self, trainer: TrainerView, filled: Callable[[str], str]) -> None:
        self._trainer, self._filled = trainer, filled
        self.digest: str | None = None
        """SHA-256 of the resumed checkpoint; None: a new run, or a checkpoint found by Ultralytics."""
        self._cadence = Cadence()
        self._saved: SavedState | None = None
        self._same_optimizer = True
        self._held = 0
        """Number of parameters in the optimizer when its state was restored."""
        self._args_before: str | None = None
        """The original ``args.yaml`` of the resumed run."""
        self._fresh = True
        """Whether the loop has yet to begin its first epoch."""

    # ---- saving ----------------------------------------------------------------------------------------------------------

    def collect(self, epoch: int, *, at_the_end_of_an_epoch: bool) -> SavedState:
        """Return what the side file of a checkpoint holds, copied to the host.

        Args:
            epoch: The last whole one, from 0; -1 in the middle of the first one.
            at_the_end_of_an_epoch: False in the middle of one.

        Raises:
            TypeError: Something in the state cannot be copied, as a schedule's own object; so for ValueError.

        Syncs: one per tensor that is not on the host.
        """
        tensors, plain = collect(self._trainer, self._cadence, epoch, at_the_end_of_an_epoch=at_the_end_of_an_epoch)
        return SavedState(on_host(tensors), plain)

    def end(self) -> None:
        """Remove the side file of a run that is over: it has nothing to resume."""
        if RANK not in {-1, 0}:
            return
        folder = self._trainer.wdir
        for path in (folder / NAME, *folder.glob(f"*{PART}")):
            with contextlib.suppress(OSError):  # it does no harm: the checkpoint that it belongs to is another now
                path.unlink(missing_ok=True)

    # ---- resuming --------------------------------------------------------------------------------------------------------

    def check(self, overrides: dict[str, Any], stock: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Find and verify the checkpoint, and take over its arguments; those of the call win.

        Args:
            overrides: Of the call.
            stock: Ultralytics' ``check_resume``.

        Returns:
            Arguments that differ from what the run was saved with, beside those that the plan names: key to (before, now).

        Raises:
            InvalidCallError: The checkpoint or its side file is damaged, they do not belong together, or it is of another task.
        """
        trainer = self._trainer
        path = checkpoint_to_resume({**overrides, "resume": trainer.args.resume})
        if path is None:  # no resume, or the newest run that Ultralytics finds
            stock(overrides)
            return {}
        checkpoint = load_good(path)
        before: dict[str, Any] = checkpoint.get("train_args") or {}
        if before.get("task") and before["task"] != trainer.args.task:  # what takes its part would not know the network
            raise InvalidCallError(
                f"{path} was trained for task={before['task']}, and {trainer.name} trains task={trainer.args.task}."
                f" Resume it with task={before['task']}, or begin a new run from it: without resume."
            )
        given = {key: value for key, value in overrides.items() if key not in OF_THE_RUN}
        trainer.args.resume = str(path)
        stock({})
        args = trainer.args  # those of the checkpoint by now
        if overrides.get("save_dir"):  # a worker of a multi-GPU run is told its folder
            args.save_dir = overrides["save_dir"]
        elif path.parent.name == "weights":  # where it is now: the folder may have been moved, or be a copy
            args.save_dir = str(path.parent.parent)
        self._args_before = _text_of(Path(args.save_dir) / "args.yaml") if args.save_dir else None
        changed = {}
        for key, value in given.items():
            old = getattr(args, key, None)
            if value != old:
                changed[key] = old, value
                setattr(args, key, value)
        if before.get("data") and not _same_place(before["data"], args.data):
            changed["data"] = before["data"], args.data
            LOGGER.warning(f"the run was begun with other data: {before['data']}; it goes on with {args.data}.")
        self._saved = _fitting_state(path, before_epoch=int(checkpoint.get("epoch", -1)))
        if self._saved is None:
            LOGGER.warning(f"there is no {NAME} for {path.name}: resuming from weights that were rounded to float16.")
        self.digest = digest(path)
        return changed

    def build_model(self, stock: Callable[[], Any]) -> Any:
        """Build the network as stock does; a resumed one must be that of the checkpoint.

        Args:
            stock: Ultralytics' ``setup_model``.

        Raises:
            InvalidCallError: It is another one, as with data of another number of classes; nothing has been changed.
        """
        trainer = self._trainer
        if not trainer.resume:
            return stock()
        args = trainer.args
        try:
            ckpt = stock()
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            raise InvalidCallError(
                f"{args.model} cannot be resumed as {args.task} by {trainer.name}: its network could not be"
                f" built again ({type(error).__name__}: {one_line(error)}). Resume it with the task that it was trained for."
            ) from error
        try:
            require_same_network(trainer.model, ckpt, str(args.model), str(args.data), trainer.data.get("nc"))
        except InvalidCallError as error:
            raise InvalidCallError(
                self._filled(f"{error}\nTo train it on these data begin a new run from it:\n{AGAIN}")
            ) from error
        return ckpt

    def undo(self) -> None:
        """Restore ``args.yaml`` after a resume that failed before its first batch."""
        folder = getattr(self._trainer, "save_dir", None)  # there is none before Ultralytics has looked at the call
        if folder is not None and self._args_before is not None and self._fresh and RANK in {-1, 0}:
            with contextlib.suppress(OSError):
                (folder / "args.yaml").write_text(self._args_before, encoding="utf-8")

    def load(self, ckpt: Any, resume: Callable[[Any], object], load_state: Callable[[Any], object]) -> None:
        """Resume as stock does, also from a checkpoint of the middle of the first epoch.

        Args:
            ckpt: As loaded; None: nothing is resumed.
            resume: Ultralytics' ``resume_training``.
            load_state: The trainer's ``_load_checkpoint_state``.

        Raises:
            InvalidCallError: The run is over.
        """
        trainer = self._trainer
        if ckpt is None or not trainer.resume:
            resume(ckpt)
            return
        if self._saved is not None:
            ckpt["epoch"] = self._saved.epoch
        start = ckpt.get("epoch", -1) + 1
        if ckpt.get("optimizer") is None or start >= trainer.epochs:
            done = (
                f"it was trained for {start} of {trainer.epochs} epochs" if start else "it is the result of a whole run"
            )
            # Without the state of the optimizer no number of epochs makes it resumable.
            more = f"Go on with more epochs:\n{AGAIN} resume=True epochs={start + trainer.epochs}\n"
            way = f"{'' if ckpt.get('optimizer') is None else more}Begin a new run from it:\n{AGAIN}"
            raise FinishedRunError(self._filled(f"{trainer.args.model} has nothing left to resume: {done}.\n{way}"))
        if start > 0:
            resume(ckpt)
        else:
            load_state(ckpt)
        if RANK in {-1, 0}:
            kept = "" if self._saved is None else self._saved.plain["loop"]["results"]
            keep_epochs(trainer.csv, start, kept)

    def load_state(self, ckpt: Any, stock: Callable[[Any], object]) -> None:
        """Load as stock does, but let changed arguments win over the saved optimizer settings.

        Args:
            ckpt: As loaded.
            stock: Ultralytics' ``_load_checkpoint_state``.
        """
        trainer = self._trainer
        now = _numbers_of(trainer.optimizer)
        if trainer.resume and not self._is_of_this_optimizer(ckpt):
            self._same_optimizer = self._saved is not None and self._is_of_this_optimizer(ckpt, with_more=True)
            ckpt["optimizer"] = None
            if not self._same_optimizer:
                LOGGER.warning(
                    f"the optimizer is {type(trainer.optimizer).__name__} now: it starts without the state of the one before."
                )
        stock(ckpt)
        self._take_changes(now)
        if trainer.guard is not None:
            trainer.guard.state.ema = trainer.ema  # stock has made a new one

    def restore(self) -> LoopMemory | None:
        """Restore the state of the side file, if there is one; called after the guard is built.

        Returns:
            What the loop remembers of the epochs before; None: nothing is resumed, or without a side file.

        Raises:
            InvalidCallError: It is the state of another model.
        """
        if self._saved is None:
            return None
        trainer = self._trainer
        now = _numbers_of(trainer.optimizer)
        same = self._same_optimizer and self._saved.plain["optimizer"]["class"] == type(trainer.optimizer).__name__
        other_scale = sorted(key for key in trainer.plan.changed if key not in SAME_SCALE)
        if other_scale:
            LOGGER.info(f"how large loss and gradients usually are is learned anew: changed {', '.join(other_scale)}.")
        how = {"same_optimizer": same, "same_scale": not other_scale}
        self._held = sum(len(group["params"]) for group in trainer.optimizer.param_groups)
        remembered = restore_training(trainer, self._saved, **how, generators=RANK in {-1, 0})
        self._take_changes(now)
        trainer.scheduler.last_epoch = trainer.start_epoch - 1  # as stock leaves it: the loop moves it on
        return remembered

    def _is_of_this_optimizer(self, ckpt: Any, *, with_more: bool = False) -> bool:
        """Return whether a checkpoint's optimizer state fits; ``with_more`` also accepts groups that a callback adds later."""
        saved, optimizer = ckpt.get("optimizer"), self._trainer.optimizer
        if saved is None:
            return True
        name = str((ckpt.get("train_args") or {}).get("optimizer", "auto")).lower()
        sizes = [len(group["params"]) for group in saved["param_groups"]]
        mine = [len(group["params"]) for group in optimizer.param_groups]
        same_shape = (sizes[: len(mine)] if with_more else sizes) == mine
        return same_shape and name in {"auto", type(optimizer).__name__.lower()}

    def _take_changes(self, now: list[dict[str, Any]]) -> None:
        """Apply changed arguments to the optimizer's groups after the saved groups were loaded."""
        keys = {key for name in self._trainer.plan.changed for key in EFFECTS.get(name, ())}
        for group, values in zip(self._trainer.optimizer.param_groups, now, strict=True):
            group.update({key: values[key] for key in keys if key in values})

    # ---- the loop --------------------------------------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """Restore data order and random numbers at the last moment: after all callbacks of the first epoch's start."""
        if not self._fresh:
            return
        self._fresh = False
        saved, self._saved = self._saved, None  # its tensors are not needed any more
        if saved is None:
            return
        trainer = self._trainer
        if self._same_optimizer and saved.plain["optimizer"]["class"] == type(trainer.optimizer).__name__:
            restore_late(trainer, saved, self._held)
        restore_window(trainer, self._cadence, saved)
        restore_memory(trainer, saved)
        assert trainer.guard is not None
        trainer.guard.resync()  # the first snapshot was taken before all was there
        will_close = trainer.args.close_mosaic and trainer.epoch >= trainer.epochs - trainer.args.close_mosaic
        own = RANK in {-1, 0}  # the generators that were saved are those of the first rank
        if will_close and saved.plain["loop"]["mosaic_closed"]:
            restore_behind_reset(trainer.train_loader, dict(saved.tensors), saved.plain["data"], generators=own)
        restore_data(trainer, saved, generators=own)

    def accumulate(self) -> int | None:
        """Return the ``accumulate`` that delays the loop's next step until the open window is full; None: leave it."""
        return self._cadence.before_forward(self._trainer)

    def stepped(self) -> None:
        """Note that the loop has called for a step."""
        self._cadence.stepped(self._trainer)

    def began(self) -> None:
        """Note that the loop begins anew and has forgotten its last step."""
        self._cadence.began()


def _numbers_of(optimizer: Any) -> list[dict[str, Any]]:
    """Return copies of an optimizer's groups without their parameters."""
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


def _fitting_state(path: Path, before_epoch: int) -> SavedState | None:
    """Read the side file that belongs to a checkpoint, if there is one.

    Args:
        path: The checkpoint.
        before_epoch: Its last whole epoch.

    Raises:
        InvalidCallError: It is damaged, or belongs to another checkpoint.
    """
    file = path.with_name(NAME)
    if not file.is_file():
        return None
    of_checkpoint = digest(path)
    older_on_purpose = path.name not in {LAST, LAST_GOOD}  # best.pt, epoch3.pt
    try:
        saved = read(file)
    except InvalidCallError:
        if older_on_purpose:
            return None
        raise
    if saved.belongs_to(of_checkpoint):
        return saved
    if older_on_purpose:
        return None
    if saved.follows(of_checkpoint):
        LOGGER.info(f"{file} is newer than {path}, which could not be written any more: resuming from the former.")
        return saved
    if before_epoch > saved.epoch:
        LOGGER.warning(f"{file} is older than {path} and left out: weights are resumed as rounded to float16.")
        return None
    raise InvalidCallError(
        f"{path} and {file} do not belong together: the one is of epoch {before_epoch + 1}, the other of epoch"
        f" {saved.epoch + 1} of another run or another checkpoint. Delete {NAME} to resume from the checkpoint alone, whose"
        " weights are rounded to float16; or put back the file that was there."
    )


def require_same_network(model: Any, checkpoint: Any, path: str, data: str, classes: int | None) -> None:
    """Refuse to resume with another network than the checkpoint's.

    Args:
        model: As built for this run.
        checkpoint: As loaded; one without a network is let through.
        path: Of the checkpoint, for the message.
        data: The data set, for the message.
        classes: How many classes the data have.

    Raises:
        InvalidCallError: Parameters have other shapes, or there are others.
    """
    before = (checkpoint or {}).get("ema") or (checkpoint or {}).get("model")
    if not isinstance(before, nn.Module) or not isinstance(model, nn.Module):
        return
    theirs, mine = ({n: tuple(p.shape) for n, p in _own_parameters(each)} for each in (before, model))
    if theirs == mine:
        return
    had = getattr(before, "nc", None) or len(getattr(before, "names", None) or ())
    if had and classes and had != classes:
        raise InvalidCallError(f"{path} was trained on {had} classes, but {data} has {classes}.")
    wrong = next(name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name))
    raise InvalidCallError(
        f"{path} holds another network than this run would train: the shape of {wrong} is {theirs.get(wrong, 'missing')}"
        f" there and {mine.get(wrong, 'missing')} here, by data and task."
    )


def _own_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of a network; of a distillation, those of the student."""
    student = getattr(unwrap(model), "student_model", unwrap(model))
    return plainly_named(student.named_parameters())


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _same_place(a: Any, b: Any) -> bool:
    return str(a) == str(b) or Path(str(a)).absolute() == Path(str(b)).absolute()
