"""The guarded trainers: equal to stock when healthy, for every task, and leaving nothing behind that needs them."""

from __future__ import annotations

import copy
import csv
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
import yaml
from torch import Tensor
from ultralytics import NAS, SAM, YOLO, FastSAM
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.dist import generate_ddp_file
from ultralytics.utils.patches import torch_load

import yolo_stable
from yolo_stable import (
    GuardedTrainerMixin,
    InvalidCallError,
    StableDetectionTrainer,
    StepGuard,
    TrainingHaltedError,
    UnhealthyStartError,
    load_hyp,
)
from yolo_stable.guard import GuardVerdict
from yolo_stable.runlog.reader import read_events
from yolo_stable.trainer.label_filter import disarm
from yolo_stable.trainer.trainers import TRAINERS, guarded

Arguments = Callable[..., dict[str, Any]]


class Own(DetectionTrainer):
    """A user's trainer."""


class OwnOfMade(guarded(Own)):  # type: ignore[misc]
    """A subclass of a class that was made."""


def train(trainer_class: type, overrides: dict[str, Any]) -> Any:
    trainer = trainer_class(overrides=overrides)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory, arguments_in: Arguments) -> Any:
    """Return the trainer of a run of one epoch with nothing wrong; a callback has ``seen`` the running loss of each batch."""
    trainer: Any = StableDetectionTrainer(overrides=arguments_in(tmp_path_factory.mktemp("healthy"), epochs=1))
    seen: list[float] = []
    trainer.add_callback("on_train_batch_end", lambda t: seen.append(t.tloss["box_loss"].detach().cpu().item()))
    trainer.train()
    trainer.seen = seen
    return trainer


def rows(trainer: Any) -> list[dict[str, str]]:
    return list(csv.DictReader((trainer.save_dir / "results.csv").read_text().splitlines()))


def assert_equal_state(a: Any, b: Any) -> None:
    for kind in ("model", "ema"):
        left, right = (t.model if kind == "model" else t.ema.ema for t in (a, b))
        for (name, x), (_, y) in zip(left.state_dict().items(), right.state_dict().items(), strict=True):
            assert torch.equal(x, y), f"{kind} {name}"
    states = [t.optimizer.state_dict()["state"] for t in (a, b)]
    assert states[0].keys() == states[1].keys()
    for key, state in states[0].items():
        for name, value in state.items():
            other = states[1][key][name]
            assert torch.equal(value, other) if isinstance(value, Tensor) else value == other, (key, name)
    assert a.ema.updates == b.ema.updates


def with_nan(base: type, at: set[int]) -> type:
    """Return ``base`` with a NaN pixel in the batches numbered ``at`` (from 0, over the whole run)."""

    class Faulty(base):  # type: ignore[misc, valid-type]
        seen = 0

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch = super().preprocess_batch(batch)
            if Faulty.seen in at:
                batch["img"][0, 0, 5, 5] = float("nan")
            Faulty.seen += 1
            return batch

    return Faulty


@pytest.mark.usefixtures("without_epilogue")
class TestHealthy:
    """Test number one: with nothing wrong, guarded training is stock training, bit for bit."""

    @pytest.mark.parametrize("accumulate", [1, 2])
    @pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
    def test_it_ends_with_the_weights_of_stock(self, arguments: Arguments, optimizer: str, accumulate: int) -> None:
        same = arguments(optimizer=optimizer, nbs=4 * accumulate, lr0=0.002)
        stock = train(DetectionTrainer, {**same, "name": "stock"})
        guarded = train(StableDetectionTrainer, {**same, "name": "guarded", "guard": {"step": "reference"}})
        assert guarded.guard.counts.applied == stock.ema.updates > 0
        assert guarded.guard.counts.rejected == 0
        assert_equal_state(stock, guarded)

        kept = [key for key in rows(stock)[0] if key != "time"]
        assert [{k: r[k] for k in kept} for r in rows(stock)] == [{k: r[k] for k in kept} for r in rows(guarded)]
        added = [key for key in rows(guarded)[0] if key not in rows(stock)[0]]
        assert added == ["guard/grad_norm", "guard/grad_norm_max", "guard/clip_share", "guard/rejected"]

    def test_a_loss_schedule_does_not_drift(self, arguments: Arguments) -> None:
        """YOLO26's loss shifts weight between its two heads after each epoch; a rejection must not move it."""
        stock = train(DetectionTrainer, {**arguments("end2end", epochs=3), "name": "stock"})
        faulty = train(with_nan(StableDetectionTrainer, {0, 5}), {**arguments("end2end", epochs=3), "name": "faulty"})
        assert faulty.guard.counts.rejected == 2
        assert faulty.model.criterion.updates == stock.model.criterion.updates == 3
        assert faulty.model.criterion.o2m == stock.model.criterion.o2m


