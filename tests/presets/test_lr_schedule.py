from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from yolo_stable.errors import InvalidCallError
from yolo_stable.presets.lr_schedule import Schedule, schedule_warnings
from yolo_stable.presets.presets import load_hyp
from yolo_stable.presets.ultralytics_settings import default_hyp
from yolo_stable.trainer.reporter import LONGEST_WARM_UP


def _ultralytics_rates(
    epochs: int, nb: int, warmup_epochs: float, cos_lr: bool, lr0: float = 0.02, lrf: float = 0.1
) -> list[float]:
    """Run Ultralytics' scheduler and warm-up length; the loop and np.interp are those of its ``_do_train``."""
    from ultralytics.engine.trainer import BaseTrainer

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr0)
    trainer: Any = SimpleNamespace(
        args=SimpleNamespace(lrf=lrf, cos_lr=cos_lr, warmup_epochs=warmup_epochs), epochs=epochs, optimizer=optimizer
    )
    BaseTrainer._setup_scheduler(trainer)
    nw = BaseTrainer._get_warmup_iterations(trainer, nb)
    trainer.scheduler.last_epoch = -1
    rates = []
    for epoch in range(epochs):
        optimizer.step()  # without gradients: it only tells the scheduler that the order is right
        trainer.scheduler.step()
        for i in range(nb):
            ni = i + nb * epoch
            for group in optimizer.param_groups:
                if nw and ni <= nw:
                    group["lr"] = float(np.interp(ni, [0, nw], [0.0, group["initial_lr"] * trainer.lf(epoch)]))
                rates.append(group["lr"])
    return rates


@pytest.mark.parametrize("cos_lr", [False, True])
@pytest.mark.parametrize(
    ("epochs", "nb", "warmup_epochs"), [(8, 7, 3.0), (5, 3, 2.5), (4, 6, 10), (1, 9, 3.0), (3, 1, 0), (6, 5, 0.05)]
)
def test_every_rate_and_their_sum_are_those_of_ultralytics(
    epochs: int,
    nb: int,
    warmup_epochs: float,
    cos_lr: bool,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "ultralytics" not in sys.modules:  # it writes its settings when it is imported
        monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path_factory.mktemp("ultralytics")))
    real = _ultralytics_rates(epochs, nb, warmup_epochs, cos_lr)
    schedule = Schedule(lr0=0.02, lrf=0.1, warmup_epochs=warmup_epochs, epochs=epochs, nb=nb, cos_lr=cos_lr)
    assert [schedule.rate(step) for step in range(schedule.total_steps)] == pytest.approx(real, rel=1e-9)
    assert schedule.summed_lr == pytest.approx(sum(real), rel=1e-9)


@pytest.mark.parametrize(
    ("optimizer", "warmup_epochs", "cos_lr", "nbs"),
    [("SGD", 0.0, False, 4), ("MuSGD", 0.5, True, 8), ("AdamW", 3.0, False, 16)],
)
def test_the_rates_are_those_of_the_installed_loop(
    optimizer: str, warmup_epochs: float, cos_lr: bool, nbs: int, arguments: Callable[..., dict[str, Any]]
) -> None:
    """Of each batch of a real training, biases and the groups that MuSGD trains faster included; and when it warms up."""
    from yolo_stable import StableDetectionTrainer

    rates: list[list[float]] = []
    warm: list[bool] = []

    class Watched(StableDetectionTrainer):
        def guarded_backward(self, loss: torch.Tensor) -> None:
            assert self.optimizer is not None
            rates.append([float(group["lr"]) for group in self.optimizer.param_groups])
            warm.append(self.services.view.is_warming_up(LONGEST_WARM_UP))
            super().guarded_backward(loss)

    how = {"optimizer": optimizer, "warmup_epochs": warmup_epochs, "cos_lr": cos_lr, "nbs": nbs, "epochs": 3}
    trainer: Any = Watched(
        overrides=arguments(**how, val=False, save=False, warmup_bias_lr=0.1, guard={"report": False})
    )
    trainer.train()
    groups = trainer.optimizer.param_groups
    batches = len(trainer.train_loader)
    assert len(rates) == 3 * batches
    factor = float(trainer.args.lrf)
    for number, group in enumerate(groups):
        schedule = Schedule(group["initial_lr"], factor, warmup_epochs, epochs=3, nb=batches, cos_lr=cos_lr)
        last, start = schedule.warmup_steps, 0.1 if group["param_group"] == "bias" else 0.0
        rest = [start * max(0.0, 1 - step / last) if last else 0.0 for step in range(schedule.total_steps)]
        expected = [schedule.rate(step) + more for step, more in enumerate(rest)]
        assert [rate[number] for rate in rates] == pytest.approx(expected, rel=1e-9)
    ramp = round(min(warmup_epochs, 2) * batches)  # the last epoch is never warm-up
    assert warm == [ramp > 0 and step <= ramp for step in range(3 * batches)]


def test_a_flat_schedule_sums_to_rate_times_steps() -> None:
    assert Schedule(lr0=0.01, lrf=1.0, warmup_epochs=0, epochs=10, nb=100).summed_lr == pytest.approx(10.0)


def test_a_straight_warm_up_sums_to_half_its_steps() -> None:
    schedule = Schedule(lr0=1.0, lrf=1.0, warmup_epochs=2, epochs=4, nb=10)
    assert schedule.warmup_steps == 20
    assert schedule.warmup_share == 0.5
    assert schedule.summed_lr == pytest.approx(9.5 + 20)  # 0/20 + 1/20 + ... + 19/20, then 20 full steps


