from __future__ import annotations

import torch

from yolo_stable.guard.anchor import STEP, Anchor


def test_it_follows_the_loss_down_and_stays_when_it_rises() -> None:
    anchor, weight = Anchor(), torch.zeros(2)
    live = {"model/weight": weight, "optimizer/0/momentum_buffer": torch.ones(2)}
    anchor.follow(None, 16, live)
    assert anchor.snapshot is None
    for step, baseline in ((32, 2.0), (48, 2.0 - STEP / 2), (64, 1.5), (80, 3.0)):
        weight.fill_(step)
        anchor.follow(baseline, step, live)
    assert anchor.snapshot is not None
    assert anchor.snapshot.step == 64
    assert list(anchor.snapshot.tensors) == ["model/weight"]
    assert anchor.snapshot.tensors["model/weight"].tolist() == [64.0, 64.0]
    anchor.forget()
    assert anchor.snapshot is None
    anchor.follow(3.0, 96, live)
    assert anchor.snapshot is not None, "the data are others now, and so is the lowest loss"
