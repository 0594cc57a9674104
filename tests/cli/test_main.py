"""The command ``yolo-stable``: what it offers, what it answers, and one real run of it."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import typer
import yaml
from equality import assert_same
from ultralytics.cfg import TASK2MODEL
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import LOGGER
from verb import carried_out

from yolo_stable._shared.shell_text import beneath
from yolo_stable.cli import main as cli
from yolo_stable.errors import InvalidCallError, TrainingHaltedError, TrainingInterruptedError
from yolo_stable.presets.presets import load_hyp
from yolo_stable.train import model as train_model
from yolo_stable.train import run as train_run
from yolo_stable.trainer.trainers import StableDetectionTrainer

HEAVY = {"torch", "ultralytics", "numpy", "cv2", "matplotlib"}
SURFACE = {
    "": ["--version"],
    "train": ["DATA", "[key=value ...]", "--preset", "--inject", "--import", "--traceback"],
    "yolo": ["[WORD ...]", "--preset", "--traceback"],
    "compare": ["DATA", "[key=value ...]", "--optimizers", "--presets", "--lr0", "--seeds", "--stock", "--epochs", "--out",
                "--json", "--import", "--ray", "--resources"],
    "preflight": ["DATA", "[key=value ...]", "--preset", "--precision", "--lr-range", "--seconds", "--json", "--import",
                  "--traceback"],
    "autopsy": ["INCIDENT", "--json", "--frames", "--pdb", "--device", "--seconds", "--import"],
    "check": [
        "DATA",
        "--task",
        "--split",
        "--json",
        "--html",
        "--fix",
        "--near",
        "--sample",
        "--limit",
        "--imgsz",
        "--workers",
        "--progress",
    ],
    "report": ["RUN ...", "--out", "--open"],
    "validate": ["[FILE ...]", "--device", "--quick", "--full", "--seed", "--json", "--html", "--inject", "--stress",
                 "--recompute-reference", "--no-heal", "--compare"],
    "presets": [],
    "presets list": [],
    "presets show": ["NAME"],
    "presets diff": ["A", "B"],
}  # fmt: skip
"""Every verb with its arguments and options, besides --help and -h: what people's scripts rely on."""
MODULE = (sys.executable, "-m", "yolo_stable")
SMALL = ("imgsz=64", "batch=4", "nbs=4", "device=cpu", "plots=False", "workers=0", "seed=1")


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str

    def refusal(self) -> str:
        """Return the one line of a refused call."""
        assert self.err.endswith("\n")
        lines = [line for line in self.err.splitlines() if not line.startswith("    yolo-stable ")]
        assert len(lines) == 1 or lines[0].endswith(":"), f"not one line, and what is to be typed: {self.err!r}"
        assert self.err.startswith("yolo-stable: ")
        assert "Traceback" not in self.out + self.err
        return self.err.removeprefix("yolo-stable: ").strip()


