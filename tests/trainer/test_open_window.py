"""What is kept of the micro-batches of a window, for how long, and what is wrong with the newest one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from calls import Calls
from torch import Tensor, nn
from ultralytics.utils.tal import TaskAlignedAssigner

from yolo_stable.guard import Decision, GuardVerdict
from yolo_stable.incidents.record import DrawnBatch
from yolo_stable.provenance.recipe import Provenance, Source
from yolo_stable.provenance.transforms import KEY
from yolo_stable.trainer import open_window
from yolo_stable.trainer.open_window import OpenWindow

NAN = Decision(verdict=GuardVerdict.REJECT_MICRO_BATCH, reason="loss nan")


class Bare:
    """A window of a trainer that is a stub."""

    def __init__(self, calls: Calls) -> None:
        self.losses: Any = SimpleNamespace(fault="", **calls.all_to("watch", "leave"))
        self.trainer: Any = SimpleNamespace(
            device=torch.device("cpu"), batch_number=3, amp=False, args=SimpleNamespace(amp=True), model=None
        )
        self.window = OpenWindow(self.trainer, self.losses)

    def remember(self, fault: str = "", numbers: int = 15) -> tuple[DrawnBatch, dict[str, Any]]:
        """Give it a batch of four bytes for each number."""
        drawn, batch = DrawnBatch(number=1, labels={}, fault=fault), {"img": torch.rand(numbers), "im_file": ["a.jpg"]}
        self.window.remember(drawn, batch)
        return drawn, batch


@pytest.fixture
def bare(calls: Calls) -> Bare:
    return Bare(calls)


class TestDraw:
    def test_labels_and_names_are_taken_down_as_they_were_drawn(self, bare: Bare) -> None:
        batch = {
            "img": torch.rand(1, 3, 8, 8),
            "cls": torch.tensor([[2.0]]),
            "bboxes": torch.rand(1, 4),
            "keypoints": torch.rand(1, 2),
            "im_file": ("a.jpg",),
        }
        drawn = bare.window.draw(batch)
        assert drawn.number == 3
        assert drawn.labels.keys() == {"cls", "bboxes"}
        assert drawn.labels["cls"] is batch["cls"]
        assert list(drawn.names) == ["a.jpg"]
        assert (drawn.batch, drawn.fault, drawn.generators) == ({}, "", None)

    def test_a_classification_has_no_boxes_and_may_name_no_file(self, bare: Bare) -> None:
        drawn = bare.window.draw({"img": torch.rand(1), "cls": torch.tensor([1]), "bboxes": None})
        assert drawn.labels.keys() == {"cls"}
        assert list(drawn.names) == []

    def test_provenance_is_taken_out_of_the_batch(self, bare: Bare) -> None:
        made = Provenance((Source("b.jpg", 7, None, "image"),), (), (8, 8))
        batch = {"img": torch.rand(1, 3, 8, 8), KEY: [made], "im_file": ("a.jpg",)}
        drawn = bare.window.draw(batch)
        assert KEY not in batch
        assert drawn.provenance == (made,)
        assert list(drawn.names) == ["b.jpg"]

    def test_the_batch_before_is_let_go_first(self, bare: Bare) -> None:
        bare.remember()
        assert bare.window.newest
        bare.window.draw({})
        assert bare.window.newest == {}


class TestRemember:
    def test_the_loss_is_watched_and_the_batch_is_the_newest(self, bare: Bare, calls: Calls) -> None:
        _, batch = bare.remember()
        assert calls == [("watch",)]
        assert bare.window.newest is batch

    def test_earlier_batches_are_kept_only_for_an_autopsy(self, bare: Bare) -> None:
        drawn, _ = bare.remember()
        assert bare.window.drawn == []
        assert (drawn.batch, drawn.generators) == ({}, None)
        bare.window.keep_batches()
        drawn, batch = bare.remember()
        assert bare.window.drawn == [drawn]
        assert drawn.batch is batch

    def test_its_generators_are_those_of_the_moment(self, bare: Bare) -> None:
        bare.window.keep_batches()
        drawn, _ = bare.remember()
        assert drawn.generators is not None
        expected = torch.rand(3)
        torch.rand(100)
        drawn.generators.restore()
        assert torch.equal(torch.rand(3), expected)

    def test_the_oldest_go_when_memory_is_short_and_the_newest_stays(
        self, bare: Bare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(open_window, "MEMORY", 120)
        bare.window.keep_batches()
        kept = [bare.remember(numbers=15)[0] for _ in range(3)]  # 60 bytes each
        assert bare.window.drawn == kept, "two of them take 120 bytes, and the third one is there anyway"
        kept.append(bare.remember(numbers=15)[0])
        assert bare.window.drawn == kept[1:]
        huge, _ = bare.remember(numbers=1000)
        assert bare.window.drawn == [*kept[2:], huge]
        next_one, _ = bare.remember()
        assert bare.window.drawn == [next_one]

    def test_256_mib_are_kept(self) -> None:
        assert open_window.MEMORY == 268_435_456

    @pytest.mark.parametrize(
        ("label", "loss", "fault"),
        [
            ("", "", ""),
            ("class 9 of 4", "", "class 9 of 4"),
            ("", "raised IndexError", "raised IndexError"),
            ("class 9 of 4", "raised IndexError", "class 9 of 4, raised IndexError"),
        ],
    )
    def test_what_is_wrong_with_it(self, bare: Bare, label: str, loss: str, fault: str) -> None:
        bare.remember(fault=label)
        bare.losses.fault = loss
        assert bare.window.fault == fault

    def test_the_next_one_has_no_fault_of_the_one_before(self, bare: Bare) -> None:
        bare.remember(fault="class 9 of 4")
        bare.remember()
        assert bare.window.fault == ""


class TestWindow:
    def test_it_is_open_from_the_first_judgement_to_the_step(self, bare: Bare) -> None:
        seen = [bare.window.is_open]
        bare.window.open()
        seen.append(bare.window.is_open)
        bare.window.close()
        assert [*seen, bare.window.is_open] == [False, True, False]

    def test_nothing_of_a_closed_one_is_kept(self, bare: Bare, calls: Calls) -> None:
        bare.window.keep_batches()
        bare.remember()
        bare.window.blame_newest(NAN)
        bare.window.forget()
        assert (bare.window.drawn, bare.window.newest, bare.window.own_fault) == ([], {}, None)
        assert calls == [("watch",), ("leave",)]
        drawn, _ = bare.remember()
        assert bare.window.drawn == [drawn], "further ones are kept"

    def test_a_rank_remembers_what_it_found_in_its_newest_batch(self, bare: Bare) -> None:
        bare.window.keep_batches()
        bare.remember()
        newest, _ = bare.remember()
        bare.window.blame_newest(NAN)
        assert bare.window.own_fault == (NAN, [newest])

    def test_also_where_no_batch_is_kept(self, bare: Bare) -> None:
        bare.remember()
        bare.window.blame_newest(NAN)
        assert bare.window.own_fault == (NAN, [])


class TestTheNewestBatchAgain:
    def test_whether_its_images_are_of_one_scale(self, bare: Bare) -> None:
        assert not bare.window.is_of_one_scale(), "there is none"
        bare.window.newest = {"img": torch.ones(2, 3, 8, 8)}
        assert bare.window.is_of_one_scale()
        bare.window.newest["img"][1] = 1e9
        assert not bare.window.is_of_one_scale()

    def test_its_loss_is_that_of_the_weights_of_now(self, bare: Bare) -> None:
        network = Detector()
        bare.trainer.model = network
        bare.window.newest = {"img": torch.tensor([1.0, 2.0, 3.0])}
        with torch.no_grad():
            network.weight.fill_(10.0)
            loss, share = bare.window.loss_again()
        assert float(loss) == 60.0
        assert float(share) == 0.25
        assert network.computed_in == [None]

    @pytest.mark.parametrize(("asked", "dtype"), [("bf16", torch.bfloat16), (True, torch.float16)])
    def test_it_is_computed_in_the_precision_of_the_loop(self, bare: Bare, asked: Any, dtype: torch.dtype) -> None:
        bare.trainer.amp, bare.trainer.args.amp = True, asked
        bare.trainer.model = network = Detector()
        bare.window.newest = {"img": torch.ones(2)}
        bare.window.loss_again()
        assert network.computed_in == [dtype]

    def test_no_random_number_is_put_back_for_it(self, bare: Bare) -> None:
        bare.window.keep_batches()
        bare.trainer.model = Detector()
        _, batch = bare.remember()
        torch.rand(5)
        before = torch.get_rng_state()
        bare.window.loss_again()
        assert torch.equal(torch.get_rng_state(), before)
        assert bare.window.newest is batch


class Assigner(TaskAlignedAssigner):
    """Finds a quarter of an object, whatever it is given."""

    def forward(self, *args: Any, **extra: Any) -> tuple[Tensor, ...]:
        return torch.zeros(1), torch.zeros(1), torch.tensor([0.25])


class Detector(nn.Module):
    """Its loss is a weight times the numbers of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.assigner = Assigner()
        self.computed_in: list[Any] = []

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        autocast = torch.is_autocast_enabled("cpu")
        self.computed_in.append(torch.get_autocast_dtype("cpu") if autocast else None)
        self.assigner(*[None] * 5, torch.tensor([True]))
        return self.weight * batch["img"], {}
