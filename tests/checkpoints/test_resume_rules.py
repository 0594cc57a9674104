"""What a resumed run takes, refuses and puts back, decided without a training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from yolo_stable.checkpoints import resume as resuming
from yolo_stable.checkpoints.resume import ResumeSession, require_same_network
from yolo_stable.checkpoints.state_file import NAME, SavedState
from yolo_stable.errors import InvalidCallError

OPTIMIZER = {"param_groups": [{"params": [0, 1]}]}


class Bare:
    """A session of a trainer that is a stub, and what Ultralytics would have been called for."""

    def __init__(self) -> None:
        self.called: list[tuple[Any, ...]] = []
        model = nn.Linear(2, 3)
        self.trainer: Any = SimpleNamespace(
            name="Bare",
            args=SimpleNamespace(task="detect", resume=False, save_dir=None, data="a.yaml", model="last.pt", lr0=0.01),
            plan=SimpleNamespace(changed={}),
            resume=True,
            epochs=10,
            start_epoch=3,
            csv=Path("results.csv"),
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            scheduler=SimpleNamespace(last_epoch=7),
            guard=None,
            ema=object(),
        )
        self.session = ResumeSession(self.trainer, str)

    def check(self, overrides: dict[str, Any]) -> dict[str, Any]:
        return self.session.check(overrides, lambda given: self.called.append(("check_resume", given)))

    def load(self, ckpt: Any) -> None:
        self.session.load(
            ckpt,
            lambda given: self.called.append(("resume_training", given)),
            lambda given: self.called.append(("load", given)),
        )

    def load_state(self, ckpt: Any) -> None:
        self.session.load_state(ckpt, lambda given: self.called.append(("load", given)))


@pytest.fixture
def bare() -> Bare:
    return Bare()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(resuming, "LOGGER", SimpleNamespace(warning=lines.append, info=lines.append))
    return lines


def saved(epoch: int = 4, results: str = "row") -> SavedState:
    return SavedState({}, {"loop": {"epoch": epoch, "results": results}, "optimizer": {"class": "SGD"}})


class TestTheCheckpoint:
    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """Return what is found: the path, the content, and what the side file was asked for."""
        found: dict[str, Any] = {"path": Path("runs/7/weights/last.pt"), "content": {"epoch": 4}, "before": None}

        def fitting(path: Path, before_epoch: int) -> SavedState:
            found["before"] = before_epoch
            return saved()

        monkeypatch.setattr(resuming, "checkpoint_to_resume", lambda call: found["path"])
        monkeypatch.setattr(resuming, "load_good", lambda path: found["content"])
        monkeypatch.setattr(resuming, "_fitting_state", fitting)
        monkeypatch.setattr(resuming, "digest", lambda path: "abc")
        return found

    def test_without_one_of_ours_ultralytics_looks_for_it(self, bare: Bare, asked: dict[str, Any]) -> None:
        asked["path"] = None
        bare.check({"epochs": 3})
        assert bare.called == [("check_resume", {"epochs": 3})]

    def test_one_of_another_task_is_refused(self, bare: Bare, asked: dict[str, Any]) -> None:
        asked["content"] = {"train_args": {"task": "pose"}}
        with pytest.raises(InvalidCallError, match=r"was trained for task=pose, and Bare trains task=detect\."):
            bare.check({})
        assert bare.called == []

    @pytest.mark.parametrize(
        "content", [{"train_args": {"task": "detect"}, "epoch": 6}, {"train_args": {}, "epoch": 6}, {}]
    )
    def test_its_side_file_is_asked_for_with_its_last_epoch(
        self, bare: Bare, asked: dict[str, Any], content: dict[str, Any]
    ) -> None:
        asked["content"] = content
        bare.check({})
        assert asked["before"] == content.get("epoch", -1)
        assert bare.session.digest == "abc"
        assert bare.trainer.args.save_dir == str(Path("runs/7"))

    def test_arguments_of_the_call_win_and_are_named(self, bare: Bare, asked: dict[str, Any], said: list[str]) -> None:
        asked["content"] = {"train_args": {"data": "other.yaml"}}
        changed = bare.check({"lr0": 0.5, "task": "detect", "save_dir": "elsewhere"})
        assert (bare.trainer.args.lr0, bare.trainer.args.save_dir) == (0.5, "elsewhere")
        assert changed == {"lr0": (0.01, 0.5), "data": ("other.yaml", "a.yaml")}
        assert said == ["the run was begun with other data: other.yaml; it goes on with a.yaml."]

    def test_the_same_data_from_the_working_folder_are_the_same(
        self, bare: Bare, asked: dict[str, Any], said: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.chdir(tmp_path)
        asked["content"] = {"train_args": {"data": str(tmp_path / "a.yaml")}}
        assert (bare.check({}), said) == ({}, [])


class TestGoingOn:
    @pytest.fixture
    def kept(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        monkeypatch.setattr(resuming, "keep_epochs", lambda *told: rows.append(told))
        return rows

    def test_after_whole_epochs_as_stock_does(self, bare: Bare, kept: list[Any]) -> None:
        bare.session._saved = saved(epoch=4)
        bare.load({"epoch": 2, "optimizer": OPTIMIZER})
        assert bare.called == [("resume_training", {"epoch": 4, "optimizer": OPTIMIZER})]
        assert kept == [(bare.trainer.csv, 5, "row")]

    def test_in_the_first_epoch_with_the_weights_of_then(self, bare: Bare, kept: list[Any]) -> None:
        bare.load({"epoch": -1, "optimizer": OPTIMIZER})
        assert [name for name, *_ in bare.called] == ["load"]
        assert kept == [(bare.trainer.csv, 0, "")]

    @pytest.mark.parametrize("ckpt", [{"epoch": 9, "optimizer": OPTIMIZER}, {"epoch": 3, "optimizer": None}])
    def test_a_run_that_is_over_is_refused(self, bare: Bare, kept: list[Any], ckpt: dict[str, Any]) -> None:
        with pytest.raises(InvalidCallError, match="has nothing left to resume"):
            bare.load(ckpt)
        assert (bare.called, kept) == ([], [])

    def test_a_new_run_is_stocks(self, bare: Bare, kept: list[Any]) -> None:
        bare.trainer.resume = False
        bare.load({"epoch": 4})
        assert (bare.called, kept) == ([("resume_training", {"epoch": 4})], [])

    @pytest.mark.parametrize(("rank", "first"), [(-1, True), (0, True), (1, False)])
    def test_only_the_first_rank_writes_and_takes_the_generators(
        self, bare: Bare, kept: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rank: int, first: bool
    ) -> None:
        restored: list[dict[str, Any]] = []
        monkeypatch.setattr(resuming, "RANK", rank)
        monkeypatch.setattr(resuming, "restore_training", lambda *_, **how: restored.append(how))
        bare.load({"epoch": 4, "optimizer": OPTIMIZER})
        assert bool(kept) is first
        bare.session._saved = saved()
        bare.session.restore()
        assert restored == [{"same_optimizer": True, "same_scale": True, "generators": first}]
        assert (bare.session._held, bare.trainer.scheduler.last_epoch) == (2, 2)
        bare.session._args_before, bare.trainer.save_dir, bare.trainer.wdir = "lr0: 1\n", tmp_path, tmp_path
        bare.session.undo()
        assert (tmp_path / "args.yaml").exists() is first
        (tmp_path / NAME).write_bytes(b"")
        bare.session.end()
        assert (tmp_path / NAME).exists() is not first

    def test_what_changed_is_learned_anew_and_wins_over_the_saved_groups(
        self, bare: Bare, monkeypatch: pytest.MonkeyPatch, said: list[str]
    ) -> None:
        def restore(*_: Any, **how: Any) -> None:
            assert (how["same_optimizer"], how["same_scale"]) == (False, False)
            bare.trainer.optimizer.param_groups[0].update(lr=9.0, momentum=9.0)

        monkeypatch.setattr(resuming, "restore_training", restore)
        bare.session._saved = SavedState({}, {"loop": {}, "optimizer": {"class": "AdamW"}})
        bare.trainer.plan.changed = {"lr0": (0.1, 0.2), "imgsz": (64, 96)}
        bare.session.restore()
        assert [bare.trainer.optimizer.param_groups[0][key] for key in ("lr", "momentum")] == [0.1, 9.0]
        assert said == ["how large loss and gradients usually are is learned anew: changed imgsz."]

    def test_the_guard_looks_at_the_average_that_stock_has_made(self, bare: Bare) -> None:
        bare.trainer.guard = SimpleNamespace(state=SimpleNamespace(ema=None))
        bare.load_state({"optimizer": OPTIMIZER})
        assert bare.trainer.guard.state.ema is bare.trainer.ema

    @pytest.mark.parametrize(
        ("optimizer", "groups", "of_this", "with_more"),
        [
            ("SGD", [2], True, True),
            ("auto", [2], True, True),
            ("AdamW", [2], False, False),
            ("SGD", [3], False, False),
            ("SGD", [2, 1], False, True),
            ("AdamW", [2, 1], False, False),
        ],
    )
    def test_the_state_of_another_optimizer_is_not_loaded(
        self, bare: Bare, said: list[str], optimizer: str, groups: list[int], of_this: bool, with_more: bool
    ) -> None:
        state = {"param_groups": [{"params": list(range(count))} for count in groups]}
        ckpt = {"optimizer": state, "train_args": {"optimizer": optimizer}}
        assert bare.session._is_of_this_optimizer(ckpt) is of_this
        assert bare.session._is_of_this_optimizer(ckpt, with_more=True) is with_more
        bare.session._saved = saved()
        bare.load_state(ckpt)
        assert bare.called == [("load", {**ckpt, "optimizer": state if of_this else None})]
        assert bare.session._same_optimizer is (of_this or with_more)
        assert bool(said) is not (of_this or with_more)
        assert bare.session._is_of_this_optimizer({"optimizer": None})


class TestNetworks:
    def network(self, width: int, classes: int) -> nn.Module:
        made: Any = nn.Linear(2, width)
        made.nc = classes
        return made

    def test_one_of_the_same_parameters_is_gone_on_with(self) -> None:
        require_same_network(self.network(3, 80), {"ema": self.network(3, 2)}, "last.pt", "a.yaml", 4)
        require_same_network(self.network(3, 80), {}, "last.pt", "a.yaml", 4)

    @pytest.mark.parametrize(
        ("classes", "says"),
        [
            (4, r"last\.pt was trained on 2 classes, but a\.yaml has 4\."),
            (2, r"holds another network .* the shape of bias is \(5,\) there and \(3,\) here"),
            (None, "holds another network"),
        ],
    )
    def test_another_one_is_refused_and_it_is_said_why(self, classes: int | None, says: str) -> None:
        with pytest.raises(InvalidCallError, match=says):
            require_same_network(self.network(3, 4), {"model": self.network(5, 2)}, "last.pt", "a.yaml", classes)


class TestTheSideFile:
    def fits(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        epoch: int,
        sha: str,
        before: str,
        damaged: bool = False,
    ) -> bool:
        """Return whether the side file of epoch 4 is taken for a checkpoint whose digest is ``now``."""
        state = SavedState({}, {"loop": {"epoch": 4}, "checkpoint": {"sha256": sha, "before": before}})

        def read(path: Path) -> SavedState:
            if damaged:
                raise InvalidCallError("it is damaged")
            return state

        monkeypatch.setattr(resuming, "digest", lambda path: "now")
        monkeypatch.setattr(resuming, "read", read)
        (folder / NAME).write_bytes(b"")
        found = resuming._fitting_state(folder / name, epoch)
        assert found in (None, state)
        return found is state

    @pytest.mark.parametrize("name", ["last.pt", "last_good.pt", "best.pt"])
    def test_the_one_that_was_written_with_it_is_taken(self, name: str, tmp_path: Path, monkeypatch: Any) -> None:
        assert resuming._fitting_state(tmp_path / name, 4) is None, "there is none"
        assert self.fits(tmp_path, monkeypatch, name, 4, "now", "then")

    def test_one_that_a_crash_has_left_without_its_checkpoint_is_taken(
        self, tmp_path: Path, monkeypatch: Any, said: list[str]
    ) -> None:
        assert self.fits(tmp_path, monkeypatch, "last.pt", 3, "next", "now")
        assert not self.fits(tmp_path, monkeypatch, "best.pt", 3, "next", "now"), "that one is older on purpose"
        assert ["is newer than" in line for line in said] == [True]

    def test_one_that_is_older_is_left_out(self, tmp_path: Path, monkeypatch: Any, said: list[str]) -> None:
        assert not self.fits(tmp_path, monkeypatch, "last.pt", 5, "other", "other")
        assert ["is older than" in line for line in said] == [True]

    @pytest.mark.parametrize("damaged", [False, True])
    def test_one_of_another_run_is_refused_but_beside_an_older_checkpoint(
        self, tmp_path: Path, monkeypatch: Any, damaged: bool
    ) -> None:
        with pytest.raises(InvalidCallError, match="it is damaged" if damaged else "do not belong together"):
            self.fits(tmp_path, monkeypatch, "last.pt", 4, "other", "other", damaged)
        assert not self.fits(tmp_path, monkeypatch, "best.pt", 4, "other", "other", damaged)
