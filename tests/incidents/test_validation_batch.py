"""The first batch of a validation that is not finite: which it is, and that looking for it leaves everything as it was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from yolo_stable.incidents.validation_batch import ValidationBatch

NAN = float("nan")


class Mean(nn.Module):
    """The loss is the mean of the pixels and a little chance; it counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        self.passes += 1
        return batch["img"].mean() + 0 * torch.rand(()), {"box_loss": batch["img"].mean().nan_to_num(0.0)}


def validator(pictures: list[float], **more: Any) -> Any:
    """Return what is asked of Ultralytics' validator: each picture is of one brightness, and a batch has two."""
    samples = [{"img": torch.full((3, 4, 4), value), "im_file": f"{n}.png"} for n, value in enumerate(pictures)]

    def collate(some: list[dict[str, Any]]) -> dict[str, Any]:
        return {"img": torch.stack([one["img"] for one in some]), "im_file": [one["im_file"] for one in some]}

    loader: Any = DataLoader(samples, batch_size=2, collate_fn=collate)  # type: ignore[arg-type]
    args = SimpleNamespace(quantize=None)
    made = {"dataloader": loader, "args": args, "device": torch.device("cpu"), "preprocess": lambda batch: batch}
    return SimpleNamespace(**{**made, **more})


def first(asked: Any, model: nn.Module, seconds: float = 60.0) -> ValidationBatch | None:
    return ValidationBatch.first_not_finite(asked, model.eval(), classes=1, seconds=seconds)


def test_the_first_of_two_bad_batches_is_given_with_its_numbers_and_files() -> None:
    found = first(validator([0.1, 0.2, 0.3, NAN, NAN, 0.5]), Mean())
    assert found is not None
    assert (found.drawn.number, list(found.drawn.names), found.precision) == (2, ["2.png", "3.png"], "float32")
    assert found.loss != found.loss
    assert found.items == {"box_loss": 0.0}
    assert found.case.path(1) == "3.png"


def test_looking_leaves_buffers_and_generators() -> None:
    model = Mean()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert first(validator([0.1, 0.2, NAN]), model) is not None
    assert torch.equal(torch.rand(2), expected)
    assert model.passes == 0


def test_nothing_is_found_in_a_healthy_one_nor_when_time_is_up_nor_without_a_sampler() -> None:
    assert first(validator([0.1, 0.2, 0.3]), Mean()) is None
    assert first(validator([NAN]), Mean(), seconds=-1.0) is None
    assert first(validator([], dataloader=[{"img": torch.full((1, 3, 4, 4), NAN)}]), Mean()) is None
