"""What is posted of a run: by the service alone, and by a training that is halted, to a server on this machine."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from calls import Calls

from yolo_stable import StableDetectionTrainer
from yolo_stable._shared.secret_url import SecretURL
from yolo_stable.chaos import NAN, Fault
from yolo_stable.errors import InvalidCallError, TrainingHaltedError
from yolo_stable.guard import Counts, Decision, EscalationLevel, GuardVerdict
from yolo_stable.presets.guard_settings import TrainerConfig
from yolo_stable.presets.run_plan import ALERT, separate
from yolo_stable.trainer import alert_service
from yolo_stable.trainer.alert_service import LAST_WAIT, AlertService

URL = "https://host/kEy"
BAD = Decision(verdict=GuardVerdict.REJECT_MICRO_BATCH, reason="loss nan")


class Bare:
    """The alerts of a trainer that is a stub, and a webhook that is one, too."""

    def __init__(self, calls: Calls, monkeypatch: pytest.MonkeyPatch, alert: str | None = URL) -> None:
        self.trainer: Any = SimpleNamespace(
            plan=SimpleNamespace(trainer=TrainerConfig(alert=alert)),
            guard=SimpleNamespace(
                counts=Counts(applied=7, rejected_windows=2, rollbacks=1),
                config=SimpleNamespace(max_consecutive=10, max_share=0.5),
            ),
            save_dir=Path("runs/a"),
            epoch=1,
            epochs=9,
            batch_number=3,
        )

        def webhook(url: SecretURL, tell: Any) -> Any:
            assert url.address == URL
            return SimpleNamespace(post=lambda alert: calls.append(("post", alert)), close=calls.to("close"))

        monkeypatch.setattr(alert_service, "Webhook", webhook)
        self.alerts, self.calls = AlertService(self.trainer), calls

    @property
    def posted(self) -> list[tuple[str, str]]:
        """Events with their words, without the run in front."""
        run = f"yolo-stable, {os.path.abspath('runs/a')}: "
        posts = [call[1] for call in self.calls if call[0] == "post"]
        assert all(post.text.startswith(run) for post in posts)
        return [(post.event, post.text.removeprefix(run)) for post in posts]


@pytest.fixture
def bare(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Bare:
    return Bare(calls, monkeypatch)


class TestWhatIsPosted:
    def test_the_start_up_table_names_the_host(self, bare: Bare) -> None:
        ((name, does),) = bare.alerts.begin()
        assert (name, does.split(":")[:2]) == ("alerts", ["https", "//host/***"])

    def test_a_burst_of_rejections_with_its_reason_and_place(self, bare: Bare) -> None:
        bare.alerts.begin()
        for _ in range(9):
            bare.alerts.decided(BAD)
        assert bare.posted == [("rejections", "5 rejections in a row: loss nan. Epoch 2/9, batch 3.")]

    def test_escalations_but_a_repair_and_a_halt_that_the_end_tells_of(self, bare: Bare) -> None:
        bare.alerts.begin()
        for level in EscalationLevel:
            bare.alerts.escalated(level, f"epoch 2: {level.value}.")
        assert bare.posted == [
            ("rollback", "epoch 2: roll_back."),
            ("lower_precision", "epoch 2: lower_precision."),
        ]

    def test_a_halt_and_the_end_that_waits_for_its_post(self, bare: Bare, calls: Calls) -> None:
        bare.alerts.begin()
        bare.alerts.halted("9 in a row.")
        bare.alerts.ended("halted", "9 in a row. The good checkpoint is last.pt.")
        did = "halted: 7 steps applied, 2 rejections, 1 rollback. Epoch 2/9, batch 3."
        end = f"{did} 9 in a row. The good checkpoint is last.pt."
        assert bare.posted == [("halt", "training is halted: 9 in a row."), ("end", end)]
        assert calls[-1] == ("close", LAST_WAIT)
        post = calls[1][1]
        assert (post.status, post.epoch, post.step, post.counts["rejected_windows"]) == ("halted", 2, 7, 2)
        assert post.run == os.path.abspath("runs/a")
        bare.alerts.ended("halted", "again")
        assert calls[-1] == ("close", LAST_WAIT)

    def test_a_run_that_fails_before_its_first_epoch(self, bare: Bare, calls: Calls) -> None:
        del bare.trainer.epoch
        bare.alerts.begin()
        bare.alerts.ended("failed", "ValueError: a callback")
        ((event, words),) = bare.posted
        assert event == "end"
        assert words.endswith(". Before the first epoch. ValueError: a callback")
        assert calls[0][1].epoch == 0

    def test_without_an_address_nothing_is(self, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
        bare = Bare(calls, monkeypatch, None)
        assert bare.alerts.begin() == []
        self.everything(bare)
        assert calls == []

    def test_a_copy_of_the_trainer_posts_nothing(self, bare: Bare, calls: Calls) -> None:
        bare.alerts.begin()
        bare.alerts._webhook.lock = threading.Lock()  # type: ignore[union-attr]
        copied = copy.deepcopy(bare.alerts)
        copied.halted("9 in a row.")
        assert calls == []
        bare.alerts.halted("9 in a row.")
        assert len(calls) == 1

    def test_the_other_ranks_post_nothing(self, bare: Bare, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(alert_service, "RANK", 1)
        assert bare.alerts.begin() == []
        self.everything(bare)
        assert calls == []

    def test_what_a_file_has_kept_of_it_is_told_and_not_posted_to(
        self, calls: Calls, monkeypatch: pytest.MonkeyPatch, said: list[str]
    ) -> None:
        bare = Bare(calls, monkeypatch, "https://host/***")
        assert bare.alerts.begin() == []
        (line,) = said
        assert line.startswith(
            "guard.alert: no alerts, since args.yaml keeps of https://host/*** the host alone. Give "
        )
        assert ALERT in line
        self.everything(bare)
        assert calls == []

    @staticmethod
    def everything(bare: Bare) -> None:
        for _ in range(9):
            bare.alerts.decided(BAD)
        bare.alerts.escalated(EscalationLevel.ROLL_BACK, "epoch 2: roll_back.")
        bare.alerts.halted("9 in a row.")
        bare.alerts.ended("halted", "9 in a row.")


class TestWhereTheAddressComesFrom:
    def alert(self, **overrides: Any) -> str | None:
        url = separate(overrides)[0].trainer.alert
        return None if url is None else url.address if isinstance(url, SecretURL) else "text"

    def test_the_call_wins_over_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.alert() is None
        assert self.alert(guard={"alert": URL}) == URL
        monkeypatch.setenv(ALERT, "https://env/kEy")
        assert self.alert() == "https://env/kEy"
        assert self.alert(preset="stable") == "https://env/kEy"
        assert self.alert(guard={"alert": URL}) == URL
        assert self.alert(guard={"alert": "https://host/***"}) == "https://env/kEy", "as the workers get it"

    def test_what_stands_there_and_is_none_is_refused_without_repeating_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ALERT, "host/kEy")
        with pytest.raises(InvalidCallError, match=f"^{ALERT} is no address: it does not begin with") as refused:
            separate({})
        assert "kEy" not in str(refused.value)

    def test_a_resumed_run_needs_it_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "weights").mkdir()
        (tmp_path / "args.yaml").write_text(json.dumps(separate({"guard": {"alert": URL}})[0].to_dict()))
        resume = str(tmp_path / "weights" / "last.pt")
        assert self.alert(resume=resume) == "https://host/***"
        assert self.alert(resume=resume, guard={"alert": URL}) == URL
        monkeypatch.setenv(ALERT, URL)
        assert self.alert(resume=resume) == URL

    @pytest.mark.parametrize("before", [None, "https://env/kEy"])
    def test_workers_get_it_by_the_environment(
        self, bare: Bare, monkeypatch: pytest.MonkeyPatch, before: str | None
    ) -> None:
        if before is not None:
            monkeypatch.setenv(ALERT, before)
        with contextlib.suppress(ZeroDivisionError), bare.alerts.for_workers():
            assert os.environ[ALERT] == URL
            raise ZeroDivisionError
        assert os.environ.get(ALERT) == before

    def test_without_one_the_environment_stays(self, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
        with Bare(calls, monkeypatch, None).alerts.for_workers():
            assert ALERT not in os.environ


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the address of a server, and what it has got."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/kEyOfTheHook", got
        server.shutdown()
        thread.join()


def test_a_training_that_is_halted_posts_each_step_of_it_and_keeps_the_secret(
    arguments: Callable[..., dict[str, Any]], received: tuple[str, list[dict[str, Any]]], said: list[str]
) -> None:
    url, got = received
    guard = {"alert": url, "max_consecutive": 5, "snapshot_every": 1, "max_rollbacks": 1, "incidents": 1}
    fault = Fault("pixel", NAN, since=2)
    trainer = fault.on(StableDetectionTrainer)(overrides=arguments(epochs=8, val=False, guard=guard))
    with pytest.raises(TrainingHaltedError):
        trainer.train()
    assert trainer.chaos.fired
    assert [line["event"] for line in got] == ["rejections", "rollback", "halt", "end"]
    burst, rollback, halt, end = got
    run = str(trainer.save_dir)
    assert {line["run"] for line in got} == {run}
    assert burst["text"].startswith(f"yolo-stable, {run}: 4 rejections in a row: loss nan")
    assert (burst["epoch"], burst["step"], burst["counts"]["rejected_micro_batches"]) == (2, 2, 4)
    assert ": rolled back to step 2, no step undone" in rollback["text"]
    assert "more than guard.max_consecutive=5" in halt["text"]
    assert end["status"] == "halted"
    assert "The good checkpoint is" in end["text"]
    kept = [path for path in trainer.save_dir.rglob("*") if path.is_file()]
    assert {"args.yaml", "guard.jsonl", "report.html", "summary.json", "last.pt"} <= {path.name for path in kept}
    assert any(path.parent.name == "0001" for path in kept), "a bundle is among them"
    assert [path for path in kept if b"kEyOfTheHook" in path.read_bytes()] == []
    assert "kEyOfTheHook" not in "\n".join(said)
    host = url.removesuffix("kEyOfTheHook")
    assert f"alert: {host}***" in (trainer.save_dir / "args.yaml").read_text()
