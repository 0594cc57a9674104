"""Resume: in full precision, with what may be changed changed, and with nothing damaged.

The order: ``check_resume`` checks the files and takes arguments over; Ultralytics loads the rounded state; after the guard has
been built ``restore_training_state`` puts the exact one in its place, and changed arguments over the saved groups (``EFFECTS``);
at the first ``on_train_epoch_start``, after all callbacks, come the gradients of an open window, what the loss keeps, the order
of the data and, last, the random numbers: nothing draws between there and the first batch. Generators are restored on the first
rank only, whose they are: on the others they would draw what it draws.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from ultralytics.utils import LOGGER, RANK

from .._shared.atomic_file import PART
from .._shared.error_text import one_line
from .._shared.shell_text import AGAIN
from ..errors import InvalidCallError
from ..guard import StepGuard
from ..guard.wrappers import plainly_named, unwrap
from ..presets.run_plan import RunPlan, checkpoint_to_resume
from ..runlog.results_csv import keep_epochs
from .accumulation import Cadence
from .loader_state import restore_behind_reset
from .loop_state import collect, restore_data, restore_late, restore_memory, restore_training, restore_window
from .reader import LAST, LAST_GOOD, digest, load_good
from .state_file import NAME, SavedState, on_host, read

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Base
else:
    _Base = object

OF_THE_RUN = ("model", "mode", "resume", "pretrained", "task", "data", "cfg", "project", "name", "exist_ok", "save_dir")
"""What a resumed run does not take from its call as it does the rest: it is the same run, in its folder."""
EFFECTS = {
    "lr0": ("initial_lr", "lr"),
    "momentum": ("momentum", "betas"),
    "weight_decay": ("weight_decay",),
    "batch": ("weight_decay",),  # Ultralytics scales the decay with the batch
    "nbs": ("weight_decay",),
}
"""Arguments that are kept in the optimizer's groups, where the saved numbers would win over the new ones."""
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
"""Arguments whose change leaves loss and gradients as large as they were; any other may make the old levels wrong for ever."""


