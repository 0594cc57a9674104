"""Every command that is printed or written stands on a line of its own, and does something when it is typed."""

from __future__ import annotations

import contextlib
import html
import io
import json
import logging
import re
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from own_gate import gate
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

from yolo_stable.autopsy.bundle import BundleError
from yolo_stable.cli import main as cli
from yolo_stable.incidents import worker as autopsy_worker
from yolo_stable.runlog.reader import read_events
from yolo_stable.trainer import incident_service
from yolo_stable.trainer.trainers import StableDetectionTrainer
from yolo_stable.validate import command as validate_run

SMALL = ("imgsz=64", "batch=4", "nbs=4", "device=cpu", "workers=0", "plots=False", "warmup_epochs=0.5", "amp=False")
COMMAND = re.compile(r"(yolo-stable|python|pip|export|unset) .*")
WITHIN = re.compile(r"\S.*\byolo-stable (train|check|preflight|autopsy|validate|report|compare|presets)\b")
BROKEN = ("Traceback", "No such", "no such", "is not understood", "cannot be imported", "cannot be used", "--help")
PAGES = ("halted by a row", "interrupted", "broke once")
"""Situations whose runs get a page; it takes as long as the run."""
Batch = Callable[[Any, dict[str, Any]], None]


def commands(text: str) -> list[str]:
    """Return what a person would copy."""
    return list(dict.fromkeys(line for line in map(str.strip, text.splitlines()) if COMMAND.fullmatch(line)))


@dataclass
class Desk:
    """Somebody at a terminal: types, reads what is printed, and what the runs leave."""

    folder: Path
    data: str
    network: str
    told: dict[str, str] = field(default_factory=dict)
    """What was said in each situation."""
    before: dict[str, Callable[[], object]] = field(default_factory=dict)
    """What has to be done first where a command follows from an advice such as to bring files back."""

    def type(self, *words: object) -> tuple[int, str]:
        """Return the exit code and all that is printed, in a folder where nothing is."""
        out, code = io.StringIO(), None
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        handler = logging.StreamHandler(out)
        LOGGER.addHandler(handler)
        argv, hook = sys.argv, sys.excepthook
        sys.argv = ["yolo-stable", *map(str, words)]
        try:
            with (
                pytest.MonkeyPatch.context() as patch,
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(out),
            ):
                patch.chdir(elsewhere)
                cli.main()
        except SystemExit as end:
            code = end.code
        finally:
            sys.argv, sys.excepthook = argv, hook
            LOGGER.removeHandler(handler)
        assert isinstance(code, int)
        return code, out.getvalue()

    def run(self, situation: str, *words: object, on_batch: Batch | None = None, **named: str) -> Path:
        """Train, and keep all that is told of it; returns the run's folder."""
        place = self.folder / "runs" / situation.replace(" ", "-")
        model, data = named.get("model", self.network), named.get("data", self.data)
        where = (
            ()
            if "resume=True" in words
            else (
                *SMALL,
                f"project={place.parent}",
                f"name={place.name}",
                *(() if situation in PAGES else ("guard.report=False",)),
            )
        )
        with on_batches(on_batch):
            _, text = self.type("train", data, f"model={model}", *where, *words)
        self.told[situation] = text + written(place)
        return place

    def begin_again(self, situation: str) -> None:
        """Have the runs as they were when the situation was told of: of several commands one is taken."""
        runs, kept = self.folder / "runs", self.folder / "kept"
        if kept.exists():
            shutil.rmtree(runs)
        shutil.copytree(*(kept, runs) if kept.exists() else (runs, kept))
        self.before.get(situation, lambda: None)()

    def say(self, situation: str, *words: object) -> None:
        """Type something else, and keep what is told."""
        self.told[situation] = self.type(*words)[1]


@contextlib.contextmanager
def on_batches(do: Batch | None) -> Iterator[None]:
    """Let something happen to batches."""
    original = StableDetectionTrainer.preprocess_batch

    def preprocess_batch(self: StableDetectionTrainer, batch: dict[str, Any]) -> dict[str, Any]:
        batch = original(self, batch)
        if do is not None:
            do(self, batch)
        return batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StableDetectionTrainer, "preprocess_batch", preprocess_batch)
        yield


def written(run: Path) -> str:
    """Return what a run's files say to people."""
    said = []
    if (run / "guard.jsonl").is_file():
        said += [str(event.get(key, "")) for event in read_events(run / "guard.jsonl") for key in ("message", "next")]
        said.append(json.loads((run / "summary.json").read_text())["message"])
    page = run / "report.html"
    if page.is_file():
        text = re.sub(r"<(script|style)\b.*?</\1>", "", page.read_text(), flags=re.DOTALL)
        said.append(html.unescape(re.sub(r"<[^>]*>", "", text)))
    return "\n".join(said)


