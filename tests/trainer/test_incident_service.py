"""What is looked into, with what, what becomes of the answer, and that no error of it reaches the training."""

from __future__ import annotations

import contextlib
import errno
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from calls import Calls
from torch import nn
from ultralytics.utils import LOGGER

from yolo_stable.autopsy.advice import Names
from yolo_stable.autopsy.bundle import BundleError
from yolo_stable.autopsy.report import AutopsyReport, Sample
from yolo_stable.guard import Counts, Decision, Escalation, EscalationLevel, GuardVerdict
from yolo_stable.guard.generators import GeneratorStates
from yolo_stable.incidents.folder import IncidentFolder
from yolo_stable.incidents.record import DrawnBatch, ImageNames
from yolo_stable.presets.guard_settings import TrainerConfig
from yolo_stable.provenance.recipe import Provenance, Source
from yolo_stable.trainer import incident_service as service
from yolo_stable.trainer.incident_service import IncidentService
from yolo_stable.trainer.reporter import say

MICRO = Decision(
    verdict=GuardVerdict.REJECT_MICRO_BATCH, reason="loss nan", loss=math.nan, items={"box_loss": 1.0}, culprits=("bn",)
)
WINDOW = Decision(verdict=GuardVerdict.REJECT_WINDOW, reason="gradient norm inf", norm=math.inf)
CPU = torch.device("cpu")


class Bare:
    """The incidents of a trainer that is a stub."""

    def __init__(self, folder: Path, calls: Calls, **settings: Any) -> None:
        self.calls = calls
        self.model: Any = nn.Linear(2, 1)
        snapshot = SimpleNamespace(tensors={"model/weight": torch.ones(1), "ema/weight": torch.zeros(1)})
        self.guard: Any = SimpleNamespace(
            counts=Counts(applied=12),
            scaler=None,
            recovery=SimpleNamespace(ring=SimpleNamespace(newest=snapshot)),
            state=SimpleNamespace(
                live=lambda: {"model/weight": torch.ones(1), "ema/weight": torch.zeros(1)},
                aside=lambda: ({}, {"scale": 1.0}),
            ),
        )
        self.trainer: Any = SimpleNamespace(
            guard=self.guard,
            model=self.model,
            optimizer=SimpleNamespace(param_groups=[{"lr": 0.25}, {"lr": 0.5}]),
            ema=None,
            data={"nc": 4},
            device=CPU,
            amp=False,
            args=SimpleNamespace(amp=True, model="n.pt"),
            plan=SimpleNamespace(trainer=TrainerConfig(**settings)),
            epoch=1,
            batch_number=3,
            validator="validator",
            run_log=SimpleNamespace(
                escalation=calls.to("climb", "epoch 2: rolled back."), incident=calls.to("incident", "what it was")
            ),
        )
        self.window: Any = SimpleNamespace(drawn=[], own_fault=None, keep_batches=calls.to("keep_batches"))
        self.injections: Any = SimpleNamespace(
            over=(), escalated=calls.to("escalated"), just_now=lambda kind: (), has_broken=lambda path: False
        )
        self.service = IncidentService(
            self.trainer,
            window=self.window,
            reporter=SimpleNamespace(  # type: ignore[arg-type]
                tell_rejection=calls.to("tell_rejection"),
                untimed=self.untimed,
                tell_escalation=lambda escalation: say(self.trainer.run_log.escalation(escalation, 2)),
                tell_incident=self.tell_incident,
            ),
            quarantine=SimpleNamespace(blame=calls.to("blame")),  # type: ignore[arg-type]
            injections=self.injections,
            next_steps=SimpleNamespace(names=lambda: Names(data="d.yaml", model="n.pt")),  # type: ignore[arg-type]
        )
        self.folder = folder / "incidents"
        self.handed: list[tuple[str, str, Path | None]] = []
        """What the reporter got of incidents: kind, reason and picture."""

    def tell_incident(self, kind: str, reason: str, line: str, picture: Path | None) -> None:
        LOGGER.warning(line)
        self.handed.append((kind, reason, picture))

    @contextlib.contextmanager
    def untimed(self) -> Iterator[None]:
        self.calls.append(("the clock stands",))
        yield
        self.calls.append(("the clock runs",))

    def keep(self, most: int = 10) -> None:
        """Let incidents be looked into from here on."""
        self.service.keep_in(IncidentFolder(self.folder, most))
        self.calls.clear()

    def draw(self, number: int = 1, fault: str = "") -> DrawnBatch:
        """Keep a micro-batch of the window."""
        made = Provenance((Source(f"{number}.jpg", number, None, "image"),), (), (8, 8))
        batch = {"img": torch.full((1, 1, 1, 1), float(number))}
        names = ImageNames((made,))
        drawn = DrawnBatch(number=number, labels={"cls": torch.ones(1)}, names=names, batch=batch, fault=fault)
        drawn.generators = GeneratorStates(CPU)
        self.window.drawn.append(drawn)
        return drawn

    @property
    def incidents(self) -> list[Any]:
        """What the log was told: kind, report, epoch, folder, and what had been put in."""
        return [call[1:6] for call in self.calls if call[0] == "incident"]