Command = Callable[..., Answer]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def command(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return the command, carried out in this process; what Ultralytics logs is part of the output."""

    def carry_out(*words: object) -> Answer:
        (handler,) = (handler for handler in LOGGER.handlers if handler.name == "ultralytics.utils.set_logging")
        monkeypatch.setattr(handler, "stream", sys.stdout)  # still that of when Ultralytics was imported
        return Answer(*carried_out(capsys, monkeypatch, *words))

    return carry_out


def in_process_of_its_own(*words: object, cwd: Path) -> Answer:
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    return Answer(done.returncode, done.stdout, done.stderr)


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ---- what there is -------------------------------------------------------------------------------------------------------


def test_the_verbs_and_options_are_those_that_were_promised() -> None:
    """A new one is a promise to keep: write it into ``SURFACE`` and into the documentation."""
    surface: dict[str, list[str]] = {}

    def visit(path: str, verb: Any) -> None:
        words = [
            param.metavar if param.param_type_name == "argument" else " ".join(param.opts) for param in verb.params
        ]
        surface[path] = words
        for name, below in getattr(verb, "commands", {}).items():
            visit(f"{path} {name}".strip(), below)

    visit("", typer.main.get_command(cli.app))
    assert surface == SURFACE


@pytest.mark.parametrize("verb", [pytest.param(verb, id=verb or "none") for verb in SURFACE])
def test_every_verb_explains_itself(command: Command, verb: str) -> None:
    for option in ("--help", "-h"):
        answer = command(*verb.split(), option)
        assert (answer.code, answer.err) == (0, "")
        for word in [*SURFACE[verb], "--help", "-h"]:
            assert word in answer.out


def test_a_paragraph_of_help_is_one_line_for_the_terminal_to_wrap() -> None:
    texts = [verb.help for verb in cli.app.registered_commands]
    assert len(texts) == 8
    for text in texts:
        assert text
        assert "\n" not in text.replace("\n\n", "")


def test_help_is_there_in_under_a_second_without_torch(here: Path) -> None:
    seconds, answer = [], None
    for _ in range(3):
        start = time.perf_counter()
        answer = in_process_of_its_own(sys.executable, "-X", "importtime", "-m", "yolo_stable", "--help", cwd=here)
        seconds.append(time.perf_counter() - start)
    assert answer is not None
    assert answer.code == 0
    assert "Usage: yolo-stable" in answer.out
    assert imported(answer) & HEAVY == set()
    assert min(seconds) < 1.0


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("--version", id="version"),
        pytest.param("presets", id="presets"),
        pytest.param("presets show stable", id="show"),
        pytest.param("presets diff stable default", id="diff"),
        pytest.param("train data.yaml lr_0=1", id="wrong key"),
        pytest.param("train detect --epochs", id="option without a value"),
        pytest.param("val data=data.yaml", id="command of Ultralytics"),
        pytest.param("yolo val guard.max_norm=5", id="guard without a training"),
    ],
)
def test_what_needs_no_torch_imports_none(here: Path, words: str) -> None:
    answer = in_process_of_its_own(sys.executable, "-X", "importtime", "-m", "yolo_stable", *words.split(), cwd=here)
    assert "yolo_stable" in imported(answer)
    assert imported(answer) & HEAVY == set()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--help", 0, "Usage: yolo-stable"),
        ("train --help", 0, "key=value"),
        ("presets", 0, "guarded"),
        ("presets show stable", 0, "not installed"),
        ("presets diff stable default", 2, "Ultralytics is not installed in this Python. Install it"),
        ("train data.yaml", 2, "Ultralytics is not installed in this Python. Install it"),
        ("yolo train data=data.yaml", 2, "torch is not installed in this Python. Install it:\n    pip install torch"),
    ],
)
def test_help_and_presets_need_neither_torch_nor_ultralytics(here: Path, words: str, code: int, said: str) -> None:
    (here / "bare.py").write_text(
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({sorted(HEAVY)}))\n"  # not to be found any more
        "from yolo_stable.cli.main import main\n"
        "main()\n"
    )
    answer = in_process_of_its_own(sys.executable, "bare.py", *words.split(), cwd=here)
    assert answer.code == code
    assert said in answer.out + answer.err
    assert "Traceback" not in answer.err


def imported(answer: Answer) -> set[str]:
    """Return the packages that ``-X importtime`` has listed."""
    lines = [line for line in answer.err.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


def test_the_module_and_the_console_script_are_the_same(here: Path) -> None:
    script = Path(sysconfig.get_path("scripts"), "yolo-stable")
    for words in (["--help"], ["train"]):
        assert in_process_of_its_own(script, *words, cwd=here) == in_process_of_its_own(*MODULE, *words, cwd=here)


def test_the_version_is_the_package_s(command: Command) -> None:
    assert command("--version") == Answer(0, f"yolo-stable {cli.__version__}\n", "")


# ---- presets -------------------------------------------------------------------------------------------------------------


def test_the_presets_are_listed_with_what_they_are_for(command: Command) -> None:
    answer = command("presets", "list")
    assert (answer.code, answer.err) == (0, "")
    rows = [line.strip().split(maxsplit=1) for line in answer.out.splitlines() if line.strip()]
    assert rows[0] == ["preset", "for"]
    assert [row[0] for row in rows[2:]] == ["adamw", "cautious", "finetune", "guarded", "recovery", "stable"]
    assert rows[-1][1].startswith("For fine-tuning from pretrained weights when training must not explode")
    assert command("presets") == answer


def test_a_preset_is_shown_with_its_reasons(command: Command) -> None:
    answer = command("presets", "show", "stable")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0].startswith("stable: For fine-tuning")
    assert lines[1].endswith("hyp/stable.yaml")
    (rate,) = (line.split(maxsplit=3) for line in lines if line.startswith("  lr0 "))
    assert rate[:3] == ["lr0", "0.0005", "0.01"]
    assert rate[3].startswith("a twentieth of the default")


def test_a_preset_of_ones_own_is_shown(command: Command, here: Path) -> None:
    (here / "mine.yaml").write_text("# Mine.\nlr0: 0.02  # [bold]fast[/bold]\n")
    answer = command("presets", "show", "mine.yaml")
    assert answer.out.splitlines()[:2] == ["mine: Mine.", "mine.yaml"]
    assert "[bold]fast[/bold]" in answer.out


def test_two_presets_are_compared(command: Command) -> None:
    answer = command("presets", "diff", "stable", "default")
    rows = [line.split() for line in answer.out.splitlines() if line.strip()]
    assert rows[0] == ["key", "stable", "default"]
    assert ["lr0", "0.0005", "0.01"] in rows
    assert ["optimizer", "SGD", "auto"] in rows
    assert ["val", "True", "True"] not in rows
    assert command("presets", "diff", "stable", "stable").out == "stable and stable have the same values.\n"


@pytest.mark.parametrize("words", ["show nope", "diff nope stable", "diff stable nope"])
def test_an_unknown_preset_is_answered_with_the_list(command: Command, words: str) -> None:
    answer = command("presets", *words.split())
    assert answer.code == 2
    known = "The presets are adamw, cautious, finetune, guarded, recovery, stable;"
    assert answer.refusal().startswith(f"There is no preset 'nope'. {known}")


# ---- wrong calls ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        pytest.param("train", "Missing argument 'DATA'. See 'yolo-stable train --help'.", id="no data set"),
        pytest.param("presets show", "Missing argument 'NAME'. See 'yolo-stable presets show --help'.", id="no name"),
        pytest.param("train x --foo", "No such option: --foo. See 'yolo-stable train --help'.", id="unknown option"),
        pytest.param("train x --preset", "Option '--preset' requires an argument. See ", id="option without a value"),
        pytest.param("trian x", "No such command 'trian'. Did you mean 'train'? See 'yolo-stable --help'.", id="verb"),
        pytest.param("presets shwo", "No such command 'shwo'. Did you mean 'show'? See ", id="verb of presets"),
        pytest.param("tune model=a.pt", "Ultralytics tunes in Python alone: from yolo_stable import YOLO", id="tune"),
        pytest.param("presets diff a b c", "Got unexpected extra argument", id="one argument too many"),
    ],
)
def test_a_call_that_cannot_be_parsed_is_refused_in_one_line(command: Command, words: str, line: str) -> None:
    answer = command(*words.split())
    assert answer.code == 2
    assert answer.refusal().startswith(line)


@pytest.mark.parametrize(
    "words", ["val model=a.pt data=d.yaml", "detect train data=d.yaml", "predict source='my file.jpg'", "checks"]
)
def test_a_command_of_ultralytics_is_answered_with_what_works(command: Command, words: str) -> None:
    typed = shlex.split(words)
    answer = command(*typed)
    assert answer.code == 2
    assert answer.refusal().startswith(
        f"{typed[0]!r} is a command of Ultralytics. With the guard in every training it is"
    )
    assert answer.err.splitlines()[-1] == f"    yolo-stable yolo {shlex.join(typed)}"


def test_the_exit_codes_are_in_the_help(command: Command) -> None:
    text = " ".join(command("--help").out.replace("│", " ").split())
    assert "Exit codes: 0 done, 1 training failed or halted, 2 wrong call, 130 interrupted, 143 terminated." in text


def test_without_a_verb_the_help_is_shown(command: Command) -> None:
    answer = command()
    assert (answer.code, answer.err) == (2, "")
    assert "Usage: yolo-stable" in answer.out


FILES = {
    "ok.yaml": "train: images/train\nval: images/val\nnames: [a]\n",
    "syntax.yaml": "train: [images/train\nval: images/val\n",
    "list.yaml": "- images/train\n",
    "noval.yaml": "train: images/train\nnames: [a]\n",
    "nonames.yaml": "train: images/train\nval: images/val\n",
    "empty.yaml": "train: images/empty\nval: images/val\nnames: [a]\n",
    "emptyval.yaml": "train: images/train\nval: images/empty\nnames: [a]\n",
    "boxes.yaml": "train: boxed/images\nval: images/val\nnames: [a]\n",
    "boxed/images/1.png": "x",
    "boxed/labels/1.txt": "0 0.5 0.5 0.2 0.2\n\n0 0.1 0.1 0.1 0.1\n",
    "nul.yaml": "lr0: 0.01\0\n",
    "bad.yaml": "lr0: 0.01\nlr_0: 0.01\n",
    "other.yaml": "model: yolo11n-seg.yaml\ntask: segment\n",
    "teacher.yaml": "distill_model: gone.pt\n",
    "broken-model.yaml": "backbone: [\n",
    "broken.pt": "not a checkpoint",
    "exported.onnx": "not a network",
    "images/train/1.png": "x",
    "images/val/1.png": "x",
    "images/empty/notes.md": "x",
}
BAD = [
    pytest.param("gone.yaml", "there is no data set 'gone.yaml' (seen from ", id="missing YAML"),
    pytest.param("syntax.yaml", "data set syntax.yaml: YAML syntax error in ", id="broken YAML"),
    pytest.param("list.yaml", "data set list.yaml: 'list.yaml' is not a valid YAML mapping", id="YAML without keys"),
    pytest.param("noval.yaml", "data set noval.yaml: noval.yaml 'val:' key missing", id="YAML without val"),
    pytest.param("nonames.yaml", "data set nonames.yaml: nonames.yaml key missing. either 'names' ", id="no names"),
    pytest.param("empty.yaml", "data set empty.yaml: no images for 'train' (looked at: ", id="no images to train on"),
    pytest.param("emptyval.yaml", "data set emptyval.yaml: no images for 'val' (looked at: ", id="none to validate on"),
    pytest.param("ok.yaml learnrate=1", "'learnrate' is not a setting of Ultralytics. `yolo cfg`", id="unknown key"),
    pytest.param("ok.yaml lr_0=1", "'lr_0' is not a setting of Ultralytics. Did you mean 'lr0'?", id="misspelt key"),
    pytest.param(
        "ok.yaml guard.max_nrom=1", "guard has no setting 'max_nrom'. Did you mean 'max_norm'?", id="guard key"
    ),
    pytest.param("ok.yaml guard.max_norm=0", "guard.max_norm=0 is not allowed. It must be ", id="guard range"),
    pytest.param("ok.yaml epochs=many", "epochs is 'many' (str), but takes int", id="wrong type"),
    pytest.param("ok.yaml epochs=0", "'epochs=0' is an invalid value. 'epochs' must be >= 1.", id="out of range"),
    pytest.param("ok.yaml optimizer=Adan", "optimizer=Adan is not among SGD, ", id="unknown optimizer"),
    pytest.param("ok.yaml epochs", "'epochs' is not understood. Write settings as key=value", id="no equals sign"),
    pytest.param("ok.yaml --preset nope", "There is no preset 'nope'. The presets are adamw, ", id="unknown preset"),
    pytest.param("ok.yaml --preset gone.yaml", "The settings file gone.yaml does not exist ", id="missing preset"),
    pytest.param("ok.yaml --preset nul.yaml", "nul.yaml: not valid YAML: unacceptable character", id="broken preset"),
    pytest.param("ok.yaml device=7", "device=7 is not there: torch ", id="device"),
    pytest.param("ok.yaml device=tpu", "device=tpu is not there: torch ", id="device that cannot train"),
    pytest.param("ok.yaml task=detekt", "task=detekt is not among the tasks that the guard supports: ", id="task"),
    pytest.param("ok.yaml cfg=gone.yaml", "cfg=gone.yaml cannot be used: gone.yaml cannot be read: ", id="missing cfg"),
    pytest.param("ok.yaml cfg=bad.yaml", "cfg=bad.yaml, line 2: 'lr_0' is not a setting of ", id="key in cfg"),
    pytest.param("ok.yaml cfg=other.yaml model=", "model= is empty. Give ", id="empty model"),
    pytest.param("ok.yaml model=images", "model=images is a folder. Give ", id="model is a folder"),
    pytest.param("ok.yaml --preset other.yaml", "other.yaml: model, task cannot be in a preset, ", id="preset's keys"),
    pytest.param("ok.yaml mode=val", "mode=val is not allowed. It must be train.", id="mode"),
    pytest.param("ok.yaml seed=4294967296", "seed=4294967296 is not allowed. ", id="seed"),
    pytest.param("ok.yaml imgsz=16", "imgsz=16 is not allowed. It must be ", id="image size"),
    pytest.param("ok.yaml batch=0", "batch=0 is not allowed. It must be ", id="batch"),
    pytest.param("ok.yaml cache=rma", "cache=rma is not allowed. It must be ", id="cache"),
    pytest.param("ok.yaml auto_augment=rand", "auto_augment=rand is not allowed. ", id="auto_augment"),
    pytest.param("ok.yaml copy_paste_mode=no", "copy_paste_mode=no is not allowed. ", id="copy_paste_mode"),
    pytest.param("ok.yaml augmentations=[1]", "augmentations=[1] is not among conservative", id="augmentations"),
    pytest.param("ok.yaml project=/proc/runs", "the run's folder ", id="folder that cannot be made"),
    pytest.param("ok.yaml save_dir=ok.yaml", "the run's folder ", id="folder that is a file"),
    pytest.param("ok.yaml task=pose model=yolo11n-pose.yaml", "data set ok.yaml: 'kpt_shape' is missing", id="pose"),
    pytest.param("boxes.yaml model=yolo26n-seg.pt", "data set boxes.yaml: its labels are boxes, and a", id="outlines"),
    pytest.param(
        "boxes.yaml task=obb", "data set boxes.yaml: its labels are boxes, and a model for task=obb", id="obb"
    ),
    pytest.param("ok.yaml distill_model=gone.pt", "distill_model=gone.pt cannot be used: ", id="missing teacher"),
    pytest.param("ok.yaml distill_model=images", "distill_model=images is a folder. Give ", id="teacher is a folder"),
    pytest.param("ok.yaml pretrained=yolo11n.yaml", "pretrained=yolo11n.yaml holds no weights. ", id="no weights"),
    pytest.param("ok.yaml cfg=teacher.yaml", "distill_model=gone.pt cannot be used: ", id="missing teacher in cfg"),
    pytest.param("ok.yaml pretrained=gone.pt", "pretrained=gone.pt cannot be used: ", id="missing weights"),
    pytest.param("ok.yaml model=gone.yaml", "model=gone.yaml cannot be used: 'gone.yaml' does not exist", id="model"),
    pytest.param("ok.yaml model=gone.pt", "model=gone.pt cannot be used: ", id="missing checkpoint"),
    pytest.param(
        "ok.yaml model=broken-model.yaml", "model=broken-model.yaml cannot be used: YAML syntax ", id="model YAML"
    ),
    pytest.param("ok.yaml model=broken.pt", "model=broken.pt cannot be used: ", id="broken checkpoint"),
    pytest.param(
        "ok.yaml model=exported.onnx", "model=exported.onnx is an exported model, which ", id="exported model"
    ),
    pytest.param(
        "ok.yaml model=yolov8s-world.yaml", "model=yolov8s-world.yaml is a YOLOWorld model, ", id="other trainer"
    ),
    pytest.param("ok.yaml model=yolo26n-depth.yaml", "data set ok.yaml: no image has a depth map; ", id="other task"),
    pytest.param(
        "ok.yaml task=obb model=yolo11n.yaml", "task=obb, but model=yolo11n.yaml is a model for ", id="two tasks"
    ),
    pytest.param(
        "ok.yaml model=yolo11n-cls.yaml", "data set ok.yaml: Classification datasets must be a dir", id="classify"
    ),
    pytest.param("ok.yaml data=ok.yaml", "the data set is named twice", id="two data sets"),
    pytest.param("ok.yaml resume", "nothing to resume: /", id="resume a YAML"),
    pytest.param("resume model=images", "model=images is a folder. Give a checkpoint (.pt)", id="resume a folder"),
    pytest.param("resume model=gone/weights/last.pt", "nothing to resume: there is no checkpoint gone/we", id="no run"),
    pytest.param("yolo11n.pt", "the data set is missing (yolo11n.pt is the model). Name one", id="a model alone"),
    pytest.param(
        "ok.yaml resume=gone.pt", "nothing to resume: there is no checkpoint gone.pt (seen from ", id="resume nothing"
    ),
]


@pytest.mark.parametrize(("words", "line"), BAD)
def test_bad_input_gets_one_clear_line_and_leaves_nothing_behind(
    command: Command, here: Path, narrow: Callable[[str], str], words: str, line: str
) -> None:
    for name, text in FILES.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    before = tree(here)
    data, *settings = words.split()
    if "model=" not in words and "task=" not in words:
        settings.append(f"model={narrow('detect')}")
    answer = command("train", data, "epochs=1", *settings)
    assert answer.code == 2
    assert answer.refusal().removeprefix("train: ").startswith(line)
    assert tree(here) == before


def test_bad_input_is_one_line_also_where_ultralytics_has_never_run(
    here: Path, narrow: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It makes a file of settings then, and says so."""
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "settings"))
    words = ("train", "gone.yaml", f"model={narrow('detect')}", "epochs=1", "device=cpu")
    answer = in_process_of_its_own(*MODULE, *words, cwd=here)
    assert (answer.code, answer.out) == (2, "")
    assert answer.refusal().startswith("train: there is no data set 'gone.yaml' (seen from ")
    assert list((tmp_path / "settings").rglob("settings.json"))
    assert tree(here) == []