def spoil(first: int) -> Batch:
    """Fill all images with NaN from an epoch on."""

    def do(trainer: Any, batch: dict[str, Any]) -> None:
        if trainer.epoch + 1 >= first:
            batch["img"] = batch["img"] * float("nan")

    return do


def spoil_file(name: str) -> Batch:
    def do(trainer: Any, batch: dict[str, Any]) -> None:
        batch["img"] = batch["img"].clone()
        for n, file in enumerate(batch["im_file"]):
            if file.endswith(name):
                batch["img"][n, 0, 3, 3] = float("nan")

    return do


def at(epoch: int, batch: int, do: Callable[[Any], object], then: Batch | None = None) -> Batch:
    """Let something happen once, in an epoch and a batch (from 1)."""

    def act(trainer: Any, drawn: dict[str, Any]) -> None:
        if (trainer.epoch + 1, trainer.batch_number) == (epoch, batch):
            do(trainer)
        if then is not None:
            then(trainer, drawn)

    return act


def interrupt(_: Any) -> None:
    signal.raise_signal(signal.SIGTERM)


def ruin_a_weight(trainer: Any) -> None:
    with torch.no_grad():
        next(trainer.model.parameters())[0, 0, 0, 0] = float("inf")


def break_once(trainer: Any) -> None:
    """Let a module give out NaN in its next call."""
    module = trainer.model.model[4]
    handle = module.register_forward_hook(lambda _module, _inputs, output: (handle.remove(), output * float("nan"))[1])


def lose(paths: list[Path], trainer: Any) -> None:
    """Remove files, and what the data set has read of them."""
    dataset = trainer.train_loader.dataset
    dataset.ims, dataset.buffer = [None] * len(dataset), []
    for path in paths:
        path.unlink()


def copied(data: str, to: Path) -> Path:
    shutil.copytree(Path(data).parent, to)
    spec = yaml.safe_load((to / "data.yaml").read_text())
    (to / "data.yaml").write_text(yaml.safe_dump({**spec, "path": str(to)}))
    return to


def with_gate(network: str, to: Path) -> str:
    """Write the network with a layer of one's own behind its backbone."""
    spec = yaml.safe_load(Path(network).read_text())
    spec["backbone"].append([-1, 1, "Gate", [1]])
    for row in spec["head"]:
        row[0] = [n + (n > 6) for n in row[0]] if isinstance(row[0], list) else row[0]
    spec["head"][4][0] = [-1, 7]
    to.write_text(yaml.safe_dump(spec))
    return str(to)


def forget_gate() -> None:
    """As in a new process."""
    sys.modules.pop("blocks", None)
    if hasattr(tasks, "Gate"):
        delattr(tasks, "Gate")