@pytest.mark.usefixtures("without_epilogue")
class TestTasks:
    def test_every_named_class_can_be_pickled_by_reference(self) -> None:
        for trainer_class in TRAINERS.values():
            assert issubclass(trainer_class, GuardedTrainerMixin)
            assert getattr(yolo_stable, trainer_class.__name__) is trainer_class
            assert pickle.loads(pickle.dumps(trainer_class)) is trainer_class

    def test_a_trainer_without_a_name_here_gets_its_guarded_class(self) -> None:
        made = guarded(Own)
        assert made.__mro__[1:3] == (GuardedTrainerMixin, Own)
        assert made.__name__ == "StableOwn"
        assert guarded(Own) is made
        assert guarded(made) is made
        assert guarded(DetectionTrainer) is TRAINERS["detect"]

    def test_what_is_made_and_derived_from_it_can_be_pickled_also_for_workers(self) -> None:
        for kind in (guarded(Own), OwnOfMade):
            assert pickle.loads(pickle.dumps(kind)) is kind
            in_a_worker = cloudpickle.loads(cloudpickle.dumps(kind))
            assert in_a_worker.__name__ == kind.__name__
            assert issubclass(in_a_worker, GuardedTrainerMixin)

    def test_what_cannot_be_guarded_is_refused_in_one_line(self) -> None:
        for wrong in (int, None, "detect"):
            with pytest.raises(InvalidCallError, match=r"Give a class of Ultralytics' trainers"):
                guarded(wrong)  # type: ignore[arg-type]
        for model in (SAM, FastSAM, NAS):
            with pytest.raises(InvalidCallError, match=f"{model.__name__}.* Ultralytics has no trainer for it"):
                guarded(model)
        with pytest.raises(
            InvalidCallError, match=r"Put it first: class Turned\(GuardedTrainerMixin, DetectionTrainer\)"
        ):

            class Turned(DetectionTrainer, GuardedTrainerMixin):  # type: ignore[misc]
                pass

    @pytest.mark.parametrize(
        ("task", "label", "value", "reason"),
        [
            ("detect", "cls", 99.0, "label class 99 not in 0..3"),
            ("detect", "cls", float("nan"), "label class nan not in 0..3"),
            ("detect", "bboxes", float("inf"), "label box not finite"),
            ("classify", "cls", -1, "label class -1 not in 0..3"),
            ("rtdetr", "bboxes", float("nan"), "label box not finite"),
        ],
    )
    def test_a_label_that_kills_stock_is_a_rejection(
        self, task: str, label: str, value: float, reason: str, arguments: Arguments
    ) -> None:
        class Faulty(TRAINERS[task]):  # type: ignore[misc]
            fired = 0

            def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
                if self.batch_number == 2:
                    batch[label].view(-1)[0] = value
                    Faulty.fired += 1
                return super().preprocess_batch(batch)

        trainer = train(Faulty, arguments(task, epochs=1))
        assert Faulty.fired == 1
        assert (trainer.guard.counts.rejected_micro_batches, trainer.guard.counts.applied) == (1, 3)
        events = list(read_events(trainer.save_dir / "guard.jsonl"))
        assert next(e["reason"] for e in events if e["event"] == "rejection") == reason


