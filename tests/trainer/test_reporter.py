"""The numbers of the steps in a real run: right, on time, without a trace in the training, and with warnings where due."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ultralytics.models.yolo.detect import DetectionTrainer

from yolo_stable import StableDetectionTrainer
from yolo_stable.runlog.reader import read_events
from yolo_stable.runlog.stopwatch import Stopwatch

pytestmark = pytest.mark.usefixtures("without_final_evaluation")
Arguments = Callable[..., dict[str, Any]]
KEYS = ["batch", "step", "loss", "norm", "clip", "lr", "scale", "seconds", "memory", "layers"]


def events(trainer: Any, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(trainer.save_dir / "guard.jsonl") if event["event"] == kind]


class Measuring(StableDetectionTrainer):
    """Works out by itself what the log has to say of each step."""

    def _setup_train(self) -> None:
        super()._setup_train()
        self.seen: list[dict[str, Any]] = []

    def optimizer_step(self) -> None:
        assert self.optimizer is not None
        norms: dict[str, float] = {}
        for name, parameter in self.model.named_parameters():  # type: ignore[union-attr]
            if parameter.grad is not None:
                module = name.rpartition(".")[0]
                norms[module] = norms.get(module, 0.0) + float(parameter.grad.double().square().sum())
        rates = [group["lr"] for group in self.optimizer.param_groups]
        items = {name: float(value) for name, value in self.loss_items.items()}
        self.seen.append({"norms": norms, "lr": rates, "loss": items, "batch": self.batch_number})
        super().optimizer_step()


@pytest.mark.parametrize(("optimizer", "step"), [("SGD", "auto"), ("MuSGD", "auto"), ("AdamW", "reference")])
def test_every_number_is_right(arguments: Arguments, optimizer: str, step: str) -> None:
    trainer = Measuring(overrides=arguments(optimizer=optimizer, guard={"telemetry_every": 3, "step": step}))
    trainer.train()
    lines = events(trainer, "steps")
    assert [(line["epoch"], line["batch"], line["step"]) for line in lines] == [(1, 3, 3), (2, 2, 6)]
    for line in lines:
        assert [key for key in line if key not in {"schema", "event", "time", "epoch"}] == KEYS
        seen = trainer.seen[line["step"] - 1]
        squared = sum(seen["norms"].values())
        assert line["norm"] == pytest.approx(squared**0.5, rel=1e-4)
        assert line["clip"] == pytest.approx(min(1.0, 10.0 / squared**0.5), rel=1e-4)
        assert line["lr"] == pytest.approx(seen["lr"], rel=1e-5)
        assert line["loss"] == pytest.approx(seen["loss"], rel=1e-5)
        assert line["batch"] == seen["batch"]
        assert line["scale"] is None
        assert line["seconds"] > 0
        assert 2**24 < line["memory"] < 2**36
        largest = sorted(seen["norms"].items(), key=lambda entry: -entry[1])[:10]
        assert [share for _, share in line["layers"]] == pytest.approx([v / squared for _, v in largest], abs=1e-4)
        assert {name for name, _ in line["layers"]} == {name for name, _ in largest}


def test_training_is_that_of_stock_to_the_bit_with_a_line_for_every_step(arguments: Arguments) -> None:
    stock: Any = DetectionTrainer(overrides={**arguments(), "name": "stock"})
    stock.train()
    guard = {"step": "reference", "telemetry_every": 1}
    guarded: Any = StableDetectionTrainer(overrides={**arguments(), "name": "guarded", "guard": guard})
    guarded.train()
    assert len(events(guarded, "steps")) == 8
    for a, b in ((stock.model, guarded.model), (stock.ema.ema, guarded.ema.ema)):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_what_lies_between_two_epochs_is_not_the_time_of_a_step(
    arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = StableDetectionTrainer(overrides=arguments(guard={"telemetry_every": 4, "save_every_steps": 3}))
    at = [0.0]

    def passes(seconds: float) -> Callable[[Any], None]:
        return lambda _: at.__setitem__(0, at[0] + seconds)

    def by_hand(t: Any) -> None:
        t.services.reporter.steps.clock = Stopwatch(lambda: at[0])

    trainer.add_callback("on_train_start", by_hand)
    trainer.add_callback("on_train_batch_start", passes(1.0))
    for event in ("on_train_epoch_end", "on_val_start", "on_fit_epoch_end", "on_model_save"):
        trainer.add_callback(event, passes(1000.0))
    writer = trainer.services.checkpoints
    saved = writer.save_soon
    monkeypatch.setattr(writer, "save_soon", lambda epoch: (passes(1000.0)(None), saved(epoch))[1])
    trainer.train()
    assert at[0] > 6000.0, "epochs, validations and two saves within them"
    assert [line["seconds"] for line in events(trainer, "steps")] == [1.0, 1.0]


def test_a_layer_that_takes_over_and_a_norm_out_of_bounds_are_told(
    arguments: Arguments, caplog: pytest.LogCaptureFixture
) -> None:
    class Loud(StableDetectionTrainer):
        fired = 0

        def optimizer_step(self) -> None:
            model: Any = self.model
            model.model[3].conv.weight.grad.mul_(1e6)
            Loud.fired += 1
            super().optimizer_step()

    trainer = Loud(overrides=arguments(epochs=3, guard={"telemetry_every": 1}))
    trainer.train()
    assert Loud.fired == 12
    warnings = events(trainer, "warning")
    assert [(w["epoch"], w["step"], w["what"]) for w in warnings] == [
        (1, 1, "norm over limit"),
        (2, 5, "norm over limit"),
        (2, 8, "one layer dominates"),
        (3, 9, "one layer dominates"),
        (3, 9, "norm over limit"),
    ]
    assert warnings[0]["value"] > 1e5
    assert warnings[0]["limit"] == 100.0
    assert warnings[2]["message"].startswith("model.3.conv alone makes 100% of the squared gradient norm")
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any(line.endswith(f"epoch 2/3, step 8: one layer dominates: {warnings[2]['message']}.") for line in told)
    counts = {"norm over limit": 3, "one layer dominates": 2}
    assert json.loads((trainer.save_dir / "summary.json").read_text())["warnings"] == counts
    table = next(r.getMessage() for r in caplog.records if r.getMessage().startswith("guard of yolo-stable: done"))
    assert "norm over limit: 3, one layer dominates: 2" in table


def test_a_healthy_run_is_not_warned_and_its_loss_scale_is_told(
    arguments: Arguments, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = StableDetectionTrainer(overrides=arguments(guard={"telemetry_every": 1}))
    trainer.add_callback(
        "on_train_start", lambda t: setattr(t, "scaler", torch.amp.GradScaler("cpu", init_scale=256.0))
    )
    trainer.train()
    assert events(trainer, "warning") == []
    assert [line["scale"] for line in events(trainer, "steps")] == [256.0] * 8
    table = next(r.getMessage() for r in caplog.records if r.getMessage().startswith("guard of yolo-stable\n"))
    assert "every step a line in guard.jsonl; warned of: norm above 100" in table


def test_off_means_off(arguments: Arguments) -> None:
    trainer = StableDetectionTrainer(overrides=arguments(epochs=1, guard={"telemetry_every": None}))
    trainer.train()
    assert trainer.services.reporter.steps is None
    assert [event["event"] for event in read_events(trainer.save_dir / "guard.jsonl")] == ["start", "epoch", "end"]