@pytest.fixture(scope="module")
def desk(
    tmp_path_factory: pytest.TempPathFactory,
    narrow: Callable[[str], str],
    shapes: Callable[..., str],
    warm_python: str,
    warm_workers: Any,
) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("advice")
    desk = Desk(folder, shapes(), narrow("detect"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate_run, "validate", partial(of_one_family, validate_run.validate))
        patch.setattr(sys, "executable", warm_python)
        patch.setattr(autopsy_worker, "multiprocessing", warm_workers)
        set_up(desk)
        yield desk
        forget_gate()


def of_one_family(
    validate: Any, device: Any, tier: Any, seed: Any, inject: Any, progress: Any, *_: Any, **more: Any
) -> Any:
    """Validate a device by the four checks of the assignment, as all of them take minutes."""
    return validate(device, "quick", seed, inject, progress, 0.0, **{**more, "families": ("assign",)})


def set_up(desk: Desk) -> None:
    few = ("guard.max_consecutive=1", "guard.max_rollbacks=1")
    desk.run("halted by a row", "epochs=3", *few, on_batch=spoil(2))
    desk.run("halted by all", "epochs=3", "guard.max_total=1", on_batch=spoil(2))
    desk.run("halted on purpose", "epochs=3", *few, "--inject", "nan-pixel@2.1+")
    interrupted = desk.run("interrupted", "epochs=3", on_batch=at(2, 2, interrupt))
    shutil.copytree(interrupted, desk.folder / "killed")
    log = (desk.folder / "killed" / "guard.jsonl").read_text().splitlines(keepends=True)
    (desk.folder / "killed" / "guard.jsonl").write_text("".join(log[:-1]))
    last = str(interrupted / "weights" / "last.pt")
    desk.run("resumed", "resume=True", model=last, on_batch=at(2, 3, break_once, at(3, 2, interrupt)))
    desk.say("killed", "report", desk.folder / "killed")
    desk.told["killed"] += written(desk.folder / "killed")
    desk.run("guilty twice", "epochs=4", "mosaic=0", on_batch=spoil_file("000005.png"))
    desk.run("a ruined weight", "epochs=2", "guard.snapshot_every=2", on_batch=at(2, 2, ruin_a_weight))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incident_service, "describe_model", cannot_be_described)
        desk.run("no network in the bundle", "epochs=1", on_batch=at(1, 2, break_once))
    desk.run("broke once", "epochs=1", on_batch=at(1, 2, break_once))

    (desk.folder / "blocks.py").write_text(gate(4))
    own, module = with_gate(desk.network, desk.folder / "own.yaml"), ("--import", desk.folder / "blocks.py")
    desk.run("own layer unknown", "epochs=1", model=own)
    desk.run("own layer", "epochs=2", *module, model=own, on_batch=at(2, 2, interrupt))
    forget_gate()

    bad = copied(desk.data, desk.folder / "bad")
    for label in sorted((bad / "labels" / "train").glob("*.txt"))[:3]:
        label.write_text("9 0.5 0.5 0.2 0.2\n")
    desk.say("preflight", "preflight", bad / "data.yaml", f"model={desk.network}", *SMALL, "--no-lr-range")
    for label in sorted((bad / "labels" / "train").glob("*.txt")):
        label.write_text("")
    desk.say("preflight refuses", "preflight", bad / "data.yaml", f"model={desk.network}", *SMALL, "--no-lr-range")
    desk.say("check", "check", bad / "data.yaml")

    spec = yaml.safe_load((bad / "data.yaml").read_text())
    more = copied(desk.data, desk.folder / "more") / "data.yaml"
    more.write_text(yaml.safe_dump({**spec, "path": str(more.parent), "names": dict(enumerate("abcde"))}))
    desk.run("other classes", "resume=True", model=str(desk.folder / "killed" / "weights" / "last.pt"), data=str(more))
    desk.run("nothing left", "resume=True", model=str(desk.folder / "runs" / "broke-once" / "weights" / "last.pt"))

    lost = copied(desk.data, desk.folder / "lost")
    gone = sorted((lost / "images" / "train").iterdir())[:5]
    kept = {path: path.read_bytes() for path in gone}
    desk.run("files gone", "epochs=3", data=str(lost / "data.yaml"), on_batch=at(2, 1, partial(lose, gone)))
    desk.before["files gone"] = lambda: [path.write_bytes(content) for path, content in kept.items()]


def cannot_be_described(_: Any) -> None:
    raise BundleError("The network cannot be described.")


EXPECTED = {
    "halted by a row": ["check", "train"],
    "halted by all": ["check", "train"],
    "halted on purpose": ["train"],
    "interrupted": ["train"],
    "killed": ["train"],
    "resumed": ["autopsy", "train"],
    "guilty twice": ["check", "train"],
    "a ruined weight": ["validate"],
    "no network in the bundle": [],
    "broke once": ["autopsy"],
    "own layer unknown": [],
    "own layer": ["autopsy", "train"],
    "preflight": ["check"],
    "preflight refuses": ["check"],
    "check": [],
    "other classes": ["train"],
    "nothing left": ["train"],
    "files gone": ["train"],
}


def test_every_situation_is_followed_by_what_helps_in_it(desk: Desk) -> None:
    verbs = {name: sorted({command.split()[1] for command in commands(text)}) for name, text in desk.told.items()}
    assert verbs == EXPECTED


def test_no_command_stands_within_a_line(desk: Desk) -> None:
    for situation, text in desk.told.items():
        within = [line for line in text.splitlines() if WITHIN.search(line)]
        assert within == [], situation


def test_every_command_does_something_when_it_is_typed(desk: Desk) -> None:
    problems, seen = [], set()
    for situation, text in desk.told.items():
        for command in commands(text):
            if command in seen:
                continue
            seen.add(command)
            desk.begin_again(situation)
            program, *words = shlex.split(command)
            assert program == "yolo-stable"
            new = words[0] == "train" and "resume=True" not in words
            more = (*SMALL, "epochs=1", f"project={desk.folder / 'new'}") if new else ()
            code, printed = desk.type(*words, *more)
            again = command in commands(printed)
            if code not in (0, 1) or (words[0] == "train" and code) or any(word in printed for word in BROKEN) or again:
                problems.append(f"{situation}: {command}: {code}\n{printed[-1500:]}")
    assert not problems, "\n\n".join(problems)