@pytest.fixture
def bare(tmp_path: Path, calls: Calls) -> Bare:
    return Bare(tmp_path, calls)


class Examined:
    """Stands for the autopsy: keeps what it was asked, and gives one answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[Any], Any, dict[str, Any]]] = []
        self.answer: Any = AutopsyReport(cause="data", reproduced=True, next="Look:\nyolo-stable check DATA")

    def __call__(self, cases: list[Any], seen: Any, **how: Any) -> AutopsyReport:
        self.asked.append((cases, seen, how))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture(autouse=True)
def examined(monkeypatch: pytest.MonkeyPatch) -> Examined:
    stub = Examined()
    monkeypatch.setattr(service, "examine", stub)
    return stub


@pytest.fixture(autouse=True)
def bundles(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, dict[str, Any], dict[str, Any]]]:
    """Return what is written in full: the folder, the record, and what belongs to it."""
    written: list[tuple[Path, dict[str, Any], dict[str, Any]]] = []
    monkeypatch.setattr(service, "write_bundle", lambda folder, record, **more: written.append((folder, record, more)))
    monkeypatch.setattr(service, "pictures_of", lambda found, model: {"preview.jpg": b"picture"})
    monkeypatch.setattr(service, "describe_model", lambda model: {"yaml": type(model).__name__})
    return written


class TestWhatTheGuardTells:
    def test_a_rejection_is_told_and_looked_into_while_the_clock_stands(self, bare: Bare, calls: Calls) -> None:
        bare.keep()
        bare.draw()
        bare.service.on_reject(MICRO)
        assert calls.names == ["tell_rejection", "the clock stands", "incident", "blame", "the clock runs"]
        assert calls[0] == ("tell_rejection", MICRO)

    def test_without_a_folder_it_is_told_alone(self, bare: Bare, calls: Calls, examined: Examined) -> None:
        bare.draw()
        bare.service.on_reject(MICRO)
        assert calls.names == ["tell_rejection", "the clock stands", "the clock runs"]
        assert examined.asked == []

    def test_batches_are_kept_from_the_moment_that_there_is_a_folder(self, bare: Bare, calls: Calls) -> None:
        assert bare.service.folder is None
        folder = IncidentFolder(bare.folder, 3)
        bare.service.keep_in(folder)
        assert bare.service.folder is folder
        assert calls == [("keep_batches",)]

    def test_a_climb_is_told_recorded_and_over(self, bare: Bare, calls: Calls, said: list[str], bundles: Any) -> None:
        bare.keep()
        escalation = Escalation(level=EscalationLevel.ROLL_BACK, reason="8 in a row")
        bare.service.on_escalation(escalation)
        assert calls.names == ["climb", "incident", "escalated"]
        assert calls[0] == ("climb", escalation, 2)
        assert said == ["", "epoch 2: rolled back.", "what it was"]
        ((folder, record, more),) = bundles
        assert folder == bare.folder / "0001"
        assert (record["kind"], record["reason"]) == ("roll_back", "8 in a row")
        assert (more["batch"], more["state"], more["plain"], more["extra_files"]) == ({}, {}, {}, {})

    def test_without_a_folder_a_climb_is_told_alone(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        bare.service.on_escalation(Escalation(level=EscalationLevel.HALT, reason="8 in a row"))
        assert calls.names == ["climb"]
        assert said == ["", "epoch 2: rolled back."]

    def test_an_error_in_recording_a_climb_is_a_line(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        bare.keep()
        bare.trainer.run_log.incident = calls.to("incident", ValueError("two\nlines"))
        bare.service.on_escalation(Escalation(level=EscalationLevel.HALT, reason="8 in a row"))
        assert said[-1] == "This could not be written down: ValueError: two lines"


class TestWhatIsLookedInto:
    def test_ten_times_as_many_as_are_kept(self, bare: Bare, examined: Examined, bundles: Any) -> None:
        bare.keep(most=1)
        bare.draw()
        for _ in range(12):
            bare.service.look_into(MICRO)
        assert (len(examined.asked), len(bundles)) == (10, 1)
        assert [folder for _, _, _, folder, _ in bare.incidents] == [bare.folder / "0001", *[None] * 9]
        bare.service.on_escalation(Escalation(level=EscalationLevel.HALT, reason="8 in a row"))
        assert len(bare.incidents) == 10, "escalations count with them"

    @pytest.mark.parametrize(
        ("decision", "enabled", "in_a_row", "looked"),
        [
            (WINDOW, True, 1, 0),
            (WINDOW, True, 3, 0),
            (WINDOW, True, 4, 1),
            (WINDOW, False, 1, 1),
            (WINDOW, None, 1, 1),  # without a scaler
            (MICRO, True, 1, 1),
        ],
    )
    def test_a_loss_scale_that_looks_for_its_place_is_no_incident(
        self, bare: Bare, decision: Decision, enabled: bool | None, in_a_row: int, looked: int
    ) -> None:
        bare.keep()
        bare.draw()
        if enabled is not None:
            bare.guard.scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=enabled)
        bare.guard.counts.consecutive = in_a_row
        bare.service.look_into(decision)
        assert len(bare.incidents) == looked
        assert bare.service.folder is not None
        assert bare.service.folder.counted == looked, "it is not counted either"

    def test_an_error_in_it_is_a_line(self, bare: Bare, calls: Calls, said: list[str], examined: Examined) -> None:
        bare.keep()
        bare.draw()
        examined.answer = ZeroDivisionError("two\nlines")
        bare.service.look_into(MICRO)
        assert said == ["This could not be looked into: ZeroDivisionError: two lines"]
        assert calls == []


class TestARejection:
    def test_of_a_micro_batch_the_newest_batch_is_examined(self, bare: Bare, examined: Examined) -> None:
        bare.keep()
        bare.draw(1)
        drawn = bare.draw(2, fault="class 9 of 4")
        bare.service.look_into(MICRO)
        (([case], seen, how),) = examined.asked
        assert case.model is bare.model
        assert case.batch.keys() == {"img", "cls"}, "with the labels as they were drawn"
        assert float(case.batch["img"]) == 2.0
        assert (seen.kind, seen.reason, seen.fault, seen.scale) == ("micro_batch", "loss nan", "class 9 of 4", 1.0)
        assert how.pop("provenance") == list(drawn.provenance)
        assert how.pop("healthy_state").keys() == {"weight"}, "of the model, not of its average"
        assert how == {"seconds": 60.0, "frugal": True}

    def test_of_a_window_all_of_it_is_and_the_guilty_one_is_kept(
        self, bare: Bare, examined: Examined, bundles: Any
    ) -> None:
        bare.keep()
        bare.draw(1)
        bare.draw(2)
        bare.draw(3, fault="class 9 of 4")  # it was rejected by itself
        examined.answer = AutopsyReport(evidence={"micro_batch": 1})
        bare.guard.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        bare.guard.counts.consecutive = 4
        bare.service.look_into(WINDOW)
        ((cases, seen, how),) = examined.asked
        assert [float(case.batch["img"]) for case in cases] == [1.0, 2.0, 3.0]
        assert [one.files() for one in how["provenance"]] == [("1.jpg",), ("2.jpg",), ("3.jpg",)]
        assert (seen.kind, seen.fault, seen.scale) == ("window", "", 64.0)
        ((_, record, more),) = bundles
        assert float(more["batch"]["img"]) == 2.0
        assert record["loss_scale"] == 64.0

    def test_without_a_guilty_one_the_last_is_kept(self, bare: Bare, bundles: Any) -> None:
        bare.keep()
        bare.draw(1)
        bare.draw(2)
        bare.service.look_into(WINDOW)
        assert float(bundles[0][2]["batch"]["img"]) == 2.0

    def test_its_forward_pass_begins_with_the_generators_of_then(self, bare: Bare, examined: Examined) -> None:
        bare.keep()
        bare.model = bare.trainer.model = Noisy()
        bare.draw(1)
        expected = torch.rand(1)
        bare.service.look_into(MICRO)
        (([case], _, _),) = examined.asked
        torch.rand(100)
        assert torch.equal(case.call()[0], expected.sum())

    def test_a_rank_examines_what_it_found_in_its_own_batch(self, bare: Bare, examined: Examined) -> None:
        bare.keep()
        bare.draw(1)
        bare.window.own_fault = MICRO, [bare.draw(2)]
        bare.draw(3)
        bare.service.look_into(WINDOW)
        (([case], seen, _),) = examined.asked
        assert (float(case.batch["img"]), seen.kind) == (2.0, "micro_batch")
        assert bare.incidents[0][0] == "micro_batch"

    def test_without_a_batch_nothing_is_examined_and_the_incident_is_recorded(
        self, bare: Bare, examined: Examined, bundles: Any
    ) -> None:
        bare.keep()
        bare.service.look_into(MICRO)
        assert examined.asked == []
        ((_, record, more),) = bundles
        assert (record["autopsy"]["cause"], more["state"]) == ("undecided", {})

    def test_without_time_it_is_left_for_later(
        self, tmp_path: Path, calls: Calls, examined: Examined, bundles: Any
    ) -> None:
        bare = Bare(tmp_path, calls, autopsy_seconds=None)
        bare.keep()
        bare.draw(1)
        bare.service.look_into(MICRO)
        assert examined.asked == []
        assert bundles[0][2]["state"], "with all that a replay needs"

    def test_the_record_says_where_it_was_and_what_was_seen(self, bare: Bare, bundles: Any) -> None:
        bare.keep()
        bare.draw(1)
        bare.service.look_into(MICRO)
        ((_, record, _),) = bundles
        expected = {
            "kind": "micro_batch",
            "epoch": 2,
            "batch": 3,
            "step": 12,
            "rank": -1,
            "device": "cpu",
            "precision": "float32",
            "loss_scale": 1.0,
            "learning_rates": (0.25, 0.5),
            "args": {"amp": True, "model": "n.pt"},
            "classes": 4,
            "reason": "loss nan",
            "items": {"box_loss": 1.0},
            "norm": None,
            "culprits": ["bn"],
            "files": ["1.jpg"],
            "healed": True,
            "injected": {},
        }
        assert {key: record[key] for key in expected} == expected
        assert math.isnan(record["loss"])

    @pytest.mark.parametrize(("asked", "precision"), [(True, "float16"), ("bf16", "bfloat16")])
    def test_the_record_names_the_precision(self, bare: Bare, bundles: Any, asked: Any, precision: str) -> None:
        bare.keep()
        bare.trainer.amp, bare.trainer.args.amp = True, asked
        bare.service.look_into(MICRO)
        assert bundles[0][1]["precision"] == precision


class TestBlame:
    def test_who_is_guilty_is_handed_to_the_quarantine(self, bare: Bare, calls: Calls, examined: Examined) -> None:
        bare.keep()
        bare.draw()
        bare.service.look_into(MICRO)
        assert calls[-1] == ("blame", examined.answer)

    def test_a_fault_that_was_put_into_the_batch_blames_no_image(self, bare: Bare, calls: Calls) -> None:
        bare.keep()
        bare.draw()
        bare.injections.over = ("pixel nan", "label nan")
        bare.injections.just_now = lambda kind: ("pixel nan",) if kind == "micro_batch" else ()
        bare.service.look_into(MICRO)
        assert "blame" not in calls.names
        assert bare.incidents[0][4] == ("pixel nan",)
        assert bare.incidents[0][1].next == "Nothing: what broke was put in on purpose (pixel nan)."

    def test_one_that_was_put_into_a_file_does(self, bare: Bare, calls: Calls, examined: Examined) -> None:
        bare.keep()
        bare.draw()
        examined.answer = AutopsyReport(cause="data", samples=(Sample("a.jpg", 0), Sample("broken.jpg", 1)))
        bare.injections.just_now = lambda kind: ("file broken.jpg",)
        bare.injections.has_broken = lambda path: path == "broken.jpg"
        bare.service.look_into(MICRO)
        assert calls.names[-1] == "blame"


class TestOnTheDisk:
    def test_the_state_before_the_batch_the_batch_and_the_picture_are_kept(self, bare: Bare, bundles: Any) -> None:
        bare.keep()
        drawn = bare.draw()
        bare.service.look_into(MICRO)
        ((folder, _, more),) = bundles
        assert folder == bare.folder / "0001"
        assert more["batch"] is drawn.batch
        assert "model/weight" in more["state"]
        assert "ema/weight" not in more["state"]
        assert "rng/torch" in more["state"]
        assert (more["plain"]["scale"], more["plain"]["model"]) == (1.0, {"yaml": "Linear"})
        assert more["extra_files"] == {"preview.jpg": b"picture"}

    @pytest.mark.parametrize(
        ("most", "gone", "replayed"),
        [
            (None, [], True),
            (10_000, [], True),
            (8, ["the optimizer's state"], True),
            (7, ["the optimizer's state", "the weights"], False),
            (3, ["the optimizer's state", "the weights", "the batch"], False),
        ],
    )
    def test_what_is_too_large_is_left_out_beginning_with_what_no_replay_needs(
        self, bare: Bare, bundles: Any, examined: Examined, most: int | None, gone: list[str], replayed: bool
    ) -> None:
        """Weights and batch have 4 bytes each."""
        bare.trainer.plan.trainer = TrainerConfig(incident_bytes=most)
        state = {"model/weight": torch.ones(1), "ema/weight": torch.ones(9), "optimizer/weight": torch.ones(2)}
        bare.guard.state.live = lambda: state
        examined.answer = AutopsyReport(next="Again:\nyolo-stable autopsy incidents/0001")
        bare.keep()
        bare.draw()
        bare.service.look_into(MICRO)
        ((_, record, more),) = bundles
        names = {"optimizer/weight", "model/weight"} - {
            "optimizer/weight" if gone else "",
            "model/weight" if gone[1:] else "",
        }
        assert {name for name in more["state"] if not name.startswith("rng/")} == names
        assert bool(more["batch"]) is (len(gone) < 3)
        assert more["extra_files"], "its picture is always there"
        assert record.get("not_kept", []) == gone
        assert ("yolo-stable autopsy" in bare.incidents[0][1].next) is replayed
        (told,) = (call[-1] for call in bare.calls if call[0] == "incident")
        assert told == {"left_out": tuple(gone)}

    def test_the_next_one_has_the_next_number(self, bare: Bare, bundles: Any) -> None:
        bare.keep()
        bare.draw()
        bare.service.look_into(MICRO)
        bare.service.look_into(MICRO)
        assert [folder.name for folder, _, _ in bundles] == ["0001", "0002"]

    def test_the_next_step_has_the_names_of_the_run(self, bare: Bare) -> None:
        bare.keep()
        bare.draw()
        bare.service.look_into(MICRO)
        assert bare.incidents[0][1].next == "Look:\nyolo-stable check d.yaml"

    @pytest.mark.parametrize("kept", [True, False])
    def test_a_replay_is_told_only_where_there_is_a_bundle(self, bare: Bare, examined: Examined, kept: bool) -> None:
        bare.keep(most=1)
        bare.draw()
        examined.answer = AutopsyReport(next="Again:\nyolo-stable autopsy incidents/0001")
        bare.service.look_into(MICRO)
        if not kept:
            bare.service.look_into(MICRO)
        told = bare.incidents[-1][1].next
        first = f"Again:\nyolo-stable autopsy {bare.folder}/0001"
        assert told == first if kept else told.startswith("Its bundle was not kept. To keep more bundles:\n")

    def test_a_network_that_cannot_be_built_anew_is_kept_without(
        self, bare: Bare, said: list[str], bundles: Any, examined: Examined, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuses(model: nn.Module) -> None:
            raise BundleError("Linear has no YAML.")

        monkeypatch.setattr(service, "describe_model", refuses)
        bare.keep()
        bare.draw()
        examined.answer = AutopsyReport(next="Again:\nyolo-stable autopsy incidents/0001")
        bare.service.look_into(MICRO)
        assert said == [
            "Linear has no YAML. Its incidents can be looked into during the run only.",
            "what it was",
        ]
        assert bundles[0][2]["plain"]["model"] is None
        assert bare.incidents[0][1].next == "", "a replay would not work"

    @pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), RuntimeError("CUDA\nout of memory")])
    def test_without_room_what_was_found_is_told_all_the_same(
        self,
        bare: Bare,
        calls: Calls,
        said: list[str],
        examined: Examined,
        error: Exception,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(service, "write_bundle", Calls().to("write", error))
        bare.keep()
        bare.draw()
        examined.answer = AutopsyReport(cause="data", next="Again:\nyolo-stable autopsy incidents/0001")
        bare.injections.over = ("pixel nan",)
        bare.service.look_into(MICRO)
        assert said[0] == f"{bare.folder / '0001'} could not be written: {' '.join(str(error).split())}"
        ((kind, report, epoch, folder, _),) = bare.incidents
        assert (kind, report.cause, epoch, folder) == ("micro_batch", "data", 2, None)
        injected, *rest = report.next.splitlines()
        assert injected.startswith("Faults were put into this run on purpose before (pixel nan)")
        assert rest[0].startswith("Its bundle was not kept.")
        assert calls.names[-1] == "blame"
        assert bare.service.folder is not None
        assert bare.service.folder.next_folder() == bare.folder / "0001", "the number is free again"

    def test_without_recovery_nothing_is_healed(self, bare: Bare, bundles: Any, examined: Examined) -> None:
        bare.keep()
        bare.draw()
        bare.guard.recovery = None
        bare.service.look_into(MICRO)
        assert bundles[0][1]["healed"] is False
        assert examined.asked[0][2]["healthy_state"] is None


class TestSeveralRanks:
    @pytest.fixture(autouse=True)
    def _rank_1(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(service, "RANK", 1)

    @pytest.mark.parametrize(
        ("decision", "reproduced", "recorded"), [(WINDOW, False, 0), (WINDOW, True, 1), (MICRO, False, 1)]
    )
    def test_a_window_is_recorded_where_the_fault_is(
        self, bare: Bare, examined: Examined, decision: Decision, reproduced: bool, recorded: int
    ) -> None:
        bare.keep()
        bare.draw()
        examined.answer = AutopsyReport(reproduced=reproduced)
        bare.service.look_into(decision)
        assert len(bare.incidents) == recorded

    def test_a_model_that_waits_for_the_others_is_not_replayed(
        self, bare: Bare, examined: Examined, bundles: Any
    ) -> None:
        bare.keep()
        bare.draw()
        bare.trainer.model = nn.Sequential(nn.SyncBatchNorm(2))
        bare.service.look_into(MICRO)
        assert examined.asked == []
        assert bundles[0][1]["rank"] == 1

    def test_alone_it_is(self, bare: Bare, examined: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(service, "RANK", -1)
        bare.keep()
        bare.draw()
        bare.trainer.model = nn.Sequential(nn.SyncBatchNorm(2))
        bare.service.look_into(MICRO)
        assert len(examined.asked) == 1

    def test_the_first_one_looks_into_a_validation(self, bare: Bare, searched: Calls) -> None:
        bare.keep()
        bare.service.look_into_validation(["val/box_loss"])
        assert searched == []


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Return how the batches of a validation were gone through; its second one is not finite."""
    asked = Calls()
    drawn = DrawnBatch(
        number=2, labels={}, batch={"img": torch.full((1, 1, 1, 1), 2.0)}, generators=GeneratorStates(CPU)
    )
    case = SimpleNamespace(model=nn.Sequential(nn.Linear(3, 1)))
    bad = SimpleNamespace(case=case, drawn=drawn, precision="float16", loss=math.nan, items={"box_loss": math.nan})
    monkeypatch.setattr(service.ValidationBatch, "first_not_finite", asked.to("first_not_finite", bad))
    return asked


