"""In a trainer, a fault of a layer or of the device is there for its batch, and nothing of it outlasts that."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from faulty import Loop, bits, finite, trace
from torch.utils._python_dispatch import _get_current_dispatch_mode
from ultralytics.models.yolo.detect import DetectionTrainer

from yolo_stable import StableDetectionTrainer
from yolo_stable.chaos import INF, NAN, DeviceFault, Fault, LayerFault

FAULTS = {
    "forward": LayerFault("log", "3", at=(1,)),
    "whole": LayerFault("overflow", "3", at=(1,)),
    "backward": LayerFault("root", "3", at=(1,)),
    "transient": DeviceFault("3", at=(1,)),
    "persistent": DeviceFault("3", persistent=True, at=(1,)),
    "device-backward": DeviceFault("3", phase="backward", at=(1,)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_its_batch_and_no_other(name: str) -> None:
    class Careful(Loop):
        """Leaves out a step with a gradient that is not finite, and looks at the model between the batches."""

        traces: list[Any]

        def optimizer_step(self) -> None:
            gradients = [p.grad for p in self.model.parameters()]
            self.seen[-1]["gradients"] = gradients
            self.seen[-1]["inside"] = "forward" in vars(self.model[3])
            self.optimizer.zero_grad()

    trainer = FAULTS[name].on(Careful)()
    clean, before = trace(trainer.model), bits(trainer.model)
    trainer.train(4)
    bad = [not (finite(seen["loss"]) and finite(seen["gradients"])) for seen in trainer.seen]
    assert bad == [False, True, False, False]
    assert [seen["inside"] for seen in trainer.seen] == [False, True, False, False]
    assert (trainer.chaos.fired, trainer.chaos.batches, trainer.chaos.due) == (1, 4, 0)
    assert trainer.chaos.truth.module == "3"
    assert trainer.chaos.truth.op.startswith("aten.")
    assert trace(trainer.model) == clean
    after = bits(trainer.model)
    assert all(after[key] == before[key] for key in before if key.endswith(("weight", "bias")))
    assert _get_current_dispatch_mode() is None
    pickle.dumps(trainer.model)


def test_a_batch_that_fails_leaves_nothing() -> None:
    class Failing(Loop):
        def optimizer_step(self) -> None:
            raise ArithmeticError

    kind = DeviceFault("0", at=(0,)).on(LayerFault("log", "3", at=(0,)).on(DeviceFault("4", since=0).on(Failing)))
    trainer = kind()
    clean = trace(trainer.model)
    with pytest.raises(ArithmeticError):
        trainer.train(1)
    assert trace(trainer.model) == clean
    assert _get_current_dispatch_mode() is None


def test_a_fault_that_does_not_come_to_its_layer_waits() -> None:
    class WithoutGradients(Loop):
        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch = super().preprocess_batch(batch)
            self.model[:4].requires_grad_(len(self.seen) > 1)  # so that the first layers are frozen in two batches
            return batch

        def optimizer_step(self) -> None:
            self.seen[-1]["gradients"] = [p.grad for p in self.model.parameters() if p.grad is not None]
            self.optimizer.zero_grad()

    trainer = LayerFault("root", "0", at=(0,)).on(WithoutGradients)().train(4)
    assert [finite(seen["gradients"]) for seen in trainer.seen] == [True, True, False, True]
    assert trainer.chaos.fired == 1


@pytest.mark.parametrize(
    ("fault", "healthy"),
    [
        (LayerFault("log", "3", at=(1,)), False),
        (DeviceFault("3", persistent=True, at=(1,)), False),
        (DeviceFault("3", at=(1,)), True),
    ],
)
def test_whoever_runs_the_batch_again_meets_the_same_fault(fault: Any, healthy: bool) -> None:
    again: list[bool] = []

    class Again(Loop):
        def optimizer_step(self) -> None:
            again.append(all(finite(self.model(self.seen[-1]["img"])) for _ in range(2)))
            self.optimizer.zero_grad()

    trainer = fault.on(Again)().train(3)
    assert again == [True, healthy, True]
    assert trainer.chaos.fired == 1


@pytest.mark.parametrize("kind", [DetectionTrainer, StableDetectionTrainer])
@pytest.mark.parametrize(
    "fault",
    [
        LayerFault("exp", "model.4.cv1.conv", at=(1, 2)),
        LayerFault("masked", "model.2", at=(1, 2)),
        LayerFault("overflow", "model.3.conv", since=2),
        DeviceFault("model.5.conv", value=1.0, at=(1, 2)),
        DeviceFault("model.5.conv", persistent=True, value=1.0, phase="backward", since=2),
    ],
    ids=lambda fault: f"{fault.place}-{fault.module}",
)
def test_real_training_takes_it(
    kind: type, fault: Any, arguments: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    between: list[bool] = []

    def look(trainer: Any) -> None:
        between.append(not any("forward" in vars(m) for m in trainer.model.modules()))
        between.append(_get_current_dispatch_mode() is None)
        pickle.dumps(trainer.model.state_dict())
        copy.deepcopy(trainer.ema.ema)

    trainer = fault.on(kind)(overrides=arguments(epochs=1, workers=0, val=False))
    trainer.add_callback("on_train_batch_end", look)
    trainer.train()
    assert (trainer.chaos.fired, trainer.chaos.batches) == (2, 4)
    assert between == [True] * 8
    torch.load(trainer.last, weights_only=False)
    assert b"chaos" not in trainer.last.read_bytes()
    if kind is StableDetectionTrainer:
        harmless = isinstance(fault, DeviceFault)
        assert trainer.guard.counts.rejected == (0 if harmless else 2)


def test_a_weight_of_a_named_module() -> None:
    trainer = Fault("weight", INF, at=(1,), module="3").on(Loop)().train(2)
    places = [[i for i, value in enumerate(s["state"]["weight"]) if not finite(value)] for s in trainer.seen]
    names = [name for name, _ in trainer.model.named_parameters()]
    assert places == [[], [names.index("3.weight")]]
    assert trainer.chaos.fired == 1


@pytest.mark.parametrize(("place", "module"), [("weight", "2"), ("weight", "1"), ("running_var", "3")])
def test_a_bare_network_gets_its_number_back(place: str, module: str) -> None:
    model = Loop().model
    before = bits(model)
    fault = Fault(place, NAN, at=(0,), module=module)
    with fault.install(model) as armed:
        assert sum(not finite(value) for value in model.state_dict().values()) == 1
    assert armed.fired == 1
    assert armed.truth == ("state", module, "", "", "weights")
    assert bits(model) == before
