"""What a loop remembers goes through the side file and on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equality import assert_same
from memories import KINDS, picture
from rig import Rig, batches

from yolo_stable.checkpoints.accumulation import Cadence
from yolo_stable.checkpoints.loop_state import GRADIENT, collect, restore_memory, restore_training, restore_window
from yolo_stable.checkpoints.state_file import SavedState, on_host
from yolo_stable.guard.memory import Memory
from yolo_stable.guard.memory_record import record


class Trainer:
    """A loop of four batches an epoch around a guard."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.rig = Rig(snapshot_every=2, max_loss_rise=4.0, patience=8, **settings)
        self.guard, self.optimizer, self.device = self.rig.guard, self.rig.optimizer, torch.device("cpu")
        self.train_loader = SimpleNamespace(dataset=range(8), generator=None, iterator=None, num_workers=0)
        self.train_loader = _Loader(self.train_loader)
        self.epoch, self.epochs, self.batch_size, self.accumulate = 1, 5, 2, 2
        self.best_fitness: float | None = None
        self.stopper = SimpleNamespace(best_fitness=0.25, best_epoch=1, possible_stop=False, patience=30)
        self.nan_recovery_attempts = 2
        self.telemetry = SimpleNamespace(norm=3.0, loss={"box": 1.5})
        self.args = SimpleNamespace(close_mosaic=0)
        self.csv = folder / "results.csv"

    def saved(self, last_step: int = 7, **how: Any) -> SavedState:
        cadence = Cadence()
        cadence.last_step = last_step
        view: Any = self
        at_the_end = how.get("at_the_end_of_an_epoch", True)
        tensors, plain = collect(view, cadence, self.epoch, at_the_end_of_an_epoch=at_the_end)
        return SavedState(on_host(tensors), json.loads(json.dumps(plain)))

    def restore(self, saved: SavedState, **how: bool) -> None:
        view: Any = self
        how = {"same_optimizer": True, "same_scale": True, "generators": True, **how}
        self.best_fitness, self.nan_recovery_attempts = restore_training(view, saved, **how)


class _Loader(SimpleNamespace):
    def __init__(self, other: SimpleNamespace) -> None:
        super().__init__(**vars(other))

    def __len__(self) -> int:
        return 4


@pytest.fixture
def trained(tmp_path: Path) -> Trainer:
    trainer = Trainer(tmp_path)
    for x in batches(12):
        trainer.rig.step(x)
    assert not trainer.rig.step(batches(1)[0] * float("nan"))
    return trainer


@pytest.mark.parametrize("fitness", [None, 0.5])
def test_a_fresh_loop_goes_on_as_the_one_that_was_saved(
    trained: Trainer, tmp_path: Path, fitness: float | None
) -> None:
    trained.best_fitness = fitness
    trained.csv.write_text("epoch\n0\n")
    saved, fresh = trained.saved(), Trainer(tmp_path)
    fresh.stopper.best_fitness, fresh.nan_recovery_attempts, fresh.telemetry.norm = None, 0, None
    fresh.restore(saved)
    assert_same(fresh.rig.weights(), trained.rig.weights())
    assert fresh.guard.counts == trained.guard.counts
    assert fresh.guard.counts.rejected_micro_batches + fresh.guard.counts.rejected_windows > 0
    assert (fresh.best_fitness, fresh.nan_recovery_attempts) == (fitness, 2)
    assert (vars(fresh.stopper), vars(fresh.telemetry)) == (vars(trained.stopper), vars(trained.telemetry))
    assert saved.plain["loop"]["results"] == "epoch\n0\n"


@pytest.mark.parametrize("same", [True, False])
def test_another_optimizer_keeps_its_fresh_state(trained: Trainer, tmp_path: Path, same: bool) -> None:
    fresh = Trainer(tmp_path)
    fresh.restore(trained.saved(), same_optimizer=same)
    assert_same(fresh.rig.model.state_dict(), trained.rig.model.state_dict())
    assert bool(fresh.optimizer.state_dict()["state"]) is same


@pytest.mark.parametrize("same", [True, False])
def test_levels_of_another_scale_begin_anew(trained: Trainer, tmp_path: Path, same: bool) -> None:
    fresh = Trainer(tmp_path)
    before, levels = (trainer.guard.recovery.divergence.state_dict() for trainer in (fresh, trained))  # type: ignore[union-attr]
    assert before != levels
    fresh.restore(trained.saved(), same_scale=same)
    assert fresh.guard.recovery is not None
    assert fresh.guard.recovery.divergence.state_dict() == (levels if same else before)


def test_counts_that_this_version_does_not_know_are_passed_over(trained: Trainer, tmp_path: Path) -> None:
    saved, fresh = trained.saved(), Trainer(tmp_path)
    saved.plain["guard"]["counts"]["of another version"] = 3
    fresh.restore(saved)
    assert fresh.guard.counts == trained.guard.counts
    again = Trainer(tmp_path)
    saved.plain["guard"]["divergence"] = {"of": "another version"}
    again.restore(saved)
    assert again.guard.counts == trained.guard.counts


@pytest.mark.parametrize(("last_step", "at_the_end", "is_open"), [(6, True, True), (7, True, False), (6, False, False)])
def test_the_gradients_of_a_window_that_is_open_are_kept_at_the_end_of_an_epoch(
    trained: Trainer, tmp_path: Path, last_step: int, at_the_end: bool, is_open: bool
) -> None:
    trained.guard.backward(trained.rig.model(batches(1)[0]).square().mean())
    saved = trained.saved(last_step, at_the_end_of_an_epoch=at_the_end)
    names = {name.removeprefix(GRADIENT) for name in saved.tensors if name.startswith(GRADIENT)}
    assert names == ({name for name, _ in trained.rig.model.named_parameters()} if is_open else set())
    assert len(saved.plain["loop"]["losses"]) == int(is_open)
    assert saved.plain["loop"]["last_step"] == (last_step if at_the_end else 7)
    fresh, cadence = Trainer(tmp_path), Cadence()
    fresh.restore(saved)
    view: Any = fresh
    restore_window(view, cadence, saved)
    for mine, theirs in zip(fresh.rig.model.parameters(), trained.rig.model.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad) if is_open else mine.grad is None  # type: ignore[arg-type]
    assert cadence.last_step == saved.plain["loop"]["last_step"]


def test_what_a_loss_has_kept_goes_on_also_when_it_is_made_only_now() -> None:
    class Network(torch.nn.Module):
        """Makes its loss with the first batch."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))
            self.criterion: Any = None

        def init_criterion(self) -> Any:
            return KINDS["Deque"]()

    def trainer_of(model: Network) -> Any:
        return SimpleNamespace(guard=SimpleNamespace(memory=Memory(model), state=SimpleNamespace(model=model)))

    before, after, without = Network(), Network(), Network()
    before.criterion = KINDS["Deque"]()
    trainer = trainer_of(before)
    for number in (2.0, 4.0):
        trainer.guard.memory.before_forward()
        before.criterion(before.weight * number)
        trainer.guard.memory.accept()
        trainer.guard.memory.commit()
    tensors, entries = record(trainer.guard.memory)
    assert entries
    restore_memory(trainer_of(without), SavedState({}, {"memory": []}))
    assert without.criterion is None, "nothing was kept, and nothing is made"
    restore_memory(trainer_of(after), SavedState(on_host(tensors), {"memory": json.loads(json.dumps(entries))}))
    assert picture(after.criterion) == picture(before.criterion) != picture(KINDS["Deque"]())
