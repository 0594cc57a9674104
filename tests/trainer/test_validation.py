"""Which validations count: the policy alone; going back in a training, and options of Ultralytics that must keep working."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from calls import Calls
from equality import assert_same
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator
from ultralytics.utils.torch_utils import EarlyStopping

from yolo_stable import StableDetectionTrainer
from yolo_stable.chaos import Fault
from yolo_stable.errors import TrainingHaltedError
from yolo_stable.guard import Counts
from yolo_stable.presets.guard_settings import TrainerConfig
from yolo_stable.runlog.reader import read_events
from yolo_stable.trainer import precision
from yolo_stable.trainer import validation as recovering
from yolo_stable.trainer.fitness_collapse import is_worse, rise
from yolo_stable.trainer.open_window import OpenWindow
from yolo_stable.trainer.validation import ValidationPolicy

NAN = float("nan")
Arguments = Callable[..., dict[str, Any]]


def run(kind: type, overrides: dict[str, Any]) -> Any:
    trainer = kind(overrides=overrides)
    trainer.train()
    return trainer


def events(trainer: Any, kind: str) -> list[dict[str, Any]]:
    return [e for e in read_events(trainer.save_dir / "guard.jsonl") if e["event"] == kind]


def rows(trainer: Any) -> list[dict[str, str]]:
    return list(csv.DictReader((trainer.save_dir / "results.csv").read_text().splitlines()))


def healthy(trainer: Any) -> bool:
    return all(bool(v.isfinite().all()) for m in (trainer.model, trainer.ema.ema) for v in m.state_dict().values())


@pytest.mark.usefixtures("without_epilogue")
class TestGoingBack:
    def test_a_ruined_weight_is_put_back_printed_and_recorded(
        self, arguments: Arguments, caplog: pytest.LogCaptureFixture
    ) -> None:
        fault = Fault("weight", NAN, at=(5,))
        trainer = run(fault.on(StableDetectionTrainer), arguments(epochs=2, guard={"snapshot_every": 2}))
        assert trainer.chaos.fired == 1
        (escalation,) = events(trainer, "climb")
        assert (escalation["rung"], escalation["lost"] <= 2, escalation["lr_factor"]) == ("roll_back", True, 1.0)
        assert "weight nan" in escalation["reason"]
        assert healthy(trainer)
        assert any("rolled back from step" in record.message for record in caplog.records)

    def test_a_ruined_average_is_put_right_before_it_is_validated(self, arguments: Arguments) -> None:
        seen = []

        class Watched(Fault("ema", NAN, at=(3,)).on(StableDetectionTrainer)):  # type: ignore[misc]
            def validate(self) -> Any:
                before = events(self, "climb") if (self.save_dir / "guard.jsonl").exists() else []
                result = super().validate()
                seen.append((len(before), len(events(self, "climb")), healthy(self)))
                return result

        trainer = run(Watched, arguments(epochs=1))
        assert trainer.chaos.fired == 1
        assert seen == [(0, 1, True)]
        assert events(trainer, "climb")[0]["rung"] == "repair"
        assert events(trainer, "climb")[0]["culprits"][0].startswith("ema/")

    def test_a_fault_that_never_goes_away_halts_with_the_healthy_state(self, arguments: Arguments) -> None:
        limits = {"max_consecutive": 1, "max_rollbacks": 2}
        trainer = Fault("pixel", NAN, since=4).on(StableDetectionTrainer)(overrides=arguments(epochs=9, guard=limits))
        with pytest.raises(TrainingHaltedError, match="2 rollbacks did not help"):
            trainer.train()
        assert trainer.chaos.fired == 6
        assert [e["rung"] for e in events(trainer, "climb")] == ["roll_back", "roll_back", "halt"]
        assert healthy(trainer)

    def test_the_precision_is_lowered_from_one_batch_to_the_next(self, arguments: Arguments) -> None:
        """Autocast on the CPU, with a real GradScaler."""

        def half(trainer: Any) -> None:
            trainer.amp = trainer.args.amp = True
            trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

        trainer = Fault("overflow", float("inf"), since=4).on(StableDetectionTrainer)(
            overrides=arguments(epochs=9, guard={"max_consecutive": 1, "max_rollbacks": 1})
        )
        trainer.add_callback("on_train_start", half)
        with pytest.raises(TrainingHaltedError):
            trainer.train()
        escalations = [(e["rung"], e["precision"]) for e in events(trainer, "climb")]
        assert escalations == [("roll_back", None), ("lower_precision", "float32"), ("halt", None)]
        assert (trainer.amp, trainer.args.amp, trainer.scaler.is_enabled()) == (False, False, False)
        assert healthy(trainer)


class TestValidation:
    def test_results_that_are_not_finite_do_not_count(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        original = DetectionValidator.__call__
        asked = []

        def broken_once(self: Any, trainer: Any = None, model: Any = None) -> Any:
            metrics = original(self, trainer, model)
            asked.append(trainer)
            if len(asked) == 1:
                metrics["fitness"] = NAN
            return metrics

        monkeypatch.setattr(DetectionValidator, "__call__", broken_once)
        trainer = run(StableDetectionTrainer, arguments(epochs=2))
        assert len(asked) == 3, "two epochs and the final one"
        assert trainer.best_fitness is not None
        assert trainer.best_fitness >= 0
        assert [e["names"] for e in events(trainer, "validation_not_finite")] == [["fitness"]]
        assert sum("although all weights are" in record.message for record in caplog.records) == 1

    def test_after_float16_was_given_up_it_validates_in_float32(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = DetectionValidator.__call__
        seen = []

        def watched(self: Any, trainer: Any = None, model: Any = None) -> Any:
            seen.append(None if trainer is None else (trainer.services.precision.was_lowered, trainer.amp))
            return original(self, trainer, model)

        monkeypatch.setattr(DetectionValidator, "__call__", watched)
        monkeypatch.setattr(precision, "supports_bfloat16", lambda device: True)

        class Lowered(StableDetectionTrainer):
            def validate(self) -> Any:
                self.amp = True
                assert self.lower_precision() == "bfloat16"
                result = super().validate()
                assert (self.amp, self.args.amp) == (True, "bf16"), "training stays in bfloat16"
                self.amp = self.args.amp = False  # the CPU has no autocast of Ultralytics'
                return result

        run(Lowered, arguments(epochs=1))
        assert seen[0] == (True, False)

    def test_a_run_that_finds_nothing_goes_on_as_stock_does_unless_it_is_told_to_end(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        original = DetectionValidator.__call__

        def nothing(self: Any, trainer: Any = None, model: Any = None) -> Any:
            metrics = original(self, trainer, model)
            return {**metrics, "fitness": 0.0} if trainer is not None else metrics

        monkeypatch.setattr(DetectionValidator, "__call__", nothing)
        ends = {"guard": {"stop_at_zero": True}}
        for kind, epochs, settings in (
            (StableDetectionTrainer, 5, {}),
            (StableDetectionTrainer, 3, ends),
            (DetectionTrainer, 5, {}),
        ):
            trainer = run(kind, arguments(epochs=5, patience=2, save=False, **settings))
            assert len(rows(trainer)) == epochs
            assert isinstance(trainer.stopper, EarlyStopping)
        assert sum("guard.stop_at_zero=True ends such a run" in record.message for record in caplog.records) == 1


def collapsing(base: type, at: set[int]) -> type:
    """Return ``base`` with a network that sees objects everywhere from the validations numbered in ``at`` (from 1) on."""

    class Collapsing(base):  # type: ignore[misc]
        validated = fired = 0

        def validate(self) -> Any:
            self.validated += 1
            if self.validated in at:
                self.fired += 1
                with torch.no_grad():
                    for model in (self.model, self.ema.ema):
                        for scores in model.model[-1].cv3:
                            scores[-1].bias += 100.0
            return super().validate()

    return Collapsing


@pytest.mark.usefixtures("without_epilogue")
class TestCollapse:
    def validations(self, monkeypatch: pytest.MonkeyPatch, fitness: list[float]) -> None:
        """Let the validations of a run have these results; the weights stay what they are."""
        original = DetectionValidator.__call__
        left = list(fitness)

        def scripted(self: Any, trainer: Any = None, model: Any = None) -> Any:
            metrics = original(self, trainer, model)
            return {**metrics, "fitness": left.pop(0)} if trainer is not None else metrics

        monkeypatch.setattr(DetectionValidator, "__call__", scripted)

    def test_the_state_of_the_best_validation_is_put_back(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.validations(monkeypatch, [0.3, 0.4, 0.01, 0.02, 0.4])
        weights = []

        class Watched(collapsing(StableDetectionTrainer, {3})):  # type: ignore[misc]
            def validate(self) -> Any:
                model: Any = self.model
                before = {k: v.clone() for k, v in model.state_dict().items()}
                result = super().validate()
                weights.append((before, {k: v.clone() for k, v in model.state_dict().items()}))
                return result

        trainer = run(Watched, arguments(epochs=4))
        assert trainer.fired == 1
        (escalation,) = events(trainer, "climb")
        assert (escalation["rung"], escalation["step"], escalation["to_step"], escalation["lost"]) == (
            "roll_back",
            16,
            8,
            8,
        )
        why = r"the fitness collapsed to 0\.02 after a best of 0\.4, and the loss of training batches is \S+ times that of"
        assert re.match(why, escalation["reason"])
        assert trainer.fitness == 0.4, "validated again: the results are those of what is saved"
        assert all(torch.equal(a, b) for a, b in zip(weights[1][0].values(), weights[3][1].values(), strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(weights[3][0].values(), weights[3][1].values(), strict=True))

    @pytest.mark.parametrize(
        "fitness", [[0.3, 0.4, 0.01, 0.1], [0.04, 0.0, 0.0, 0.0]], ids=["once", "never-learned-much"]
    )
    def test_what_is_no_collapse(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, fitness: list[float]
    ) -> None:
        self.validations(monkeypatch, fitness)
        trainer = run(collapsing(StableDetectionTrainer, {3}), arguments(epochs=4, save=False))
        assert trainer.fired == 1
        assert events(trainer, "climb") == []

    def test_weights_that_go_on_learning_are_never_put_back_and_nothing_of_the_look_stays(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        looks: list[float | None] = []
        monkeypatch.setattr(recovering, "rise", lambda now, best: looks.append(rise(now, best)) or looks[-1])
        same = arguments(epochs=5, mosaic=1.0, save=False)
        stock = run(DetectionTrainer, {**same, "name": "stock"})
        for name, fitness in {
            "forgotten": [0.4, 0.0, 0.0, 0.0, 0.0],
            "fluctuating": [0.3, 0.0, 0.25, 0.0, 0.0],
        }.items():
            looks.clear()
            with monkeypatch.context() as patch:
                self.validations(patch, fitness)
                guarded = run(StableDetectionTrainer, {**same, "name": name, "guard": {"step": "reference"}})
            assert looks, name
            assert not any(is_worse(times) for times in looks), name
            assert None not in looks, name
            assert events(guarded, "climb") == [], name
            for left, right in ((stock.model, guarded.model), (stock.ema.ema, guarded.ema.ema)):
                assert_same(dict(left.state_dict()), dict(right.state_dict()), name)

    def test_two_validations_of_one_state_count_once(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A window that straddles epochs: three of four epochs end without a new step."""
        self.validations(monkeypatch, [0.4] + [0.0] * 6)
        settings = arguments(epochs=7, nbs=64, warmup_epochs=0.0, save=False)
        trainer = run(collapsing(StableDetectionTrainer, {2}), settings)
        assert trainer.fired == 1
        assert trainer.guard.counts.applied == 1
        assert events(trainer, "climb") == []

    def test_the_learning_rate_stays_lower_when_it_collapses_again_however_long_that_takes(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.validations(monkeypatch, [0.4, 0.01, 0.01, 0.4, 0.01, 0.01, 0.4, 0.3])
        settings = arguments(epochs=6, save=False, guard={"ramp_steps": 1})
        trainer = run(collapsing(StableDetectionTrainer, {2, 4}), settings)
        backoff = trainer.guard.recovery.lr_backoff
        assert [e["lr_factor"] for e in events(trainer, "climb")] == [0.5, 0.5]
        assert (backoff.ceiling, backoff.factor, backoff.rollbacks) == (0.5, 0.5, 2), (
            "not back to 1, though the ramp was over"
        )

    def test_one_that_comes_back_each_time_halts(self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
        self.validations(monkeypatch, [0.4, 0.01, 0.01, 0.4, 0.01, 0.01, 0.4, 0.01, 0.01])
        kind = collapsing(StableDetectionTrainer, {2, 4, 6})
        trainer = kind(overrides=arguments(epochs=9, save=False, guard={"max_rollbacks": 2}))
        with pytest.raises(TrainingHaltedError, match="the fitness collapsed"):
            trainer.train()
        assert [e["rung"] for e in events(trainer, "climb")] == ["roll_back", "roll_back", "halt"]
        assert trainer.epoch + 1 == 7


@pytest.mark.usefixtures("without_epilogue")
class TestOptionsOfUltralytics:
    def test_close_mosaic(self, arguments: Arguments) -> None:
        trainer = run(StableDetectionTrainer, arguments(epochs=3, mosaic=1.0, close_mosaic=1))
        kinds = [type(t).__name__ for t in trainer.train_loader.dataset.transforms.transforms]
        assert kinds
        assert "Mosaic" not in str(kinds)
        assert len(rows(trainer)) == 3

    def test_time(self, arguments: Arguments) -> None:
        trainer = run(StableDetectionTrainer, arguments(epochs=50, time=1.0 / 3600))
        assert trainer.epochs != 50, "estimated anew"
        assert 1 <= len(rows(trainer)) < 50
        assert healthy(trainer)

    def test_save_false(self, arguments: Arguments) -> None:
        settings = {"snapshot_every": 2, "save_every_steps": 1}
        trainer = run(
            Fault("weight", NAN, at=(5,)).on(StableDetectionTrainer), arguments(epochs=2, save=False, guard=settings)
        )
        assert trainer.chaos.fired == 1
        assert len(events(trainer, "climb")) == 1
        assert healthy(trainer)

    def test_val_false(self, arguments: Arguments) -> None:
        trainer = run(StableDetectionTrainer, arguments(epochs=2, val=False))
        assert len(rows(trainer)) == 2
        assert Path(trainer.last).is_file()

    @pytest.mark.parametrize("fault", [None, Fault("weight", NAN, at=(5,))], ids=["healthy", "rolled-back"])
    def test_freeze(self, arguments: Arguments, fault: Fault | None) -> None:
        kind = StableDetectionTrainer if fault is None else fault.on(StableDetectionTrainer)
        start = {}

        class Frozen(kind):  # type: ignore[misc, valid-type]
            def _setup_train(self) -> None:
                super()._setup_train()
                start.update({k: p.detach().clone() for k, p in self.model.named_parameters()})

        trainer = run(Frozen, arguments(epochs=2, freeze=2, guard={"snapshot_every": 2}))
        moved = {k for k, p in trainer.model.named_parameters() if not torch.equal(p, start[k])}
        assert moved
        assert not any(k.startswith(("model.0.", "model.1.")) for k in moved)
        assert healthy(trainer)

    def test_out_of_memory_begins_anew_and_can_still_go_back(self, arguments: Arguments) -> None:
        failed = []

        class Full(Fault("weight", NAN, at=(9,)).on(StableDetectionTrainer)):  # type: ignore[misc]
            def preprocess_batch(self, batch: Any) -> Any:
                if self.batch_number == 3 and not failed:
                    failed.append(self.batch_size)
                    raise RuntimeError("CUDA out of memory. (said by a test)")
                return super().preprocess_batch(batch)

        trainer = run(Full, arguments(epochs=2, guard={"snapshot_every": 2}))
        assert failed
        assert trainer.batch_size == failed[0] // 2
        assert trainer.chaos.fired == 1
        assert [e["rung"] for e in events(trainer, "climb")] == ["roll_back"]
        assert healthy(trainer)


BLOCKS = 12
"""Epochs of four steps: two blocks of each kind."""


def in_blocks(kind: type) -> type:
    """Return the trainer with twelve steps of backgrounds and twelve of objects in turns, as in an order that is not shuffled."""

    class InBlocks(kind):  # type: ignore[misc, valid-type]
        drawn = 0

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            if self.drawn % 24 < 12:
                batch.update({key: batch[key][:0] for key in ("cls", "bboxes", "batch_idx")})
            self.drawn += 1
            return super().preprocess_batch(batch)

    return InBlocks


@pytest.mark.usefixtures("without_epilogue")
class TestOrderOfTheData:
    def test_blocks_are_asked_about_and_harm_nothing(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With incidents and without: the batch that is run again is kept for them, or for this alone."""
        asked = []
        again = OpenWindow.loss_again
        monkeypatch.setattr(OpenWindow, "loss_again", lambda self: asked.append(1) or again(self))
        settings = {"step": "reference", "patience": 4, "max_loss_rise": 1.5, "snapshot_every": 2}
        common = {"epochs": BLOCKS, "val": False, "save": False, "dropout": 0.1, "lr0": 0.001}
        stock = run(in_blocks(DetectionTrainer), arguments(**common, name="stock"))
        generator = torch.get_rng_state()
        for incidents in (10, None):
            asked.clear()
            guard = {**settings, "incidents": incidents}
            trainer = run(in_blocks(StableDetectionTrainer), arguments(**common, guard=guard, name=str(incidents)))
            assert len(asked) >= 2, "the blocks ask nothing"
            assert events(trainer, "climb") == []
            assert trainer.guard.counts.rollbacks == 0
            for theirs, ours in ((stock.model, trainer.model), (stock.ema.ema, trainer.ema.ema)):
                assert_same(dict(theirs.state_dict()), dict(ours.state_dict()))
            assert torch.equal(generator, torch.get_rng_state())

    def test_a_learning_rate_that_is_far_too_high_from_the_first_step_on_is_undone(
        self, arguments: Arguments, tmp_path: Path
    ) -> None:
        fault = Fault("lr", 100.0, since=0)
        guard = {"patience": 8, "snapshot_every": 4, "max_jump": None}
        settings = arguments(epochs=8, val=False, save=False, warmup_epochs=0.0, guard=guard)
        network = yaml.safe_load(Path(settings["model"]).read_text())
        assert [network["head"][layer][2] for layer in (2, 5)] == ["Conv", "Conv"]
        network["head"][2] = [-1, 1, "C3k2", [32, False]]  # of plain convolutions the loss falls at this rate as well
        network["head"][5] = [-1, 1, "C3k2", [32, True]]
        (tmp_path / "blocks.yaml").write_text(yaml.safe_dump(network))
        trainer = run(fault.on(StableDetectionTrainer), {**settings, "model": str(tmp_path / "blocks.yaml")})
        assert trainer.chaos.fired > 8
        escalations = events(trainer, "climb")
        assert escalations
        assert "under the state of step" in escalations[0]["reason"]
        assert healthy(trainer)


class Bare:
    """The policy of a trainer that is a stub, whose validations are given."""

    def __init__(self, calls: Calls) -> None:
        self.calls, self.counts = calls, Counts()
        self.snapshot: Any = SimpleNamespace(
            tensors={"model/weight": "w", "ema/weight": "average of w", "optimizer/0": "momentum"}
        )
        self.recovery: Any = SimpleNamespace(
            keep_best=calls.to("keep_best"),
            roll_back_to_best=calls.to("roll_back_to_best", True),
            milestone=SimpleNamespace(snapshot=self.snapshot),
        )
        self.guard: Any = SimpleNamespace(inspect=calls.to("inspect", True), recovery=self.recovery, counts=self.counts)
        self.trainer: Any = SimpleNamespace(
            guard=self.guard,
            plan=SimpleNamespace(trainer=TrainerConfig()),
            ema=None,
            model="network",
            validator=SimpleNamespace(args=SimpleNamespace(quantize=None)),
            epoch=1,
            batch_number=3,
            train_loader=range(8),
            run_log=SimpleNamespace(validation_not_finite=calls.to("validation_not_finite")),
        )
        self.policy = ValidationPolicy(self.trainer, calls.to("look_into"))
        self.lose(now=[6.0, 8.0], best=[1.0, 2.0])

    def lose(self, now: list[float], best: list[float]) -> None:
        """Let training batches have these losses, with the weights of now and those of the best state."""

        def losses(model: Any, tensors: Any = None) -> list[Any]:
            self.calls.append(("losses", model, tensors))
            found = now if tensors is None else best
            return [SimpleNamespace(loss=one, whole=SimpleNamespace(loss=one)) for one in found]

        self.policy.witnesses = SimpleNamespace(losses=losses)  # type: ignore[assignment]

    def validate(self, fitness: Any, metrics: dict[str, float] | None = None, again: Any = None) -> Any:
        """Validate the state after another step."""
        self.counts.applied += 1
        results = iter([({} if metrics is None else metrics, fitness), again])
        return self.policy.validate(lambda: next(results))

    @property
    def went_back(self) -> list[str]:
        return [call[1] for call in self.calls if call[0] == "roll_back_to_best"]


@pytest.fixture
def bare(calls: Calls) -> Bare:
    return Bare(calls)


class TestWhichCount:
    def test_the_state_is_looked_at_before(self, bare: Bare, calls: Calls) -> None:
        bare.policy.validate(calls.to("stock", ({"metrics/mAP50": 0.5}, 0.5)))
        assert calls.names == ["inspect", "stock", "keep_best"]

    def test_a_healthy_one_is_stocks(self, bare: Bare, said: list[str]) -> None:
        metrics = {"metrics/mAP50": 0.5}
        answer = bare.validate(0.25, metrics)
        assert answer == (metrics, 0.25, True)
        assert answer[0] is metrics
        assert said == []

    @pytest.mark.parametrize("results", [(None, None), ({"metrics/mAP50": 0.5}, None), (None, 0.5)])
    def test_where_none_was_computed_nothing_is_judged(self, bare: Bare, calls: Calls, results: Any) -> None:
        assert bare.policy.validate(lambda: results) == (*results, True)
        assert calls.names == ["inspect"]

    def test_a_fitness_that_is_not_finite_does_not(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        metrics = {"metrics/mAP50": NAN, "val/box_loss": 1.0}
        assert bare.validate(NAN, metrics) == (metrics, 0.0, False)
        assert said == [
            "validation of epoch 2: not finite: metrics/mAP50, fitness, although all weights are. It does not count."
        ]
        names = ["metrics/mAP50", "fitness"]
        assert calls == [("inspect",), ("validation_not_finite", 2, names), ("look_into", names)]

    def test_a_loss_that_is_not_is_told_and_the_fitness_does(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        assert bare.validate(0.25, {"val/box_loss": float("inf")})[1:] == (0.25, True)
        assert said == [
            "validation of epoch 2: not finite: val/box_loss, although all weights are. Its fitness counts."
        ]
        assert calls.names == ["inspect", "validation_not_finite", "look_into", "keep_best"]

    def test_of_weights_that_are_ruined_none_does_and_nothing_is_looked_into(
        self, bare: Bare, calls: Calls, said: list[str]
    ) -> None:
        bare.guard.inspect = calls.to("inspect", False)
        assert bare.validate(0.25, {"val/box_loss": NAN})[1:] == (0.0, False)
        assert calls.names == ["inspect", "validation_not_finite"]
        assert said == [
            "validation of epoch 2: not finite: val/box_loss, of a state that is not healthy. It does not count."
        ]
        assert bare.validate(0.25)[1:] == (0.0, False), "also one that looks healthy"

    def test_of_weights_that_nobody_has_looked_at_nothing_is_said(self, bare: Bare, said: list[str]) -> None:
        bare.guard.recovery = None
        bare.validate(NAN)
        assert said == ["validation of epoch 2: not finite: fitness. It does not count."]

    def test_of_float16_it_says_what_to_try(self, bare: Bare, said: list[str]) -> None:
        bare.trainer.validator.args.quantize = 16
        bare.validate(NAN)
        assert said[0].endswith(
            "It does not count. In float16 a validation may overflow where training does not: try amp=False."
        )

    def test_before_there_is_a_validator_too(self, bare: Bare, said: list[str]) -> None:
        bare.trainer.validator = None
        bare.validate(NAN)
        assert said[0].endswith("It does not count.")


class TestWhenItGoesBack:
    def test_two_low_ones_and_a_loss_that_rose_go_back_and_validate_again(self, bare: Bare, calls: Calls) -> None:
        bare.validate(0.5)
        assert bare.validate(0.01)[1:] == (0.01, True)
        calls.clear()
        assert bare.validate(0.02, again=("metrics of the best", 0.5)) == ("metrics of the best", 0.5, True)
        assert calls == [
            ("inspect",),
            ("losses", "network", None),
            ("losses", "network", {"weight": "w"}),
            (
                "roll_back_to_best",
                "the fitness collapsed to 0.02 after a best of 0.5, and the loss of training batches is 4.67 times that of the"
                " best state",
            ),
        ]

    def test_the_average_is_compared_where_there_is_one(self, bare: Bare, calls: Calls) -> None:
        bare.trainer.ema = SimpleNamespace(ema="average")
        bare.guard.recovery.roll_back_to_best = calls.to("roll_back_to_best", False)
        for fitness in (0.5, 0.01, 0.02):
            bare.validate(fitness)
        assert [call for call in calls if call[0] == "losses"] == [
            ("losses", "average", None),
            ("losses", "average", {"weight": "average of w"}),
        ]

    def test_where_it_could_not_go_back_the_results_stay(self, bare: Bare, calls: Calls) -> None:
        bare.guard.recovery.roll_back_to_best = calls.to("roll_back_to_best", False)
        bare.validate(0.5)
        bare.validate(0.01)
        assert bare.validate(0.02)[1:] == (0.02, True)

    def test_a_loss_that_did_not_rise_acquits_and_asks_for_twice_as_much(self, bare: Bare, calls: Calls) -> None:
        bare.lose(now=[1.0, 2.0], best=[1.0, 2.0])
        for fitness in (0.5, *[0.01] * 5):
            bare.validate(fitness)
        assert bare.went_back == []
        assert calls.names.count("losses") == 2, "of both states, once"
        bare.lose(now=[9.0, 9.0], best=[1.0, 2.0])
        assert bare.validate(0.01, again=({}, 0.5))[1] == 0.5
        assert len(bare.went_back) == 1, "after two, and then after four"

    def test_without_a_best_state_nobody_can_say(self, bare: Bare, calls: Calls) -> None:
        bare.recovery.milestone.snapshot = None
        for fitness in (0.5, 0.01, 0.02):
            bare.validate(fitness)
        assert (bare.went_back, "losses" in calls.names) == ([], False)

    def test_one_that_cannot_be_looked_at_is_a_line(self, bare: Bare, said: list[str]) -> None:
        bare.policy.witnesses.losses = Calls().to("losses", RuntimeError("CUDA\nout of memory"))  # type: ignore[method-assign]
        for fitness in (0.5, 0.01, 0.02):
            bare.validate(fitness)
        assert bare.went_back == []
        assert said == [
            "The fitness has fallen far below its best, but whether training has collapsed could not be looked at:"
            " RuntimeError: CUDA out of memory. Training goes on."
        ]

    @pytest.mark.parametrize("off", ["recovery", "setting", "ranks"])
    def test_where_it_is_off_not_even_the_best_is_kept(
        self, bare: Bare, calls: Calls, off: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if off == "recovery":
            bare.guard.recovery = None
        elif off == "setting":
            bare.trainer.plan.trainer = TrainerConfig(collapse=None)
        else:
            monkeypatch.setattr(recovering, "RANK", 0)
        for fitness in (0.5, 0.01, 0.02, 0.03):
            bare.validate(fitness)
        assert set(calls.names) == {"inspect"}


class TestWitnessesOfACollapse:
    def test_batches_are_kept_only_while_another_low_one_would_be_a_suspicion(self, bare: Bare) -> None:
        seen = Calls()
        kept: list[int] = []

        class Kept:
            see = staticmethod(lambda batch, number, of: (seen.append((batch, number, of)), kept.append(number)))
            clear = kept.clear

            def __len__(self) -> int:
                return len(kept)

        bare.policy.witnesses = Kept()  # type: ignore[assignment]
        batch: dict[str, Any] = {"img": 1}
        bare.policy.witness(batch)
        bare.validate(0.5)
        bare.policy.witness(batch)
        assert seen == []
        bare.validate(0.01)
        bare.policy.witness(batch)
        assert seen == [(batch, 3, 8)]
        bare.validate(0.4)
        assert kept == [3]
        bare.policy.witness(batch)
        assert (len(seen), kept) == (1, [])