@pytest.mark.parametrize(
    ("classes", "values", "says"),
    [
        (5, [0, 4, 255], ""),
        (5, [0, 5, 255], "mask label of class 5 not in 0..4"),
        (5, [0, 254, 1], "mask label of class 254 not in 0..4"),
        (1, [0, 1, 255], ""),  # of one class there are 0 and 1
        (1, [0, 2, 1], "mask label of class 2 not in 0..1"),
        (200, [0, 199, 255], ""),
        (200, [0, 200, 255], "mask label of class 200 not in 0..199"),
    ],
)
def test_a_mask_is_looked_at_on_the_host(classes: int, values: list[int], says: str) -> None:
    for dtype in (torch.uint8, torch.int32):
        mask = torch.tensor(values, dtype=dtype).reshape(1, 1, 3)
        batch = {"semantic_mask": mask.clone()}
        assert disarm(batch, classes) == says
        bad = [value for value in values if value not in batch["semantic_mask"].flatten().tolist()]
        assert bool(bad) == bool(says)
        ignored = (mask == 255) | torch.isin(mask, torch.tensor(bad, dtype=dtype))
        assert torch.equal(batch["semantic_mask"] == 255, ignored)
        assert disarm(batch, classes) == ""


class TestUse:
    def test_a_batch_may_be_preprocessed_before_there_are_loaders(self, arguments: Arguments) -> None:
        """As Ultralytics does to calibrate a network that it quantizes."""
        trainer: Any = StableDetectionTrainer(overrides=arguments())
        batch = trainer.preprocess_batch({"img": torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)})
        assert float(batch["img"].max()) == 1.0
        assert not hasattr(trainer, "accumulate")

    def test_a_helper_of_ones_own_may_have_any_name(self, arguments: Arguments) -> None:
        class Own(StableDetectionTrainer):
            asked = 0

            def validate(self) -> Any:
                return self._validate()

            def _validate(self) -> Any:
                Own.asked += 1
                return super().validate()

        Own(overrides=arguments(epochs=1)).train()
        assert Own.asked == 1

    def test_a_trainer_can_be_copied_with_what_it_is_made_of(self, arguments: Arguments) -> None:
        trainer: Any = StableDetectionTrainer(overrides=arguments())
        copied = copy.deepcopy(trainer)
        copied.batch_number = 9
        assert (copied.services.view.batch_number, trainer.services.view.batch_number) == (9, 0)
        assert copied.services.loop._trainer is copied.services.view

    def test_the_documented_call(self, arguments: Arguments) -> None:
        call = arguments(**{k: v for k, v in load_hyp("stable").items() if k != "warmup_epochs"})
        model = YOLO(call.pop("model"))
        model.train(trainer=StableDetectionTrainer, guard={"max_norm": 5.0}, **call)
        trainer: Any = model.trainer
        assert trainer.guard.config.max_norm == 5.0
        saved = yaml.safe_load((trainer.save_dir / "args.yaml").read_text())
        assert saved["guard"]["max_norm"] == 5.0
        assert saved["lr0"] == 0.0005
        assert "guard" not in vars(trainer.args), "Ultralytics' validator refuses keys that it does not know"

    def test_a_preset_lies_under_the_arguments(self, arguments: Arguments) -> None:
        call = arguments(preset="stable", lr0=0.003)
        del call["optimizer"]
        trainer = StableDetectionTrainer(overrides=call)
        assert (trainer.args.lr0, trainer.args.hsv_h, trainer.args.optimizer) == (0.003, 0.01, "SGD")
        assert trainer.plan.overridden["lr0"] == (0.0005, 0.003)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"max_nrom": 5.0}, r"guard has no setting 'max_nrom'\. Did you mean 'max_norm'\?"),
            ({"max_norm": "5"}, r"guard\.max_norm='5' is not allowed"),
            (5.0, r"guard=5\.0 is not allowed\. It must be a dict"),
        ],
        ids=["unknown key", "wrong type", "not a dict"],
    )
    def test_a_wrong_guard_setting_stops_before_a_folder_is_made(
        self, arguments: Arguments, wrong: Any, message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(InvalidCallError, match=message):
            StableDetectionTrainer(overrides=arguments(guard=wrong))
        assert not (tmp_path / "runs").exists()

    def test_a_multi_gpu_worker_gets_the_settings(self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
        """What Ultralytics hands to its workers, as it hands it: pickled class, arguments and callbacks."""
        launched: dict[str, Any] = {}

        def launch(trainer: Any) -> None:
            script = Path(generate_ddp_file(trainer))
            state = script.with_suffix(".pt")
            launched.update(torch_load(state, map_location="cpu"))
            script.unlink()
            state.unlink()

        monkeypatch.setattr(DetectionTrainer, "train", launch)
        parent = StableDetectionTrainer(overrides=arguments(guard={"max_norm": 3.0}, preset="stable"))
        parent.ddp = True
        parent.train()
        worker = launched["trainer"](
            cfg={**DEFAULT_CFG_DICT, "save_dir": ""}, overrides=launched["args"], _callbacks=launched["callbacks"]
        )
        assert type(worker) is StableDetectionTrainer
        assert worker.plan.guard.max_norm == 3.0
        assert worker.plan.preset == "stable"
        assert "guard" not in vars(worker.args)

    def test_a_resumed_run_keeps_its_guard(self, arguments: Arguments) -> None:
        call = arguments(epochs=3, guard={"max_norm": 4.0})

        class Stopped(StableDetectionTrainer):
            def save_model(self) -> Any:
                saved = super().save_model()
                self.stop = True  # as if the time were up
                return saved

            def final_eval(self) -> None:
                """Leave the checkpoint resumable."""

        first = train(Stopped, call)
        resumed = train(StableDetectionTrainer, {"resume": str(first.last), "model": str(first.last)})
        assert resumed.guard.config.max_norm == 4.0
        assert resumed.start_epoch == 1
        assert [r["epoch"] for r in rows(resumed)] == ["1", "2", "3"]
        assert [e["event"] for e in read_events(resumed.save_dir / "guard.jsonl")].count("start") == 2


class TestNothingLeaks:
    def test_checkpoints_load_where_this_package_is_not_installed(self, arguments: Arguments, tmp_path: Path) -> None:
        trainer = train(with_nan(StableDetectionTrainer, {2}), arguments(guard={"max_norm": 5.0}))
        script = (
            "import sys\n"
            "class Absent:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            "        if name.split('.')[0] == 'yolo_stable':\n"
            "            raise ImportError('yolo_stable is not installed here')\n"
            "sys.meta_path.insert(0, Absent())\n"
            "from ultralytics import YOLO\n"
            "from ultralytics.cfg import get_cfg\n"
            "for weights in sys.argv[1:]:\n"
            "    model = YOLO(weights)\n"
            "    get_cfg(overrides=model.ckpt['train_args'])\n"
            "    assert sum(p.numel() for p in model.model.parameters()) > 100_000\n"
            "try:\n"
            "    import yolo_stable\n"
            "except ImportError:\n"
            "    print('loaded without it')\n"
        )
        command = [sys.executable, "-c", script, str(trainer.last), str(trainer.best)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ), check=False)
        assert done.stdout.strip().endswith("loaded without it"), done.stderr

    def test_nothing_hangs_on_the_model(self, healthy: Any) -> None:
        for module in healthy.model.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
            assert not module._backward_hooks
        assert b"yolo_stable" not in pickle.dumps(healthy.ema.ema)

    def test_validation_columns_are_named_after_the_loss_alone(self, healthy: Any) -> None:
        columns = [key for key in rows(healthy)[0] if key.startswith("val/")]
        assert columns == ["val/box_loss", "val/cls_loss", "val/dfl_loss"]


@pytest.mark.usefixtures("without_epilogue")
class TestBeforeTheFirstStep:
    @pytest.mark.parametrize("where", ["parameter", "buffer", "class weight"])
    def test_weights_that_are_not_finite_are_named(self, where: str, arguments: Arguments) -> None:
        class Damaged(StableDetectionTrainer):
            def set_class_weights(self) -> None:
                super().set_class_weights()
                model: Any = self.model
                with torch.no_grad():
                    if where == "parameter":
                        model.model[1].conv.weight[0, 0, 0, 0] = float("nan")
                    elif where == "buffer":
                        model.model[1].bn.running_var[3] = float("inf")
                    else:
                        model.class_weights = torch.tensor([1.0, float("nan")])

        names = {
            "parameter": r"model\.1\.conv\.weight",
            "buffer": r"model\.1\.bn\.running_var",
            "class weight": "class_weights",
        }
        with pytest.raises(UnhealthyStartError, match=rf"not finite before the first step: {names[where]}\."):
            train(Damaged, arguments())

    def test_the_table_says_what_is_on(self, arguments: Arguments, caplog: pytest.LogCaptureFixture) -> None:
        train(StableDetectionTrainer, arguments(epochs=1, preset="stable", guard={"max_norm": None}))
        table = next(r.message for r in caplog.records if r.message.startswith("guard of yolo-stable\n"))
        for said in (
            "off (guard.max_norm=None)",
            "29 layers",
            "every 16 steps, 2 kept and the one of the best fitness",
            "after 20 rejections in a row",
            "float32",
            "stable",
        ):
            assert said in table
        assert "lr0=0.01 (yours; the preset has 0.0005)" in table


@pytest.mark.usefixtures("without_epilogue")
class TestDuring:
    def test_one_line_for_a_rejection_and_columns_for_every_logger(
        self, arguments: Arguments, caplog: pytest.LogCaptureFixture
    ) -> None:
        """TensorBoard, W&B, MLflow, Comet, ClearML, DVC: all of them ask the trainer as this callback does."""
        logged: list[dict[str, float]] = []
        trainer = with_nan(StableDetectionTrainer, {5})(overrides=arguments())
        trainer.add_callback("on_train_epoch_end", lambda t: logged.append(t.label_loss_items(t.tloss, prefix="train")))
        trainer.train()
        lines = [r.getMessage() for r in caplog.records if "rejected:" in r.getMessage()]
        assert len(lines) == 1
        assert "epoch 2/2, batch 2/4: micro-batch rejected: loss nan, box_loss nan" in lines[0]
        assert lines[0].count(".png") == 3
        assert lines[0].endswith("and 1 more")
        assert [entry["guard/rejected"] for entry in logged] == [0, 1]
        assert all(entry["guard/grad_norm"] > 0 for entry in logged)
        assert list(logged[0])[:3] == ["train/box_loss", "train/cls_loss", "train/dfl_loss"]
        assert "train/grad_norm" not in logged[0]

    def test_a_bad_micro_batch_spares_the_others_of_its_window(self, arguments: Arguments) -> None:
        trainer = train(with_nan(StableDetectionTrainer, {1}), arguments(nbs=8, warmup_epochs=0))
        counts = trainer.guard.counts
        assert (counts.rejected_micro_batches, counts.rejected_windows, counts.applied) == (1, 0, 4)

    def test_the_running_loss_is_the_mean_of_what_was_accepted(self, arguments: Arguments) -> None:
        accepted: list[dict[str, float]] = []

        class Listening(with_nan(StableDetectionTrainer, {0, 2})):  # type: ignore[misc]
            def guarded_backward(self, loss: Tensor) -> None:
                super().guarded_backward(loss)
                decision = self.guard.last
                if decision.verdict is GuardVerdict.BACKWARD:
                    accepted.append(dict(decision.items))

        trainer = train(Listening, arguments(epochs=1))
        assert len(accepted) == 2
        for name in ("box_loss", "cls_loss", "dfl_loss"):
            mean = sum(items[name] for items in accepted) / 2
            assert float(rows(trainer)[0][f"train/{name}"]) == pytest.approx(mean, rel=1e-4)

    def test_a_scaler_of_the_users_is_guarded_too(self, arguments: Arguments) -> None:
        """A callback may put a GradScaler in; a rejected batch leaves its scale alone, and the weights survive."""
        trainer = with_nan(StableDetectionTrainer, {1, 6})(overrides=arguments())
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        trainer.add_callback("on_train_start", lambda t: setattr(t, "scaler", scaler))
        trainer.train()
        assert trainer.guard.scaler is scaler
        assert trainer.guard.counts.rejected_micro_batches == 2
        assert scaler.get_scale() == 256.0
        assert scaler.state_dict()["_growth_tracker"] == 6
        assert all(bool(v.isfinite().all()) for v in trainer.model.state_dict().values())

    def test_out_of_memory_in_the_first_epoch_halves_the_batch(self, arguments: Arguments) -> None:
        class Cramped(StableDetectionTrainer):
            failed = 0

            def guarded_backward(self, loss: Tensor) -> None:
                if self.batch_size == 4 and self.batch_number == 2:
                    Cramped.failed += 1
                    raise RuntimeError("CUDA out of memory. (said by a test)")
                super().guarded_backward(loss)

        trainer = train(Cramped, arguments(epochs=1))
        assert Cramped.failed == 1
        assert trainer.batch_size == 2
        assert trainer.guard.counts.applied == 1 + 8 // trainer.accumulate, (
            "one step before, an epoch of 8 batches after"
        )
        assert len(rows(trainer)) == 1
        counters = [v for k, v in trainer.model.state_dict().items() if k.endswith("num_batches_tracked")]
        assert {int(v) for v in counters} == {1 + 8}, "the forward pass that failed has left no trace"

    def test_a_version_that_bypasses_the_gate_is_found_out(self, arguments: Arguments) -> None:
        class Bypassed(StableDetectionTrainer):
            def guarded_backward(self, loss: Tensor) -> None:
                loss.backward()

        with pytest.raises(yolo_stable.YoloStableError, match="4 batches were trained without the guard being asked"):
            train(Bypassed, arguments())

    def test_a_callback_may_put_another_optimizer_in(self, arguments: Arguments) -> None:
        trainer = StableDetectionTrainer(overrides=arguments(epochs=1))
        mine: list[torch.optim.Optimizer] = []

        def exchange(t: Any) -> None:
            mine.append(
                torch.optim.AdamW([{"params": g["params"], "initial_lr": 0.001} for g in t.optimizer.param_groups])
            )
            t.optimizer = mine[0]

        trainer.add_callback("on_train_start", exchange)
        trainer.train()
        assert trainer.guard is not None
        assert trainer.guard.optimizer is mine[0]
        assert len(mine[0].state) > 90, "it has taken the steps"

    def test_a_callback_may_read_the_running_loss_as_in_stock(self, healthy: Any) -> None:
        assert len(healthy.seen) == 4
        assert all(value > 0 for value in healthy.seen)

    def test_a_step_that_nobody_would_call_is_refused(self, arguments: Arguments) -> None:
        class Own(DetectionTrainer):
            def optimizer_step(self) -> None:
                super().optimizer_step()

        class Mixed(GuardedTrainerMixin, Own):
            pass

        with pytest.raises(InvalidCallError, match=r"^Own\.optimizer_step would never be called"):
            Mixed(overrides=arguments())

    def test_a_huge_pixel_that_batchnorm_hides_is_rejected(self, arguments: Arguments) -> None:
        """Loss and gradients stay ordinary; stock ends with ruined statistics, and mAP 0 for hundreds of steps."""

        def with_pixel(base: type) -> type:
            class Faulty(base):  # type: ignore[misc, valid-type]
                fired = 0

                def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
                    batch = super().preprocess_batch(batch)
                    Faulty.fired += 1
                    if Faulty.fired == 4:
                        batch["img"][0, 0, 0, 0] = 1e6
                    return batch

            return Faulty

        guarded = train(with_pixel(StableDetectionTrainer), arguments())
        stock = train(with_pixel(DetectionTrainer), arguments(name="stock"))
        largest = [
            max(float(v.max()) for k, v in t.model.state_dict().items() if "running_var" in k) for t in (guarded, stock)
        ]
        assert guarded.guard.counts.rejected == 1
        assert largest[0] < 100 < 1e5 < largest[1]

    def test_a_damaged_label_is_damaged_each_time_it_is_drawn(self) -> None:
        """A loader that serves the same tensors again must not find them mended."""
        cls, boxes = torch.tensor([[7.0], [1.0]]), torch.tensor([[0.5, 0.5, float("nan"), 0.1]])
        for _ in range(2):
            batch: dict[str, Any] = {"cls": cls, "bboxes": boxes}
            assert disarm(batch, classes=3) == "label class 7 not in 0..2, label box not finite"
            assert batch["cls"].flatten().tolist() == [0.0, 1.0]
            assert bool(batch["bboxes"].isfinite().all())


