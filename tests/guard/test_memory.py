"""What a loss keeps from batch to batch: after a rejection as if the batch had never been drawn, whatever it is kept in."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from equality import assert_same
from memories import KINDS, Loss, Number, TensorAnew, picture
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel, PoseModel

from yolo_stable.autopsy import untouched
from yolo_stable.guard import GuardVerdict, StepGuard
from yolo_stable.guard.memory import Memory

NAN = float("nan")
WINDOWS, ACCUMULATE = 5, 3


class Network(nn.Module):
    """A network that makes its loss with the first batch, as Ultralytics' do."""

    def __init__(self, kind: str, on_model: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.SiLU(), nn.Linear(6, 1))
        self.kind = kind
        if not on_model:
            self.beside = [self.init_criterion()]

    def init_criterion(self) -> Any:
        made = KINDS[self.kind]()
        if isinstance(made, Loss) and hasattr(type(made), "model"):
            vars(made)["model"] = self
        return made

    def forward(self, x: Tensor) -> Tensor:
        raw = self.body(x).square().mean()
        if "beside" in vars(self):
            return self.beside[0](raw)
        if getattr(self, "criterion", None) is None:
            self.criterion = self.init_criterion()
        return self.criterion(raw)


class Run:
    """A network with a loss that remembers, and a guard."""

    def __init__(self, kind: str, on_model: bool = True, told: bool = True, **settings: Any) -> None:
        self.model = Network(kind, on_model)
        beside = None
        self.loss: Any = None
        if not on_model:
            self.loss = vars(self.model).pop("beside")[0]
            self.model.forward = lambda x: self.loss(self.model.body(x).square().mean())  # type: ignore[method-assign]
            beside = {"loss": self.loss}
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.02, momentum=0.9)
        self.said: list[str] = []
        self.guard = StepGuard(
            self.model, self.optimizer, memory=beside, tell=self.said.append, step="reference", **settings
        )
        self.told = told
        self.verdicts: list[GuardVerdict] = []

    def micro_batch(self, x: Tensor) -> None:
        if self.told:
            self.guard.before_forward()
        loss = self.model(x)
        self.verdicts.append(self.guard.backward(loss).verdict)

    def window(self, batches: list[Tensor], *, broken: bool = False) -> None:
        for x in batches:
            self.micro_batch(x)
        if broken:
            gradient = self.model.body[0].weight.grad  # type: ignore[union-attr]
            assert isinstance(gradient, Tensor)
            gradient[0, 0] = NAN
        self.verdicts.append(self.guard.step().verdict)
        self.guard.settle()

    def kept(self) -> Any:
        loss = self.loss if self.loss is not None else getattr(self.model, "criterion", None)
        return picture(loss)

    def everything(self) -> dict[str, Any]:
        return {
            "memory": self.kept(),
            "model": dict(self.model.state_dict()),
            "gradients": [p.grad for p in self.model.parameters()],
            "optimizer": self.optimizer.state_dict(),
        }


def windows() -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(11)
    return [[torch.randn(8, 4, generator=generator) for _ in range(ACCUMULATE)] for _ in range(WINDOWS)]


def bad() -> Tensor:
    x = torch.ones(8, 4)
    x[3, 1] = NAN
    return x


