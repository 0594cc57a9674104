from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from yolo_stable.guard import Decision, GuardVerdict
from yolo_stable.runlog.epoch_metrics import DISPLAY, EpochMetrics

NAMES = ("box_loss", "cls_loss", "dfl_loss")


def healthy(*losses: float) -> Decision:
    return Decision(verdict=GuardVerdict.BACKWARD, items=dict(zip(NAMES, losses, strict=False)))


def bad(*losses: float) -> Decision:
    return Decision(
        verdict=GuardVerdict.REJECT_MICRO_BATCH, items=dict(zip(NAMES, losses, strict=False)), reason="loss nan"
    )


def applied(norm: float) -> Decision:
    return Decision(verdict=GuardVerdict.APPLY, norm=norm)


def clipped(norm: float) -> Decision:
    return Decision(verdict=GuardVerdict.CLIP, norm=norm)


BAD_WINDOW = Decision(verdict=GuardVerdict.REJECT_WINDOW, norm=math.nan, reason="gradient norm nan")
EMPTY = Decision(verdict=GuardVerdict.EMPTY)


def told(*decisions: Decision, telemetry: EpochMetrics | None = None) -> EpochMetrics:
    telemetry = telemetry or EpochMetrics()
    for decision in decisions:
        telemetry.add(decision)
    return telemetry