class TestAfter:
    def test_the_summary_counts_and_names(self, arguments: Arguments) -> None:
        trainer = train(with_nan(StableDetectionTrainer, {1, 7}), arguments())
        summary = json.loads((trainer.save_dir / "summary.json").read_text())
        assert summary["status"] == "done"
        assert summary["counts"] == trainer.guard.counts.to_dict()
        assert [(i["epoch"], i["batch"], len(i["files"])) for i in summary["incidents"]] == [(1, 2, 3), (2, 4, 3)]
        assert summary["checkpoint"] == str(trainer.last)
        events = list(read_events(trainer.save_dir / "guard.jsonl"))
        assert [e["event"] for e in events] == ["start", *["rejection", "incident", "epoch"] * 2, "end"]
        assert {e["cause"] for e in events if e["event"] == "incident"} == {"data"}
        assert {e["schema"] for e in events} == {1}

    @pytest.mark.usefixtures("without_epilogue")
    def test_a_run_in_which_nothing_was_learned_is_not_done(self, arguments: Arguments) -> None:
        trainer = with_nan(StableDetectionTrainer, set(range(4)))(overrides=arguments(epochs=1))
        with pytest.raises(TrainingHaltedError, match="Nothing was learned: of 4 micro-batches 4 were rejected"):
            trainer.train()
        assert json.loads((trainer.save_dir / "summary.json").read_text())["status"] == "halted"

    def test_a_run_of_stock_goes_on_with_the_guard_in_one_table(self, arguments: Arguments) -> None:
        def stopped(base: type) -> type:
            class Stopped(base):  # type: ignore[misc, valid-type]
                def save_model(self) -> Any:
                    saved = super().save_model()
                    self.stop = True
                    return saved

                def final_eval(self) -> None:
                    """Leave the checkpoint resumable."""

            return Stopped

        first = train(stopped(DetectionTrainer), arguments(epochs=3))
        resumed = train(StableDetectionTrainer, {"resume": str(first.last), "model": str(first.last)})
        table = rows(resumed)
        assert [row["epoch"] for row in table] == ["1", "2", "3"]
        assert [row["guard/rejected"] for row in table] == ["", "0", "0"]
        assert all(0 <= float(row["metrics/mAP50(B)"]) <= 1 for row in table)

    def test_a_run_that_cannot_be_saved_halts_and_names_the_good_checkpoint(self, arguments: Arguments) -> None:
        faulty = with_nan(StableDetectionTrainer, set(range(4, 100)))
        trainer = faulty(overrides=arguments(epochs=5, guard={"max_consecutive": 3, "snapshot_every": None}))
        with pytest.raises(
            TrainingHaltedError, match=r"4 rejections in a row, more than guard\.max_consecutive=3"
        ) as halted:
            trainer.train()
        assert f"The good checkpoint is {trainer.last} (epoch 1)." in str(halted.value)
        summary = json.loads((trainer.save_dir / "summary.json").read_text())
        assert (summary["status"], summary["counts"]["rejected_micro_batches"]) == ("halted", 4)
        assert all(bool(v.isfinite().all()) for v in trainer.model.state_dict().values())
        model = torch.load(trainer.last, weights_only=False)["ema"]
        assert all(bool(v.isfinite().all()) for v in model.state_dict().values())

    def test_a_checkpoint_is_never_overwritten_by_one_that_is_not_healthy(self, arguments: Arguments) -> None:
        """Stock would write zeros in the place of the NaN, over the good file."""
        saved: list[Any] = []

        class Poisoned(StableDetectionTrainer):
            def save_model(self) -> Any:
                if self.epoch == 1:
                    ema: Any = self.ema
                    ema.ema.model[1].bn.running_mean[0] = float("nan")
                    saved.append(self.last.read_bytes())
                result = super().save_model()
                if self.epoch == 1:
                    saved.append((result, self.last.read_bytes()))
                return result

            def final_eval(self) -> None:
                """Leave the files as they are."""

        trainer = Poisoned(overrides=arguments(guard={"snapshot_every": None}))  # or it would be put right first
        with pytest.raises(
            yolo_stable.YoloStableError, match=r"could not be written. The good checkpoint is .*last.pt \(epoch 1\)"
        ):
            trainer.train()
        before, (result, after) = saved
        assert result is False
        assert before == after
        kept = next(e for e in read_events(trainer.save_dir / "guard.jsonl") if e["event"] == "checkpoint_kept")
        assert kept["culprits"] == ["EMA model.1.bn.running_mean"]


def test_the_guard_knows_the_model_of_the_loop(healthy: Any) -> None:
    assert isinstance(healthy.guard, StepGuard)
    assert healthy.guard.shadow is not None
    assert healthy.guard.shadow.layers == sum(isinstance(m, torch.nn.BatchNorm2d) for m in healthy.model.modules())