@pytest.mark.parametrize("place", ["beside", "on-model", "untold"])
@pytest.mark.parametrize("at", [0, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_a_rejected_micro_batch_leaves_no_trace_in_the_memory(kind: str, at: int, place: str) -> None:
    how = {"on_model": place == "on-model", "told": place != "untold"}
    faulty, twin = Run(kind, **how), Run(kind, **how)
    for number, window in enumerate(windows()):
        batches = list(window)
        if number == at // ACCUMULATE:
            batches.insert(at % ACCUMULATE, bad())
        faulty.window(batches)
        twin.window(window)
        assert_same(faulty.everything(), twin.everything())
    assert faulty.verdicts.count(GuardVerdict.REJECT_MICRO_BATCH) == 1
    assert faulty.guard.counts.applied == WINDOWS
    assert faulty.said == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_bad_batch_would_stay_in_each_of_these_memories(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the tests above would show nothing."""
    monkeypatch.setattr(Memory, "reject", lambda self: None)
    faulty, twin = Run(kind), Run(kind)
    for run in (faulty, twin):
        run.window(windows()[0])
    faulty.micro_batch(bad())
    assert faulty.kept() != twin.kept()


@pytest.mark.parametrize("on_model", [False, True], ids=["beside", "on-model"])
@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_rejected_window_leaves_no_trace_in_the_memory(kind: str, at: int, on_model: bool) -> None:
    """Three healthy micro-batches, and a gradient that is not: all that they left in the memory goes."""
    faulty, twin = Run(kind, on_model), Run(kind, on_model)
    for number, window in enumerate(windows()):
        if number == at:
            faulty.window(window, broken=True)
        else:
            faulty.window(window)
            twin.window(window)
        assert_same(faulty.everything(), twin.everything())
    assert faulty.verdicts.count(GuardVerdict.REJECT_WINDOW) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_abandoned_window_leaves_no_trace_in_the_memory(kind: str) -> None:
    faulty, twin = Run(kind), Run(kind)
    for run in (faulty, twin):
        run.window(windows()[0])
    for x in windows()[1]:
        faulty.micro_batch(x)
    assert faulty.kept() != twin.kept()
    faulty.guard.abandon_window()
    assert_same(faulty.everything(), twin.everything())


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollback_takes_the_memory_with_it(kind: str) -> None:
    """Snapshots after windows 2 and 4; a weight is ruined in the fifth."""
    run = Run(kind, snapshot_every=2, ramp_steps=1)
    pictures = []
    for window in windows()[:4]:
        run.window(window)
        pictures.append(run.kept())
    run.window(windows()[4])
    assert run.kept() != pictures[3]
    with torch.no_grad():
        run.model.body[3].weight[0, 0] = NAN  # type: ignore[index, union-attr]
    assert run.guard.inspect()
    assert run.guard.counts.rollbacks == 1
    assert run.kept() == pictures[3]
    run.window(windows()[4])
    assert run.verdicts[-1] in {GuardVerdict.APPLY, GuardVerdict.CLIP}


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_does_not_change_the_memory(kind: str) -> None:
    """In the middle of a window, which is rejected after that: the copies of its start have to be good still."""
    run, twin = Run(kind), Run(kind)
    for one in (run, twin):
        one.window(windows()[0])
    replays = []

    def replay() -> None:
        before = run.everything()
        for x in (bad(), windows()[2][0]):
            with untouched(run.model):
                replays.append(run.model(x))
                assert run.kept() != before["memory"]
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), untouched(run.model):
            run.model(torch.ones(2, 3) + run.model(windows()[2][1]).detach())
        assert_same(run.everything(), before)

    run.guard._on_reject = lambda decision: replay() if decision.norm is None else None
    run.window([windows()[1][0], bad(), windows()[1][1]], broken=True)
    assert len(replays) == 2
    assert run.verdicts[-1] is GuardVerdict.REJECT_WINDOW
    assert_same(run.everything(), twin.everything())


# ---- what is not the batch's -------------------------------------------------------------------------------------------


class Scheduled(Number):
    """Ultralytics' end-to-end loss is told after each epoch to go on; that is the loop's doing, not a batch's."""

    def begin(self) -> None:
        super().begin()
        self.gain, self.tensor, self.by_name = 0.8, torch.ones(2), {"gain": 0.8}

    def update(self) -> None:
        self.gain -= 0.1
        self.tensor.sub_(0.1)
        self.by_name["gain"] -= 0.1


def test_what_the_loop_changes_between_batches_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a window, as epochs end there: the micro-batch after it is rejected, then the window."""
    monkeypatch.setitem(KINDS, "Scheduled", Scheduled)
    run = Run("Scheduled", snapshot_every=1, ramp_steps=1)
    run.window(windows()[0])
    criterion: Any = run.model.criterion
    mean = criterion.mean
    run.micro_batch(windows()[1][0])
    assert criterion.mean != mean
    criterion.update()
    run.micro_batch(bad())
    assert (criterion.gain, criterion.by_name["gain"]) == (pytest.approx(0.7), pytest.approx(0.7))
    assert torch.allclose(criterion.tensor, torch.full((2,), 0.9))
    run.window([], broken=True)
    assert criterion.mean == mean
    assert (criterion.gain, criterion.by_name["gain"]) == (pytest.approx(0.7), pytest.approx(0.7))
    assert torch.allclose(criterion.tensor, torch.full((2,), 0.9))

    run.window(windows()[2])
    criterion.update()
    mean = criterion.mean
    run.micro_batch(windows()[3][0])
    with torch.no_grad():
        run.model.body[3].weight[0, 0] = NAN  # type: ignore[index, union-attr]
    assert run.guard.inspect()
    assert run.guard.counts.rollbacks == 1
    assert (criterion.mean, criterion.gain) == (mean, pytest.approx(0.6)), "a rollback is no way back in the schedule"
    assert torch.allclose(criterion.tensor, torch.full((2,), 0.8))


def test_a_rollback_to_before_the_first_batch_keeps_the_loss_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made with the first batch; made anew it would forget how far its schedule is."""
    monkeypatch.setitem(KINDS, "Scheduled", Scheduled)
    run = Run("Scheduled", snapshot_every=100, ramp_steps=1)
    run.window(windows()[0])
    criterion: Any = run.model.criterion
    criterion.update()
    with torch.no_grad():
        run.model.body[3].weight[0, 0] = NAN  # type: ignore[index, union-attr]
    assert run.guard.inspect()
    assert run.guard.counts.rollbacks == 1
    assert run.model.criterion is criterion
    assert criterion.gain == pytest.approx(0.7)


def test_a_loss_that_was_made_with_a_bad_batch_can_still_be_asked_for() -> None:
    """Ultralytics' loop asks ``model.criterion`` for its schedule after each epoch, even if all batches were rejected."""
    run = Run("Number")
    run.micro_batch(bad())
    assert run.model.criterion is None
    stock = nn.MSELoss()
    run = Run("Number")
    run.model.init_criterion = lambda: stock  # type: ignore[method-assign]
    run.model.forward = lambda x: (setattr(run.model, "criterion", stock), run.model.body(x).mean())[1]  # type: ignore[method-assign]
    run.micro_batch(bad())
    assert run.model.criterion is stock, "it has no memory"
    assert run.verdicts == [GuardVerdict.REJECT_MICRO_BATCH]


class Counting(nn.Module):
    """A layer of one's own that counts its calls, and keeps a centre in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.history = 0, [0.0]
        self.register_buffer("centre", torch.zeros(6))
        self.register_buffer("anew", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.history.append(float(x.detach().mean()))
        self.centre.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)  # type: ignore[operator, union-attr]
        self.anew = self.anew + x.detach().mean()
        return x - self.centre.clone() * 0.1  # type: ignore[operator, union-attr]


def test_modules_of_ones_own_and_buffers_of_any_are_undone_as_well() -> None:
    def made() -> Run:
        run = Run("Number")
        run.model.body.insert(2, Counting())
        run.guard.resync()
        return run

    faulty, twin = made(), made()
    for number, window in enumerate(windows()):
        faulty.window([window[0], bad(), *window[1:]] if number == 1 else window, broken=number == 3)
        if number != 3:
            twin.window(window)
        one, other = faulty.model.body[2], twin.model.body[2]
        assert (one.calls, one.history) == (other.calls, other.history)
        assert_same(faulty.everything(), twin.everything())
    assert [faulty.verdicts.count(v) for v in (GuardVerdict.REJECT_MICRO_BATCH, GuardVerdict.REJECT_WINDOW)] == [1, 1]


# ---- what cannot be copied -----------------------------------------------------------------------------------------------


class WithThings(Number):
    def begin(self) -> None:
        super().begin()
        self.numbers = itertools.count()
        self.sparse = torch.eye(3).to_sparse()

    def keep(self, loss: Tensor) -> None:
        super().keep(loss)
        next(self.numbers)


def test_what_cannot_be_copied_is_said_once_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "WithThings", WithThings)
    run = Run("WithThings")
    for window in windows():
        run.window([*window, bad()])
    rest = ": what a rejected batch leaves there stays"
    assert sorted(run.said) == [
        f"criterion.numbers is a count that cannot be copied{rest}",
        f"criterion.sparse is a Tensor that cannot be copied{rest}",
    ]
    criterion: Any = run.model.criterion
    assert criterion.calls == WINDOWS * ACCUMULATE, "the rest is undone all the same"
    assert next(criterion.numbers) == WINDOWS * (ACCUMULATE + 1)


def test_who_holds_too_much_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolo_stable.guard.memory.MOST_BYTES", 1000)
    model = Network("Number", on_model=True)
    criterion: Any = Number()
    model.criterion, criterion.bank = criterion, torch.zeros(500)
    said: list[str] = []
    Memory(model, tell=said.append)
    assert len(said) == 1
    assert said[0].startswith("criterion.bank is a Tensor")


def test_without_somebody_to_tell_it_is_a_warning_of_python() -> None:
    model = Network("Number", on_model=True)
    model.criterion = WithThings()
    with pytest.warns(UserWarning, match=r"criterion\.(numbers|sparse) is a"):
        StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_trainer_model_and_loaders_are_no_memory() -> None:
    model = Network("Number", on_model=True)
    criterion: Any = Number()
    model.criterion = criterion
    criterion.model, criterion.layers = model, list(model.modules())
    criterion.hyp = get_cfg()
    criterion.loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(2)))
    criterion.optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    said: list[str] = []
    memory = Memory(model, tell=said.append)
    held = {path for path in memory.holders() if path.startswith("criterion.")}
    assert said == []
    assert held == {"criterion.layers"}, "a list of one's own; what is in it is the model's"


# ---- the cost ------------------------------------------------------------------------------------------------------------


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.called.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "network"), [(DetectionModel, "yolo11n.yaml"), (PoseModel, "yolo26n-pose.yaml")])
def test_the_losses_of_ultralytics_cost_no_operation_and_are_held_whole(kind: Any, network: str) -> None:
    model = kind(network, verbose=False)
    model.args = get_cfg()
    model.criterion = model.init_criterion()
    said: list[str] = []
    memory = Memory(model, tell=said.append)
    with Operations() as operations:
        for _ in range(3):
            memory.before_forward()
            getattr(model.criterion, "one2many", model.criterion).assigner.bs = 7
            memory.accept()
        memory.commit()
    assert (operations.called, said) == ([], [])
    assert len(memory._holders) < 64


def test_copies_share_what_has_not_changed() -> None:
    memory = Memory(nn.Linear(1, 1), {"loss": Number(), "other": TensorAnew()})
    a, b = memory.capture(), memory.capture()
    assert all(x is y for (_, x), (_, y) in zip(a, b, strict=True))


def test_a_deep_copy_of_the_model_has_a_memory_of_its_own() -> None:
    run = Run("Objects")
    run.window(windows()[0])
    before = run.kept()
    copy.deepcopy(run.model)(windows()[1][0])
    assert run.kept() == before


def test_what_a_network_no_longer_has_is_let_go_when_all_is_looked_through_anew() -> None:
    class Own(nn.Module):
        """Keeps a list that nobody knows."""

        def __init__(self) -> None:
            super().__init__()
            self.seen = [torch.zeros(3)]

    model = Own()
    memory = Memory(model)
    held, kept = len(memory._holders), model.seen
    assert any(holder.held is kept for holder in memory._holders)
    memory.resync()
    assert len(memory._holders) == held
    model.seen = []
    memory.resync()
    assert not any(holder.held is kept for holder in memory._holders)