def test_a_straight_decay_without_a_floor_is_known_by_hand() -> None:
    schedule = Schedule(lr0=1.0, lrf=0.0, warmup_epochs=0, epochs=4, nb=2)
    assert [schedule.factor(epoch) for epoch in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert schedule.summed_lr == pytest.approx(5.0)


def test_a_cosine_passes_its_middle_at_half_time() -> None:
    schedule = Schedule(lr0=1.0, lrf=0.0, warmup_epochs=0, epochs=4, nb=1, cos_lr=True)
    assert schedule.factor(2) == pytest.approx(0.5)


def test_the_last_epoch_is_never_warm_up() -> None:
    assert Schedule(lr0=1.0, lrf=1.0, warmup_epochs=10, epochs=5, nb=8).warmup_steps == 32
    assert Schedule(lr0=1.0, lrf=1.0, warmup_epochs=10, epochs=1, nb=8).warmup_steps == 0


@pytest.mark.parametrize(("epochs", "nb"), [(0, 5), (5, 0)])
def test_a_schedule_without_steps_is_refused(epochs: int, nb: int) -> None:
    with pytest.raises(InvalidCallError, match=f"epochs={epochs} and nb={nb}"):
        Schedule(lr0=1.0, lrf=1.0, warmup_epochs=0, epochs=epochs, nb=nb)


def _warnings(nb: int = 50, **settings: Any) -> list[str]:
    return schedule_warnings(settings, nb, default_hyp())


def test_ultralytics_own_values_are_not_warned_about() -> None:
    assert _warnings(optimizer="SGD", epochs=100) == []
    assert _warnings(optimizer="SGD", epochs=9) == []  # exactly a third


def test_a_long_warm_up_is_one_line_with_figures_and_the_way_out() -> None:
    assert _warnings(optimizer="SGD", epochs=20, warmup_epochs=10) == [
        "The warm-up takes 500 of 1000 steps (50%), over a third (warmup_epochs=10, epochs=20): "
        "set epochs=30 or more, or warmup_epochs=6.66 or less."
    ]


@pytest.mark.parametrize(
    ("epochs", "nb", "warmup_epochs"), [(20, 50, 10.0), (2, 1, 3.0), (2, 7, 3.0), (8, 3, 3.0), (5, 13, 4.4)]
)
def test_both_ways_out_of_a_long_warm_up_are_ways_out(epochs: int, nb: int, warmup_epochs: float) -> None:
    (line,) = _warnings(nb, optimizer="SGD", epochs=epochs, warmup_epochs=warmup_epochs)
    enough = int(line.split("set epochs=")[1].split()[0])
    allowed = float(line.split("or warmup_epochs=")[1].split()[0])
    assert _warnings(nb, optimizer="SGD", epochs=enough, warmup_epochs=warmup_epochs) == []
    assert _warnings(nb, optimizer="SGD", epochs=epochs, warmup_epochs=allowed) == []


def test_a_starving_rate_is_one_line_with_figures_and_the_way_out() -> None:
    (line,) = _warnings(optimizer="SGD", epochs=10, lr0=0.00025, warmup_epochs=0, lrf=1.0)
    usual = Schedule(lr0=0.01, lrf=0.01, warmup_epochs=3, epochs=10, nb=50).summed_lr
    assert line == (
        f"The summed learning rate is 0.125 (lr0=0.00025, epochs=10), {0.125 / usual:.1%} of the {usual:.3g} of "
        "Ultralytics' defaults (lr0=0.01): enough to fine-tune, but too little to train from scratch. "
        "For that, train longer, or set lr0=0.01."
    )


def test_exactly_a_tenth_is_not_under_a_tenth() -> None:
    assert _warnings(optimizer="SGD", epochs=100, lr0=0.001) == []
    assert len(_warnings(optimizer="SGD", epochs=100, lr0=0.00099)) == 1


@pytest.mark.parametrize("optimizer", ["AdamW", "adam", "NAdam", "RAdam", "Adamax", "RMSprop"])
def test_adam_is_compared_with_the_rate_that_ultralytics_names_for_it(optimizer: str) -> None:
    assert _warnings(optimizer=optimizer, lr0=0.0003) == []
    (line,) = _warnings(optimizer=optimizer, lr0=0.00005)
    assert "set lr0=0.001." in line


def test_auto_has_no_rate_to_compare_but_a_warm_up() -> None:
    assert _warnings(optimizer="auto", lr0=0.00001) == []
    assert len(_warnings(optimizer="auto", epochs=5)) == 1


def test_a_run_limited_by_time_has_no_known_schedule() -> None:
    assert _warnings(optimizer="SGD", lr0=0.00001, epochs=2, time=0.5) == []


@pytest.mark.parametrize(
    ("name", "count"),
    [("stable", 1), ("cautious", 1), ("recovery", 1), ("adamw", 0), ("finetune", 0), ("guarded", 0)],
)
def test_over_100_epochs_only_the_conservative_presets_are_slow(name: str, count: int) -> None:
    lines = schedule_warnings(load_hyp(name), 50, default_hyp())
    assert len(lines) == count
    assert all("train longer, or set lr0=0.01" in line for line in lines)


def test_the_settings_are_not_changed_by_asking() -> None:
    settings = load_hyp("stable")
    before = dict(settings)
    schedule_warnings(settings, 5, default_hyp())
    assert settings == before