class GuardedResume(_Base):
    """The part of :class:`~yolo_stable.GuardedTrainerMixin` that resumes."""

    plan: RunPlan
    guard: StepGuard | None
    batch_number: int
    filled: Callable[[str], str]
    _digest_on_disk: str | None
    _cadence: Cadence
    _saved: SavedState | None = None
    _same_optimizer = True
    _held = 0
    """How many parameters the optimizer held when its state was put back."""
    _args_before: str | None = None
    """The ``args.yaml`` of the run that is resumed, as it was."""
    _fresh: bool = True
    """Whether the loop has yet to begin its first epoch."""

    # ---- saving --------------------------------------------------------------------------------------------------------

    def collect_state(self, *, at_the_end_of_an_epoch: bool) -> SavedState:
        """Return what the side file of a checkpoint holds, copied to the host.

        Args:
            at_the_end_of_an_epoch: False in the middle of one.

        Raises:
            TypeError: Something in the state cannot be copied, as a schedule's own object; so for ValueError.

        Syncs: one per tensor that is not on the host.
        """
        tensors, plain = collect(self, self._cadence, at_the_end_of_an_epoch=at_the_end_of_an_epoch)
        return SavedState(on_host(tensors), plain)

    def final_eval(self) -> None:
        """Evaluate and strip as stock; a run that is over has nothing to resume, and its side file goes."""
        super().final_eval()
        if RANK in {-1, 0}:
            for path in (self.wdir / NAME, *self.wdir.glob(f"*{PART}")):
                with contextlib.suppress(OSError):  # it does no harm: the checkpoint that it belongs to is another now
                    path.unlink(missing_ok=True)

    # ---- resuming ------------------------------------------------------------------------------------------------------

    def check_resume(self, overrides: Any) -> None:
        """Find and check what is resumed, and take over its arguments; those of the call win.

        Raises:
            InvalidCallError: The checkpoint or its side file is damaged, they do not belong together, or it is of another task.
        """
        self._cadence = Cadence()
        path = checkpoint_to_resume({**overrides, "resume": self.args.resume})
        if path is None:  # no resume, or the newest run that Ultralytics finds
            super().check_resume(overrides)
            return
        checkpoint = load_good(path)
        before: dict[str, Any] = checkpoint.get("train_args") or {}
        if before.get("task") and before["task"] != self.args.task:  # what takes its part would not know the network
            raise InvalidCallError(
                f"{path} was trained for task={before['task']}, and {type(self).__name__} trains task={self.args.task}."
                f" Resume it with task={before['task']}, or begin a new run from it: without resume."
            )
        given = {key: value for key, value in overrides.items() if key not in OF_THE_RUN}
        self.args.resume = str(path)
        super().check_resume({})
        if overrides.get("save_dir"):  # a worker of a multi-GPU run is told its folder
            self.args.save_dir = overrides["save_dir"]
        elif path.parent.name == "weights":  # where it is now: the folder may have been moved, or be a copy
            self.args.save_dir = str(path.parent.parent)
        self._args_before = _text_of(Path(self.args.save_dir) / "args.yaml") if self.args.save_dir else None
        changed = dict(self.plan.changed)
        for key, value in given.items():
            old = getattr(self.args, key, None)
            if value != old:
                changed[key] = old, value
                setattr(self.args, key, value)
        if before.get("data") and not _same_place(before["data"], self.args.data):
            changed["data"] = before["data"], self.args.data
            LOGGER.warning(f"the run was begun with other data: {before['data']}; it goes on with {self.args.data}.")
        self.plan = dataclasses.replace(self.plan, changed=changed)
        self._saved = _fitting_state(path, before_epoch=int(checkpoint.get("epoch", -1)))
        if self._saved is None:
            LOGGER.warning(f"there is no {NAME} for {path.name}: resuming from weights that were rounded to float16.")
        self._digest_on_disk = digest(path)

    def setup_model(self) -> Any:
        """Build the network as stock does; one that is resumed has to be that of the checkpoint.

        Raises:
            InvalidCallError: It is another one, as with data of another number of classes; nothing has been changed.
        """
        if not self.resume:
            return super().setup_model()
        try:
            ckpt = super().setup_model()
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            raise InvalidCallError(
                f"{self.args.model} cannot be resumed as {self.args.task} by {type(self).__name__}: its network could not be"
                f" built again ({type(error).__name__}: {one_line(error)}). Resume it with the task that it was trained for."
            ) from error
        try:
            require_same_network(self.model, ckpt, str(self.args.model), str(self.args.data), self.data.get("nc"))
        except InvalidCallError as error:
            raise InvalidCallError(
                self.filled(f"{error}\nTo train it on these data begin a new run from it:\n{AGAIN}")
            ) from error
        return ckpt

    def leave_arguments_as_they_were(self) -> None:
        """Undo what a resume has written before its first batch, as it was refused or failed."""
        if self._args_before is not None and self._fresh and RANK in {-1, 0}:
            with contextlib.suppress(OSError):
                (self.save_dir / "args.yaml").write_text(self._args_before, encoding="utf-8")

    def resume_training(self, ckpt: Any) -> None:
        """Resume as stock does; also from a checkpoint that was saved in the middle of the first epoch.

        Raises:
            InvalidCallError: The run is over.
        """
        if ckpt is None or not self.resume:
            super().resume_training(ckpt)
            return
        if self._saved is not None:
            ckpt["epoch"] = self._saved.epoch
        start = ckpt.get("epoch", -1) + 1
        if ckpt.get("optimizer") is None or start >= self.epochs:
            done = f"it was trained for {start} of {self.epochs} epochs" if start else "it is the result of a whole run"
            # Without the state of the optimizer no number of epochs makes it resumable.
            more = f"Go on with more epochs:\n{AGAIN} resume=True epochs={start + self.epochs}\n"
            way = f"{'' if ckpt.get('optimizer') is None else more}Begin a new run from it:\n{AGAIN}"
            raise InvalidCallError(self.filled(f"{self.args.model} has nothing left to resume: {done}.\n{way}"))
        if start > 0:
            super().resume_training(ckpt)
        else:
            self._load_checkpoint_state(ckpt)
        if RANK in {-1, 0}:
            kept = "" if self._saved is None else self._saved.plain["loop"]["results"]
            keep_epochs(self.csv, start, kept)

    def _load_checkpoint_state(self, ckpt: Any) -> None:
        """Load as stock does, but let changed arguments win over the numbers that the optimizer had."""
        assert self.optimizer is not None
        now = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        if self.resume and not self._is_of_this_optimizer(ckpt):
            self._same_optimizer = self._saved is not None and self._is_of_this_optimizer(ckpt, with_more=True)
            ckpt["optimizer"] = None
            if not self._same_optimizer:
                LOGGER.warning(
                    f"the optimizer is {type(self.optimizer).__name__} now: it starts without the state of the one before."
                )
        super()._load_checkpoint_state(ckpt)
        self._take_changes(now)
        if self.guard is not None:
            self.guard.state.ema = self.ema  # stock has made a new one

    def restore_training_state(self) -> None:
        """Put back the state of the side file, if there is one; called when the guard has been built.

        Raises:
            InvalidCallError: It is the state of another model.
        """
        if self._saved is None:
            return
        assert self.optimizer is not None
        assert self.scheduler is not None
        now = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        same = self._same_optimizer and self._saved.plain["optimizer"]["class"] == type(self.optimizer).__name__
        other_scale = sorted(key for key in self.plan.changed if key not in SAME_SCALE)
        if other_scale:
            LOGGER.info(f"how large loss and gradients usually are is learned anew: changed {', '.join(other_scale)}.")
        how = {"same_optimizer": same, "same_scale": not other_scale}
        self._held = sum(len(group["params"]) for group in self.optimizer.param_groups)
        restore_training(self, self._saved, **how, generators=RANK in {-1, 0})
        self._take_changes(now)
        self.scheduler.last_epoch = self.start_epoch - 1  # as stock leaves it: the loop moves it on

    def _is_of_this_optimizer(self, ckpt: Any, *, with_more: bool = False) -> bool:
        """Return whether a checkpoint has the state of such an optimizer; or of one with more groups, which a callback adds."""
        assert self.optimizer is not None
        saved = ckpt.get("optimizer")
        if saved is None:
            return True
        name = str((ckpt.get("train_args") or {}).get("optimizer", "auto")).lower()
        sizes = [len(group["params"]) for group in saved["param_groups"]]
        mine = [len(group["params"]) for group in self.optimizer.param_groups]
        same_shape = (sizes[: len(mine)] if with_more else sizes) == mine
        return same_shape and name in {"auto", type(self.optimizer).__name__.lower()}

    def _take_changes(self, now: list[dict[str, Any]]) -> None:
        """Set what changed arguments mean in the optimizer's groups, after the saved groups were loaded."""
        assert self.optimizer is not None
        keys = {key for name in self.plan.changed for key in EFFECTS.get(name, ())}
        for group, values in zip(self.optimizer.param_groups, now, strict=True):
            group.update({key: values[key] for key in keys if key in values})

    # ---- the loop ------------------------------------------------------------------------------------------------------

    def run_callbacks(self, event: str) -> None:
        """Put back what the loop draws from, at the last moment before it draws: after all callbacks."""
        super().run_callbacks(event)
        if event == "on_train_epoch_start" and self._fresh:
            self._fresh = False
            saved, self._saved = self._saved, None  # its tensors are not needed any more
            if saved is None:
                return
            if self._same_optimizer and saved.plain["optimizer"]["class"] == type(self.optimizer).__name__:
                restore_late(self, saved, self._held)
            restore_window(self, self._cadence, saved)
            restore_memory(self, saved)
            assert self.guard is not None
            self.guard.resync()  # the first snapshot was taken before all was there
            will_close = self.args.close_mosaic and self.epoch >= self.epochs - self.args.close_mosaic
            own = RANK in {-1, 0}  # the generators that were saved are those of the first rank
            if will_close and saved.plain["loop"]["mosaic_closed"]:
                restore_behind_reset(self.train_loader, dict(saved.tensors), saved.plain["data"], generators=own)
            restore_data(self, saved, generators=own)

    def preprocess_batch(self, batch: Any) -> Any:
        """Hold the loop's next step back until the window that was open is full."""
        self._cadence.before_forward(self, self.batch_number)
        return super().preprocess_batch(batch)

    def note_step(self) -> None:
        """The loop has called for a step."""
        self._cadence.stepped(self, self.batch_number)

    def _build_train_pipeline(self) -> None:
        self._cadence.began()
        super()._build_train_pipeline()


def _fitting_state(path: Path, before_epoch: int) -> SavedState | None:
    """Read the side file beside a checkpoint, if it is the one that goes with it.

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
    """Refuse to go on with another network than that of the checkpoint.

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
    """Yield the parameters of a network; of a distillation those of the student."""
    student = getattr(unwrap(model), "student_model", unwrap(model))
    return plainly_named(student.named_parameters())


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _same_place(a: Any, b: Any) -> bool:
    return str(a) == str(b) or Path(str(a)).absolute() == Path(str(b)).absolute()
