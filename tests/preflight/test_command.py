"""A preflight of real trainings, small ones: healthy ones of every task, spoiled ones, and wrong calls."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ultralytics.utils import LOGGER
from verb import carried_out

from benchmarks.preflight import HEALTHY, PLANTED, Planted, Setup, stopped_at
from yolo_stable.errors import InvalidCallError
from yolo_stable.preflight import Preflight, StageVerdict, command, network
from yolo_stable.preflight.show import Show
from yolo_stable.train.call import TrainCall

SMALL = ("imgsz=64", "batch=4", "device=cpu", "optimizer=SGD", "seed=1")


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup.make(tmp_path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def fly(data: str | Path, *words: str, **options: Any) -> tuple[Preflight, str]:
    """Return what a preflight has found and printed."""
    out = io.StringIO()
    found = command.run(TrainCall.parse(str(data), [*SMALL, *words]), show=Show(out), **options)
    return found, out.getvalue()


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


# ---- healthy -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task", ["detect", "end2end", "segment", "semantic", "depth", "pose", "obb", "classify", "rtdetr"]
)
def test_a_healthy_training_of_every_task_passes(
    task: str, narrow: Callable[[str], str], shapes: Callable[..., str], tmp_path: Path, here: Path
) -> None:
    model = Path(narrow(task))
    if task == "rtdetr":  # its class is told by the name
        model = tmp_path / "rtdetr.yaml"
        model.write_text(Path(narrow(task)).read_text())
    own = "detect" if task in {"end2end", "rtdetr"} else task
    found, _ = fly(shapes(task), f"model={model}", f"task={own}", lr_range=False)
    assert found.verdict is StageVerdict.PASS, found.line()
    assert found["gradients"].verdict is StageVerdict.PASS
    assert found["ema"].details["followed"] == pytest.approx(1.0, abs=0.01)
    assert found["validation"].details["items"]
    assert found["setup"].details["val_images"] == 8
    assert tree(here) == set()


def test_it_says_everything_and_leaves_nothing(setup: Setup, here: Path, tmp_path: Path) -> None:
    before = tree(tmp_path)
    handlers, level = LOGGER.handlers[:], LOGGER.level
    words = [*setup.words, "guard.max_norm=5.0"]
    file = tmp_path / "found.json"
    found, printed = fly(setup.data, *words, json=file, precisions="bfloat16", seconds=30.0)
    assert found.failed is None, found.line()
    rows = printed.splitlines()
    assert [row.split()[0] for row in rows[:4]] == ["environment", "device", "setup", "data"]
    assert rows[-1] == found.line()
    assert "\x1b" not in printed
    read = json.loads(file.read_text())
    assert read == json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [stage["stage"] for stage in read["stages"]][-2:] == ["precision", "lr range"]
    stages = {stage["stage"]: stage for stage in read["stages"]}
    assert stages["gradient norm"]["details"]["max_norm"] == 5.0
    assert len(stages["forward"]["details"]["widest"]) == 10
    assert stages["precision"]["details"]["precisions"][0]["apart"] < 0.05
    assert stages["optimizer"]["details"]["groups"][0]["lr"] == 0.01
    left = tree(tmp_path) - before
    assert left == {"found.json", "data/labels/train.cache", "data/labels/val.cache"}
    assert (LOGGER.handlers, LOGGER.level) == (handlers, level)


def test_images_that_the_scan_leaves_out_are_told(setup: Setup) -> None:
    label = next((setup.folder / "data/labels/train").glob("*.txt"))
    label.write_text("9 0.5 0.5 0.1 0.1\n")
    found, _ = fly(setup.data, *setup.words, lr_range=False)
    assert found["setup"].verdict is StageVerdict.WARN
    assert label.stem in found["setup"].reason
    assert found.exit_code == 0


def test_a_step_that_takes_too_long_is_made_with_fewer_images(setup: Setup) -> None:
    found, _ = fly(setup.data, *setup.words, "batch=8", seconds=0.1)
    assert "4 of 8 samples" in found["forward"].figure
    assert "with 4 of 8 samples" in found["memory"].figure
    assert found["lr range"].verdict is StageVerdict.SKIP


# ---- spoiled -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name) for fault in PLANTED])
def test_every_planted_fault_stops_it_at_the_right_stage(fault: Planted, setup: Setup, here: Path) -> None:
    stage, said = stopped_at(setup, fault)
    assert stage == fault.stage, said
    assert said.replace("\n", "").isprintable()
    assert tree(here) == set()


def test_the_set_up_of_the_planted_faults_is_healthy(setup: Setup) -> None:
    assert stopped_at(setup, Planted(name="", stage=HEALTHY))[0] == HEALTHY


# ---- the verb ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return the command: exit code, stdout, stderr."""

    def carry_out(*words: object) -> tuple[int, str, str]:
        return carried_out(capsys, monkeypatch, "preflight", *words)

    return carry_out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        pytest.param(["lr_0=1"], "'lr_0' is not a setting of Ultralytics. Did you mean 'lr0'?", id="key"),
        pytest.param(["device=7"], "preflight: device=7 is not there", id="device"),
        pytest.param(["resume=True"], "preflight: resume=True is not supported", id="resume"),
        pytest.param(["--precision", "fp8"], "preflight: precision 'fp8' is not among float32", id="precision"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_code_2(
    words: list[str], line: str, setup: Setup, verb: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, err = verb(setup.data, *words)
    assert (code, out) == (2, "")
    assert line in err
    assert len(err.splitlines()) == 1


def test_a_failed_stage_is_exit_code_1_and_its_reason_and_fix_are_printed(
    setup: Setup, verb: Callable[..., tuple[int, str, str]], here: Path
) -> None:
    code, out, err = verb(setup.data, *setup.words, "lr0=0.0", "--traceback")
    assert (code, err) == (1, "")
    assert "optimizer      FAIL" in out
    assert "fix  Their learning rate is 0: set lr0." in out
    assert out.splitlines()[-1].startswith("FAIL at optimizer: the step moved nothing in 3 of 3 groups")


def test_ctrl_c_is_130(
    setup: Setup, verb: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(network, "forward", interrupted)
    code, out, err = verb(setup.data, *setup.words)
    assert code == 130
    assert err == "yolo-stable: interrupted.\n"
    assert "parameters" in out


def test_a_file_that_cannot_be_written_is_told(setup: Setup, here: Path) -> None:
    (here / "file").write_text("")
    with pytest.raises(InvalidCallError, match=r"preflight: --json .* cannot be written"):
        fly(setup.data, *setup.words, "lr0=0.0", json=here / "file" / "found.json")