class TestAValidation:
    def test_its_first_batch_that_is_not_finite_is_an_incident(
        self, bare: Bare, calls: Calls, examined: Examined, searched: Calls, bundles: Any
    ) -> None:
        bare.keep()
        bare.guard.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        bare.service.look_into_validation(["val/box_loss", "fitness"])
        assert searched == [("first_not_finite", "validator", bare.model, {"classes": 4, "seconds": 60.0})]
        ((cases, seen, how),) = examined.asked
        assert [type(case.model) for case in cases] == [nn.Sequential]
        assert (seen.reason, math.isnan(seen.loss or 0.0)) == ("validation not finite: val/box_loss, fitness", True)
        assert how == {"seconds": 60.0, "frugal": True}
        ((_, record, more),) = bundles
        assert (record["kind"], record["batch"], record["precision"]) == ("validation", 2, "float16")
        assert record["loss_scale"] == 1.0, "a validation has no loss to scale"
        assert more["state"]["model/0.weight"].shape == (1, 3), "of what was validated"
        assert more["plain"]["model"] == {"yaml": "Sequential"}
        assert calls.names == ["incident"], "its images are not blamed"

    def test_the_average_is_what_was_validated(self, bare: Bare, searched: Calls) -> None:
        bare.keep()
        bare.trainer.ema = SimpleNamespace(ema=nn.Linear(2, 1))
        bare.service.look_into_validation(["fitness"])
        assert searched[0][2] is bare.trainer.ema.ema

    def test_only_the_first_one_of_a_run_is_looked_into(self, bare: Bare, searched: Calls) -> None:
        bare.keep()
        bare.service.look_into_validation(["fitness"])
        bare.service.look_into_validation(["fitness"])
        assert len(searched) == 1
        assert bare.service.folder is not None
        assert bare.service.folder.counted == 1

    def test_without_a_folder_or_time_none_is(self, bare: Bare, searched: Calls) -> None:
        bare.service.look_into_validation(["fitness"])
        bare.keep()
        bare.trainer.plan.trainer = TrainerConfig(autopsy_seconds=None)
        bare.service.look_into_validation(["fitness"])
        assert searched == []

    def test_where_no_batch_is_found_there_is_no_incident(
        self, bare: Bare, calls: Calls, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service.ValidationBatch, "first_not_finite", lambda *args, **kwargs: None)
        bare.keep()
        bare.service.look_into_validation(["fitness"])
        assert (calls, said) == ([], [])

    @pytest.mark.parametrize("error", [None, ZeroDivisionError("two\nlines")])
    def test_random_numbers_go_on_as_if_nobody_had_looked(
        self, bare: Bare, searched: Calls, said: list[str], error: Exception | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def draws(*args: Any, **kwargs: Any) -> AutopsyReport:
            torch.rand(10)
            if error is not None:
                raise error
            return AutopsyReport()

        monkeypatch.setattr(service, "examine", draws)
        bare.keep()
        before = torch.get_rng_state()
        bare.service.look_into_validation(["fitness"])
        assert torch.equal(torch.get_rng_state(), before)
        told = (
            ["what it was"]
            if error is None
            else ["The validation could not be looked into: ZeroDivisionError: two lines"]
        )
        assert said == told


class Noisy(nn.Module):
    """Its loss is a random number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any]]:
        return torch.rand(1), {}