def stock_mean(losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Do what ``BaseTrainer._do_train`` of Ultralytics does to ``self.tloss``."""
    tloss: dict[str, Tensor] | None = None
    for i, loss_items in enumerate(losses):
        tloss = loss_items if tloss is None else {k: (tloss[k] * i + v) / (i + 1) for k, v in loss_items.items()}
    assert tloss is not None
    return tloss


@pytest.mark.parametrize("seed", range(5))
def test_the_running_loss_is_that_of_ultralytics_bit_for_bit(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    losses = [
        {name: torch.rand((), generator=generator) * 10.0 ** (k - 1) for k, name in enumerate(NAMES)}
        for _ in range(300)
    ]
    telemetry = EpochMetrics()
    for count, items in enumerate(losses, start=1):
        telemetry.add(healthy(*(value.item() for value in items.values())))
        if count in {1, 2, 3, 77, 300}:
            stock = stock_mean(losses[:count])
            assert telemetry.loss == {name: value.item() for name, value in stock.items()}
            assert all(torch.equal(torch.tensor(telemetry.loss[name]), stock[name]) for name in NAMES)


def test_rejected_batches_do_not_count() -> None:
    telemetry = told(
        healthy(2.0), bad(math.nan), healthy(4.0), bad(math.inf), applied(1.0), bad(math.nan), healthy(9.0)
    )
    assert telemetry.loss == {"box_loss": 5.0}
    assert (telemetry.accepted, telemetry.rejected, telemetry.applied) == (3, 3, 1)


def test_the_batches_of_a_rejected_window_are_taken_out_again() -> None:
    telemetry = told(healthy(2.0), applied(1.0), healthy(4.0), healthy(1e25))
    assert telemetry.loss["box_loss"] > 1e24  # the window is not judged yet
    told(BAD_WINDOW, telemetry=telemetry)
    assert telemetry.loss == {"box_loss": 2.0}
    told(healthy(4.0), EMPTY, healthy(9.0), applied(1.0), BAD_WINDOW, telemetry=telemetry)
    assert telemetry.loss == {"box_loss": 5.0}
    assert (telemetry.accepted, telemetry.rejected, telemetry.applied) == (3, 2, 2)


def test_a_rejected_window_before_any_other_leaves_zeros_under_the_same_names() -> None:
    telemetry = told(healthy(1e25, 1.0, 2.0), BAD_WINDOW)
    assert telemetry.progress() == {"box_loss": 0.0, "cls_loss": 0.0, "dfl_loss": 0.0, "grad_norm": 0.0, "rejected": 1}
    told(healthy(3.0, 4.0, 5.0), telemetry=telemetry)
    assert list(telemetry.loss.values()) == [3.0, 4.0, 5.0]


def test_a_window_that_reaches_into_the_next_epoch_is_taken_out_of_that_one() -> None:
    telemetry = told(healthy(2.0), applied(1.0), healthy(100.0))
    telemetry.begin()
    told(healthy(200.0), BAD_WINDOW, telemetry=telemetry)
    assert (telemetry.accepted, telemetry.loss) == (0, {"box_loss": 51.0})  # the last epoch is written already
    told(healthy(6.0), applied(1.0), telemetry=telemetry)
    assert telemetry.loss == {"box_loss": 6.0}


def test_every_decision_is_counted_once() -> None:
    telemetry = told(healthy(1.0), applied(2.0), bad(math.nan), EMPTY, clipped(14.0), BAD_WINDOW, applied(5.0))
    assert (telemetry.accepted, telemetry.applied, telemetry.clipped, telemetry.rejected) == (1, 3, 1, 2)
    assert telemetry.columns() == {
        "guard/grad_norm": 7.0,
        "guard/grad_norm_max": 14.0,
        "guard/clip_share": 0.33333,
        "guard/rejected": 2,
    }
    assert telemetry.progress() == {"box_loss": 1.0, "grad_norm": 5.0, "rejected": 2}


def test_the_progress_bar_has_the_items_then_the_columns() -> None:
    telemetry = told(healthy(1.0, 2.0, 3.0), applied(4.0))
    assert tuple(telemetry.progress()) == (*NAMES, *DISPLAY)
    assert list(telemetry.progress().values()) == [1.0, 2.0, 3.0, 4.0, 0]


def test_before_anything_happened_there_are_zeros() -> None:
    assert EpochMetrics().progress() == {"grad_norm": 0.0, "rejected": 0}
    assert set(EpochMetrics().columns().values()) == {0.0}


def test_nothing_healthy_yet_is_shown_as_zero_and_never_as_nan() -> None:
    telemetry = told(bad(math.nan, math.inf, 1.0), EMPTY)
    assert telemetry.progress() == {"box_loss": 0.0, "cls_loss": 0.0, "dfl_loss": 0.0, "grad_norm": 0.0, "rejected": 1}
    told(healthy(3.0, 4.0, 5.0), telemetry=telemetry)
    assert list(telemetry.loss.values()) == [3.0, 4.0, 5.0]  # the zeros were no batch


def test_an_epoch_in_which_nothing_was_accepted_repeats_the_last_known_values() -> None:
    telemetry = told(healthy(2.0), applied(3.0), healthy(4.0), clipped(20.0))
    assert telemetry.norm_mean == 11.5
    telemetry.begin()
    assert telemetry.loss == {"box_loss": 3.0}
    told(bad(math.nan), EMPTY, BAD_WINDOW, telemetry=telemetry)
    assert telemetry.loss == {"box_loss": 3.0}
    assert telemetry.norm_mean == 20.0
    assert telemetry.columns() == {
        "guard/grad_norm": 20.0,
        "guard/grad_norm_max": 0.0,
        "guard/clip_share": 0.0,
        "guard/rejected": 2,
    }


def test_a_new_epoch_begins_its_mean_with_its_first_accepted_batch() -> None:
    telemetry = told(healthy(100.0), healthy(200.0), applied(1.0), bad(math.nan))
    telemetry.begin()
    assert (telemetry.accepted, telemetry.applied, telemetry.clipped, telemetry.rejected) == (0, 0, 0, 0)
    assert telemetry.loss == {"box_loss": 150.0}
    told(bad(math.nan), healthy(4.0), telemetry=telemetry)
    assert telemetry.loss == {"box_loss": 4.0}
    told(healthy(8.0), applied(6.0), telemetry=telemetry)
    assert telemetry.loss == {"box_loss": 6.0}
    assert (telemetry.norm_mean, telemetry.norm_max) == (6.0, 6.0)


@pytest.mark.parametrize(
    "decisions", [[], [bad(math.nan)], [BAD_WINDOW], [EMPTY], [healthy(1.0), applied(1.0)]], ids=len
)
def test_no_column_is_ever_not_finite(decisions: list[Decision]) -> None:
    telemetry = told(*decisions)
    values: list[Any] = [*telemetry.columns().values(), *telemetry.progress().values(), telemetry.norm_mean]
    assert all(math.isfinite(value) for value in values)