# ---- failures ------------------------------------------------------------------------------------------------------------


def test_an_unexpected_error_is_one_line_too(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(call: object, **settings: object) -> None:
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(train_run, "run", fail)
    answer = command("train", "data.yaml")
    assert answer.code == 1
    assert answer.refusal() == "Training failed: ZeroDivisionError: division by zero (--traceback shows where)"


def test_traceback_shows_where_an_unexpected_error_was(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(call: object, **settings: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(train_run, "run", fail)
    monkeypatch.setattr(sys, "argv", ["yolo-stable", "train", "data.yaml", "--traceback"])
    with pytest.raises(ZeroDivisionError):  # goes through to Python, which prints it and exits with 1
        cli.main()
    assert capsys.readouterr().err == ""


def test_traceback_changes_nothing_about_a_wrong_call(command: Command) -> None:
    answer = command("train", "gone.yaml", "--traceback")
    assert answer.code == 2
    assert answer.refusal().startswith("train: there is no data set 'gone.yaml'")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("nan-pixle@1.1", "Did you mean 'nan-pixel'?"),
        ("nan-pixel", "KIND[:DETAIL]@EPOCH.BATCH"),
        ("nan-layer@1.1", "module"),
        ("nan-pixel@0.1", "from 1"),
    ],
)
def test_a_fault_that_is_not_understood_is_a_wrong_call(command: Command, fault: str, says: str) -> None:
    answer = command("train", "data.yaml", "--inject", fault)
    assert answer.code == 2
    assert says in answer.refusal()


def test_faults_may_be_given_one_by_one(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(train_run, "run", lambda call, inject: asked.append(inject))
    assert command("train", "data.yaml", "--inject", "nan-pixel@1.1", "--inject", "inf-gradient@1.2").code == 0
    assert asked == ["nan-pixel@1.1,inf-gradient@1.2"]


def test_ctrl_c_ends_with_130(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(call: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_run, "run", interrupt)
    assert command("train", "data.yaml") == Answer(130, "", "yolo-stable: interrupted.\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_a_signal_ended_says_what_it_saved(
    command: Command, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    def interrupt(call: object, **settings: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise TrainingInterruptedError("Saved last.pt.", number) from error

    monkeypatch.setattr(train_run, "run", interrupt)
    assert command("train", "data.yaml") == Answer(code, "", "yolo-stable: Saved last.pt.\n")


@pytest.mark.parametrize("how", ["at once", "as its cause", "on the way", "further down"])
def test_ctrl_c_during_the_imports_ends_with_130(command: Command, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt as interrupt:
                error = ImportError(f"cannot import name {name!r}")
                if how == "at once":
                    raise
                if how == "as its cause":
                    raise error from interrupt
                if how == "on the way":
                    raise error  # noqa: B904 - what is tested
                try:
                    raise error from interrupt
                except ImportError:
                    raise ImportError("cannot import name 'YOLO'")  # noqa: B904 - what is tested

    monkeypatch.setitem(sys.modules, "yolo_stable.train.run", Interrupted("yolo_stable.train.run"))
    assert command("train", "data.yaml") == Answer(130, "", "yolo-stable: interrupted.\n")


def test_an_import_that_fails_by_itself_is_a_failure(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yolo_stable.train.run", ModuleType("yolo_stable.train.run"))
    answer = command("train", "data.yaml")
    assert answer.code == 1
    assert answer.refusal().startswith("Training failed: ImportError: cannot import name 'run' from ")


def test_a_worker_that_failed_is_reported_with_its_exit_code(
    command: Command, monkeypatch: pytest.MonkeyPatch, shapes: Callable[..., str]
) -> None:
    def fail(**arguments: object) -> None:
        raise subprocess.CalledProcessError(3, ["python", "-m", "torch.distributed.run"])

    model = Recorder("detect")
    monkeypatch.setattr(model, "train", fail)
    monkeypatch.setattr(train_model, "open_model", lambda name: model)
    answer = command("train", shapes(), "device=cpu")
    assert answer.code == 1
    assert answer.refusal() == "A worker of the multi-GPU run ended with exit code 3."


# ---- which model ---------------------------------------------------------------------------------------------------------


@dataclass
class Recorder:
    """Stands for Ultralytics' model, and keeps what it was asked to train."""

    task: str
    trained: dict[str, Any] | None = None
    trainer: Any = None

    def add_callback(self, event: str, function: Callable[..., None]) -> None:
        """Call nothing back."""

    def train(self, **arguments: Any) -> None:
        self.trained = arguments
        self.trainer = SimpleNamespace(save_dir="runs/x")


@pytest.mark.parametrize(
    ("task", "weights", "trainer"),
    [
        ("detect", "yolo26n.pt", "StableDetectionTrainer"),
        ("classify", "yolo26n-cls.pt", "StableClassificationTrainer"),
        ("pose", "yolo26n-pose.pt", "StablePoseTrainer"),
    ],
)
@pytest.mark.parametrize("online", [True, False], ids=["online", "offline"])
def test_without_a_model_the_weights_are_taken_or_the_yaml_where_there_are_none(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    shapes: Callable[..., str],
    task: str,
    weights: str,
    trainer: str,
    online: bool,
) -> None:
    opened: list[str] = []
    model = Recorder(task)

    def open_model(name: str) -> Recorder:
        opened.append(name)
        if name.endswith(".pt") and not online:
            raise InvalidCallError("no network")
        return model

    monkeypatch.setattr(train_model, "open_model", open_model)
    answer = command("train", shapes(task), f"task={task}", "device=cpu")
    assert (answer.code, answer.err) == (0, "")
    assert weights == TASK2MODEL[task]  # of the installed Ultralytics
    description = weights.replace(".pt", ".yaml")
    assert opened == ([weights] if online else [weights, description])
    said = f"{weights} is not here and cannot be downloaded: training {description} from scratch."
    assert (said in answer.out) is not online
    assert model.trained is not None
    assert model.trained["trainer"].__name__ == trainer
    assert model.trained["data"] == shapes(task)


def test_without_the_guard_the_trainer_is_ultralytics_own(
    command: Command, monkeypatch: pytest.MonkeyPatch, shapes: Callable[..., str]
) -> None:
    model = Recorder("detect")
    monkeypatch.setattr(train_model, "open_model", lambda name: model)
    answer = command("train", shapes(), "guard=False", "--preset", "stable", "--lr0", "0.003", "device=cpu")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[0].endswith("this training runs without the guard, by Ultralytics' own trainer.")
    expected = {**load_hyp("stable"), "lr0": 0.003, "device": "cpu", "data": shapes(), "trainer": None}
    assert model.trained == expected


@pytest.mark.parametrize("data", ["pets", "shapes"])
@pytest.mark.parametrize("model", ["mine.yaml", "yolo11n-cls.yaml"])
def test_the_model_decides_for_which_task_the_data_are(
    command: Command, here: Path, narrow: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, model: str, data: str
) -> None:
    """Its file says so, whatever its name; folders of classes are not taken for a detection data set without a YAML."""
    shutil.copy(narrow("classify"), here / "mine.yaml")
    for image in ("train/cat/1.png", "train/dog/1.png", "val/cat/1.png", "val/dog/1.png"):
        (here / "pets" / image).parent.mkdir(parents=True)
        (here / "pets" / image).touch()
    trained: list[tuple[str, str]] = []

    def train(self: Any, **arguments: Any) -> None:
        trained.append((arguments["trainer"].__name__, arguments["data"]))
        self.trainer = SimpleNamespace(save_dir="runs/x")

    monkeypatch.setattr("yolo_stable.train.call.make", lambda name, task: here / "pets" if task == "classify" else name)
    monkeypatch.setattr(train_model.YOLO, "train", train)
    answer = command("train", data, f"model={model}", "device=cpu")
    assert (answer.code, answer.err) == (0, "")
    assert trained == [("StableClassificationTrainer", data if data == "pets" else str(here / "pets"))]


def test_rtdetr_has_a_trainer_of_its_own(
    command: Command, narrow: Callable[[str], str], shapes: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def train(self: Any, **arguments: Any) -> None:
        trained.append(arguments["trainer"].__name__)
        self.trainer = SimpleNamespace(save_dir="runs/x")

    monkeypatch.setattr(train_model.RTDETR, "train", train)
    answer = command("train", shapes(), f"model={narrow('rtdetr')}", "device=cpu")
    assert (answer.code, answer.err, trained) == (0, "", ["StableRTDETRTrainer"])


# ---- real training -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A finished run of the command."""

    answer: Answer
    folder: Path

    def text(self) -> str:
        """Return what was printed, without the layout of the tables."""
        return " ".join(self.answer.out.split())

    def args(self) -> dict[str, Any]:
        return yaml.safe_load((self.folder / "args.yaml").read_text())

    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def first_run(
    tmp_path_factory: pytest.TempPathFactory, narrow: Callable[[str], str], shapes: Callable[..., str]
) -> Run:
    """One epoch from a YAML, by the command as a user would give it."""
    folder = tmp_path_factory.mktemp("first")
    own = ("guard.max_norm=10.0", "guard.max_consecutive=15", "guard.step=reference")
    words = ("train", shapes(), f"model={narrow('detect')}", "epochs=1", *own, *SMALL)
    answer = in_process_of_its_own(*MODULE, *words, f"project={folder / 'runs'}", "name=first", cwd=folder)
    assert tree(folder)[0] == "runs"
    return Run(answer, folder / "runs" / "first")


def test_a_training_ends_with_0_and_nothing_on_stderr(first_run: Run) -> None:
    assert (first_run.answer.code, first_run.answer.err) == (0, "")
    assert (first_run.folder / "weights" / "last.pt").is_file()
    assert first_run.summary()["status"] == "done"
    assert first_run.summary()["counts"]["rejected_micro_batches"] == 0


def rows_of(run: Path) -> list[dict[str, str]]:
    """Return the rows of ``results.csv``."""
    return list(csv.DictReader((run / "results.csv").read_text().splitlines()))


def test_without_a_preset_a_training_is_that_of_ultralytics_to_the_bit(
    first_run: Run, narrow: Callable[[str], str], shapes: Callable[..., str]
) -> None:
    folder = first_run.folder.parent
    words = ("train", f"data={shapes()}", f"model={narrow('detect')}", "epochs=1", *SMALL)
    stock = in_process_of_its_own(
        sys.executable, "-m", "ultralytics.cfg.__init__", *words, f"project={folder}", "name=stock", cwd=folder.parent
    )
    assert stock.code == 0, stock.err
    guarded, plain = (load_checkpoint(run / "weights" / "best.pt")[0] for run in (first_run.folder, folder / "stock"))
    assert_same(guarded.state_dict(), plain.state_dict())
    guarded, plain = (rows_of(run) for run in (first_run.folder, folder / "stock"))
    assert len(guarded) == len(plain) == 1
    assert {key: guarded[0][key] for key in plain[0] if key != "time"} | {"time": plain[0]["time"]} == plain[0]
    args = first_run.args()
    ours = {key: args.pop(key) for key in ("guard", "preset")}
    assert ours["preset"] is None
    own = {"name": "first", "save_dir": str(first_run.folder)}
    assert args == {**yaml.safe_load((folder / "stock" / "args.yaml").read_text()), **own}
    shutil.rmtree(folder / "stock")


def test_the_table_says_that_there_is_no_preset_and_where_to_look_after_trouble(first_run: Run) -> None:
    assert "preset none: Ultralytics' own settings and yours; after trouble, --preset stable" in first_run.text()


def test_the_guard_s_settings_are_kept_with_the_run(first_run: Run) -> None:
    guard = first_run.args()["guard"]
    assert (guard["step"], guard["max_norm"], guard["max_consecutive"]) == ("reference", 10.0, 15)
    assert "clipping global norm 10 rejection" in first_run.text()


def train(command: Command, here: Path, *words: object) -> Run:
    """Train in this process; ``here`` gets nothing but the folder of runs."""
    answer = command("train", *words, *SMALL, f"project={here / 'runs'}", "name=run")
    assert tree(here)[0] == "runs"
    return Run(answer, here / "runs" / "run")


def test_a_preset_lies_over_the_defaults_and_under_what_is_given(
    command: Command, here: Path, narrow: Callable[[str], str], shapes: Callable[..., str]
) -> None:
    run = train(command, here, shapes(), f"model={narrow('detect')}", "epochs=1", "--preset", "stable", "lr0=0.003")
    assert (run.answer.code, run.answer.err) == (0, "")
    args = run.args()
    assert args["preset"] == "stable"
    assert args["lr0"] == 0.003  # given: not the preset's 0.0005, not Ultralytics' 0.01
    assert (args["momentum"], args["warmup_epochs"], args["amp"]) == (0.9, 5, False)  # the preset's: not 0.937, 3, True
    assert (args["lrf"], args["weight_decay"]) == (0.01, 0.0005)  # Ultralytics': in neither
    assert "preset stable lr0=0.003 (yours; the preset has 0.0005)" in run.text()


def test_the_model_chooses_the_preset_when_asked_to(
    command: Command, here: Path, shapes: Callable[..., str], first_run: Run
) -> None:
    last = first_run.folder / "weights" / "last.pt"
    run = train(command, here, shapes(), f"model={last}", "epochs=1", "--preset", "auto")
    assert (run.answer.code, run.answer.err) == (0, "")
    assert "preset stable (the model starts from weights; a conservative learning rate protects them)" in run.text()
    assert (run.args()["preset"], run.args()["lr0"]) == ("stable", 0.0005)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Fill all images with NaN from an epoch on."""
    original = StableDetectionTrainer.preprocess_batch

    def from_epoch(first: int) -> None:
        def preprocess_batch(self: StableDetectionTrainer, batch: dict[str, Any]) -> dict[str, Any]:
            batch = original(self, batch)
            if self.epoch + 1 >= first:
                batch["img"] = batch["img"] * float("nan")
            return batch

        monkeypatch.setattr(StableDetectionTrainer, "preprocess_batch", preprocess_batch)

    return from_epoch


@pytest.mark.parametrize(
    ("first", "applied", "good"),
    [
        pytest.param(1, 0, None, id="from the start"),
        pytest.param(2, 4, "last.pt", id="from the second epoch"),
    ],
)
def test_a_training_that_halts_exits_with_1_and_names_the_good_checkpoint(
    command: Command,
    here: Path,
    narrow: Callable[[str], str],
    shapes: Callable[..., str],
    poison: Callable[[int], None],
    first: int,
    applied: int,
    good: str | None,
) -> None:
    poison(first)
    limits = ("guard.max_consecutive=1", "guard.max_rollbacks=1")
    run = train(command, here, shapes(), f"model={narrow('detect')}", "epochs=3", *limits)
    checkpoint = None if good is None else str(run.folder / "weights" / good)
    assert run.answer.code == TrainingHaltedError.exit_code == 1
    line = run.answer.refusal()
    assert line.startswith(
        f"Training halted after {applied + 4} micro-batches and {applied} optimizer steps: 2 rejections in a row, more than"
        " guard.max_consecutive=1; 1 rollbacks did not help."
    )
    which = (
        "No checkpoint was written in this run." if good is None else f"The good checkpoint is {checkpoint} (epoch 1)."
    )
    assert f" It was in epoch {first}/3, batch 4. {which}" in line
    assert (run.folder / "weights" / "last.pt").exists() is (good is not None)
    summary = run.summary()
    assert (summary["status"], summary["checkpoint"]) == ("halted", checkpoint)
    assert [one.strip() for one in line.splitlines()] == beneath(summary["message"]).replace("    ", "").splitlines()
    assert (summary["counts"]["rejected_micro_batches"], summary["counts"]["rollbacks"]) == (4, 1)


@pytest.mark.parametrize("words", ["{data} resume={last}", "resume {last}"])
def test_a_halted_training_is_resumed_in_its_folder_with_its_preset_and_its_guard(
    command: Command,
    here: Path,
    narrow: Callable[[str], str],
    shapes: Callable[..., str],
    poison: Callable[[int], None],
    words: str,
) -> None:
    poison(2)
    given = ("epochs=3", "guard.max_consecutive=2", "guard.snapshot_every=none", "--preset", "finetune")
    halted = train(command, here, shapes(), f"model={narrow('detect')}", *given)
    assert halted.answer.code == 1
    poison(99)
    last = halted.folder / "weights" / "last.pt"
    typed = words.format(data=shapes(), last=last).split()
    answer = command("train", *typed, "device=cpu")
    assert (answer.code, answer.err) == (0, "")
    assert [path.name for path in (here / "runs").iterdir()] == ["run"]
    assert halted.summary()["status"] == "done"
    assert halted.args()["preset"] == "finetune"
    assert halted.args()["guard"]["max_consecutive"] == 2
    assert "halt after 2 rejections in a row" in " ".join(answer.out.split())

    finished = command("train", *typed, "device=cpu")
    assert finished.code == 2
    assert finished.refusal().startswith(f"train: nothing to resume: {last} is of a run that is finished.")
    assert [path.name for path in (here / "runs").iterdir()] == ["run"]


def test_the_args_of_a_run_make_another_run_like_it(
    command: Command, here: Path, shapes: Callable[..., str], first_run: Run
) -> None:
    before = tree(first_run.folder)
    args = {**first_run.args(), "exist_ok": True}
    (here / "args.yaml").write_text(yaml.safe_dump(args))
    answer = command("train", f"cfg={here / 'args.yaml'}", "guard.max_total=77", "lr0=0.002")
    assert (answer.code, answer.err) == (0, "")
    assert tree(first_run.folder) == before
    (folder,) = (path for path in first_run.folder.parent.iterdir() if path != first_run.folder)
    again = Run(answer, folder).args()
    shutil.rmtree(folder)
    own = {"name": folder.name, "save_dir": str(folder), "exist_ok": False, "lr0": 0.002}
    assert again == {**args, **own, "guard": {**args["guard"], "max_total": 77}}


def test_the_model_in_a_file_is_the_one_that_is_trained(
    command: Command, here: Path, narrow: Callable[[str], str], shapes: Callable[..., str]
) -> None:
    (here / "c.yaml").write_text(f"model: {narrow('classify')}\ntask: classify\ndata: gone\nepochs: 1\nlr0: 0.003\n")
    answer = command("train", shapes("classify"), "cfg=c.yaml", *SMALL, f"project={here / 'runs'}", "name=run")
    assert (answer.code, answer.err) == (0, "")
    args = Run(answer, here / "runs" / "run").args()
    assert (args["model"], args["data"]) == (narrow("classify"), shapes("classify"))
    assert (args["task"], args["epochs"], args["lr0"], args["preset"]) == ("classify", 1, 0.003, None)


def test_a_resumed_run_takes_another_preset_and_says_what_changed(
    command: Command,
    here: Path,
    narrow: Callable[[str], str],
    shapes: Callable[..., str],
    poison: Callable[[int], None],
) -> None:
    poison(2)
    halted = train(
        command, here, shapes(), f"model={narrow('detect')}", "epochs=2", "guard.max_total=2", "--preset", "finetune"
    )
    poison(99)
    last = halted.folder / "weights" / "last.pt"
    answer = command("train", shapes(), f"resume={last}", "--preset", "stable", "device=cpu", "guard.max_total=99")
    assert (answer.code, answer.err) == (0, "")
    assert halted.args()["preset"] == "stable"
    assert halted.args()["lr0"] == 0.0005
    assert "changed lr0=0.0005 (before: " in " ".join(answer.out.split())


def test_a_damaged_checkpoint_is_refused_in_one_line_that_names_a_good_one(
    command: Command,
    here: Path,
    narrow: Callable[[str], str],
    shapes: Callable[..., str],
    poison: Callable[[int], None],
) -> None:
    poison(2)
    halted = train(command, here, shapes(), f"model={narrow('detect')}", "epochs=2", "guard.max_total=2")
    poison(99)
    last = halted.folder / "weights" / "last.pt"
    last.write_bytes(last.read_bytes()[:-1000])
    before = tree(here)
    for words in ((f"model={last}", "resume=True"), (f"resume={last}",)):
        answer = command("train", shapes(), *words, "device=cpu")
        assert answer.code == 2
        assert answer.refusal() == (
            f"Checkpoint {last} cannot be resumed: it is empty, cut off, or no checkpoint at all."
            f" The newest good checkpoint beside it is {last.with_name('last_good.pt')}."
        )
        assert tree(here) == before
    again = command("train", shapes(), f"resume={last.with_name('last_good.pt')}", "device=cpu", "guard.max_total=99")
    assert (again.code, again.err) == (0, "")


# ---- runs that fail before they have begun -------------------------------------------------------------------------------


def test_a_run_folder_that_cannot_be_made_is_a_wrong_call(
    command: Command, here: Path, narrow: Callable[[str], str], shapes: Callable[..., str]
) -> None:
    (here / "file").touch()
    call = ("train", shapes(), f"model={narrow('detect')}", "epochs=1", *SMALL)
    answer = command(*call, f"project={here / 'file' / 'runs'}")
    assert answer.code == 2
    assert answer.refusal().startswith(f"train: the run's folder {here / 'file' / 'runs' / 'train'} cannot be ")
    assert answer.refusal().endswith(": Not a directory. Name another place with project=FOLDER.")
    assert tree(here) == ["file"]


def failing(narrow: Callable[[str], str], shapes: Callable[..., str]) -> tuple[str, ...]:
    """Return a call that is right as far as can be told without training."""
    return (shapes(), f"model={narrow('detect')}", "freeze=1000")


def test_a_run_that_never_began_leaves_no_folder(
    command: Command, here: Path, narrow: Callable[[str], str], shapes: Callable[..., str]
) -> None:
    call = ("train", *failing(narrow, shapes), "epochs=1", *SMALL, "name=run")
    answer = command(*call, f"project={here / 'deep' / 'runs'}")
    assert answer.code == 1
    assert answer.refusal().startswith("Training failed: ")
    assert answer.refusal().endswith("(--traceback shows where)")
    assert tree(here) == []
    (here / "runs" / "run").mkdir(parents=True)
    (here / "runs" / "run" / "mine.txt").touch()
    answer = command(*call, f"project={here / 'runs'}", "exist_ok=True")
    assert answer.code == 1
    assert (here / "runs" / "run" / "mine.txt").exists()


def test_a_failure_is_one_line_or_a_traceback(
    here: Path, narrow: Callable[[str], str], shapes: Callable[..., str], warm_python: str
) -> None:
    words = ("train", *failing(narrow, shapes), "epochs=1", *SMALL, f"project={here / 'runs'}")
    told = in_process_of_its_own(warm_python, *MODULE[1:], *words, "--traceback", cwd=here)
    assert told.code == 1
    assert "Traceback (most recent call last):" in told.err
    assert tree(here) == []
