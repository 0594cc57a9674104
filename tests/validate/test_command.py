"""``yolo-stable validate``: what it prints and writes, and its exit codes. The process that touches the device is a real one."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from validations import CONV, check, failing, slice_of_battery, validation
from verb import carried_out

from yolo_stable.cli import main as cli
from yolo_stable.data.builtin import CACHE_VARIABLE
from yolo_stable.validate import BACKENDS, IncomparableError, Progress, ValidationResult, from_json, to_json
from yolo_stable.validate import command as validate_run
from yolo_stable.validate import show as validate_show
from yolo_stable.validate.healing import Healing
from yolo_stable.validate.verdict_cache import DeviceIdentity, folder, recall

STEM, MATMUL = (f"linear/{name}/contiguous/strict" for name in ("conv-stem", "matmul-nt"))
Answer = tuple[int, str, str]
Command = Callable[..., Answer]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))

    def carry_out(*words: object) -> Answer:
        return carried_out(capsys, monkeypatch, "validate", *words)

    return carry_out


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[[ValidationResult], dict[str, Any]]:
    """Let the next validation find what is given; returns what it was asked."""
    asked: dict[str, Any] = {}

    def find(result: ValidationResult) -> dict[str, Any]:
        def validate(device: Any, tier: Any, seed: Any, inject: Any, progress: Any, stress: Any, **more: Any) -> Any:
            asked.update(device=device, tier=tier, seed=seed, inject=inject, stress=stress, **more)
            for i, r in enumerate(result.results):
                progress(Progress(done=i, total=len(result.results), id=r.id, result=None))
                progress(Progress(done=i + 1, total=len(result.results), id=r.id, result=r))
            return replace(result, inject=inject)

        monkeypatch.setattr(validate_run, "validate", validate)
        return asked

    return find


# ---- the battery ---------------------------------------------------------------------------------------------------------


def test_a_clean_cpu_passes_and_a_fault_is_a_regression_against_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slice_of_battery(monkeypatch, STEM, MATMUL)
    words = ("--device", "cpu", "--quick", "--no-heal", "--json")
    code, out, err = command(*words, "a.json", "--html", "a.html")
    assert code == 0
    assert out.startswith("PASS: ")
    assert out.endswith("a.json was written.\na.html was written.\n")
    assert err == "linear: 2 pass\n"
    result = from_json((tmp_path / "a.json").read_text())
    assert [r.id for r in result.results] == [STEM, MATMUL]
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    kept = recall(DeviceIdentity.of("cpu", "cpu", result.device_name, result.environment))
    assert kept is not None
    assert (kept.status.value, kept.checks) == ("pass", 2)

    code, out, err = command(*words, "b.json", "--inject", "zero-tail")
    assert code == 1
    assert out.startswith("FAIL: ")
    assert err.splitlines() == [f"fail {STEM}: {first_reason(tmp_path / 'b.json')}", "linear: 1 fail, 1 pass"]
    assert len(list(folder().iterdir())) == 1  # what was found under an injected fault says nothing about the device

    assert command("--compare", "a.json", "a.json")[:1] == (0,)
    code, out, err = command("--compare", "a.json", "b.json", "--json", "c.json", "--html", "c.html")
    assert (code, err) == (1, "")
    assert out.startswith(f"REGRESSION: b.json (with the fault zero-tail) is worse than a.json in 1 check: {STEM}.\n")
    assert json.loads((tmp_path / "c.json").read_text())["status"] == "regression"
    assert "REGRESSION" in (tmp_path / "c.html").read_text()


def first_reason(path: Path) -> str:
    return from_json(path.read_text()).failed()[0].reason


def test_a_failure_is_searched_for_what_heals_it_and_the_line_stands_everywhere(
    command: Command, found: Callable[[ValidationResult], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    setting, off = BACKENDS["rocm"].heals[2], BACKENDS["rocm"].heals[-2]
    healing = Healing(chosen=(setting, off), heals={CONV: setting, MATMUL: off}, failing=2)
    searched: list[Any] = []
    monkeypatch.setattr(validate_run, "search", lambda *a, **k: (searched.append(a), healing)[1])
    found(validation(failing(), failing(MATMUL), check(STEM)))
    code, out, _ = command("--json", "a.json", "--html", "a.html")
    line = "export MIOPEN_DEBUG_CONV_WINOGRAD=0"
    assert code == 1
    assert f"2 of 2 failing checks pass with {line}; torch.backends.cudnn.enabled = False." in out.splitlines()[0]
    assert f"\n    {line}\n    torch.backends.cudnn.enabled = False  # in Python, before training\n" in out
    assert from_json((tmp_path / "a.json").read_text()).failed()[0].heal == line
    assert line in (tmp_path / "a.html").read_text()
    assert command("--no-heal")[0] == 1
    assert len(searched) == 1


def test_warnings_pass(command: Command, found: Callable[[ValidationResult], Any]) -> None:
    found(validation(check(status=type(check().status)("warn"), reason="out: q 9.0e+01 is over 6.4e+01")))
    code, out, _ = command()
    assert code == 0
    assert "1 with a warning" in out
    assert "q 9.0e+01 is over 6.4e+01" in out


def test_the_options_reach_the_battery(command: Command, found: Callable[[ValidationResult], dict[str, Any]]) -> None:
    asked = found(validation())
    command("--device", "cuda:1", "--full", "--seed", "3", "--stress", "2.5", "--recompute-reference")
    assert asked == {
        "device": "cuda:1", "tier": "full", "seed": 3, "inject": None, "stress": 2.5, "recompute_reference": True,
        "families": (), "settings": None,
    }  # fmt: skip
    command()
    assert (asked["device"], asked["tier"], asked["seed"], asked["stress"]) == (None, "default", 0, 0.0)


# ---- what is shown -------------------------------------------------------------------------------------------------------


def test_colours_and_the_bar_are_for_a_terminal_only(
    command: Command, found: Callable[[ValidationResult], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    found(validation(failing(), check(STEM)))
    monkeypatch.setenv("FORCE_COLOR", "1")  # of some other tool: a file stays plain all the same
    _, out, err = command("--no-heal")
    assert "\x1b" not in out + err
    monkeypatch.delenv("FORCE_COLOR")
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "argv", ["yolo-stable", "validate", "--no-heal"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "\x1b[1;31mFAIL" in screen.getvalue()
    assert "linear: 1 fail" not in screen.getvalue()  # the bar is there instead


def test_a_name_with_brackets_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    validate_show.show_result(validation(failing(reason="[bold]wrong[/bold] :smile:")), None)
    assert "[bold]wrong[/bold] :smile:" in capsys.readouterr().out


# ---- wrong calls ---------------------------------------------------------------------------------------------------------

WRONG = [
    ("--quick --full", "--quick and --full exclude each other"),
    ("--seed=-1", "--seed -1 is not allowed"),
    ("--stress 0", "--stress 0 is not allowed"),
    ("--stress nan", "--stress nan is not allowed"),
    ("a.json", "a.json is a result without --compare"),
    ("--compare", "--compare takes two results or more"),
    ("--compare a.json", "--compare takes two results or more"),
    ("--compare a.json gone.json", "gone.json cannot be read: No such file or directory"),
    ("--compare a.json a.json --seed 0", "--compare only reads results: leave --seed out"),
    ("--compare a.json a.json --no-heal", "--compare only reads results: leave --no-heal out"),
    ("--compare a.json a.json --html a.json", "--html a.json would overwrite a result that is compared"),
    ("--json .", "--json . is a folder"),
    ("--json a.json/b.json", "--json a.json/b.json cannot be made: "),
    ("--json new.json --html new.json", "--json and --html are the same file"),
    ("--inject nope", "There is no fault 'nope'. "),
    ("--inject zero-tial", "There is no fault 'zero-tial'. Did you mean 'zero-tail'?"),
]


@pytest.mark.parametrize(("words", "line"), WRONG, ids=[words for words, _ in WRONG])
def test_a_wrong_call_is_one_clear_line_and_computes_nothing(command: Command, words: str, line: str) -> None:
    Path("a.json").write_text(to_json(validation()))
    before = Path("a.json").read_text()
    code, out, err = command(*words.split())
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.removeprefix("yolo-stable: ").removeprefix("validate: ").startswith(line)
    assert Path("a.json").read_text() == before


def test_a_device_that_is_not_there_is_one_clear_line(command: Command) -> None:
    code, out, err = command("--device", "xpu", "--quick")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("yolo-stable: The device 'xpu' is not there: torch ")


def test_results_that_cannot_be_compared_end_with_3(command: Command) -> None:
    Path("a.json").write_text(to_json(validation()))
    Path("b.json").write_text(to_json(validation())[:500])
    code, out, err = command("--compare", "a.json", "b.json")
    assert (code, out, len(err.splitlines())) == (IncomparableError.exit_code, "", 1)
    assert err.startswith("yolo-stable: b.json is not JSON, or was cut short: ")


def test_a_file_that_cannot_be_written_in_the_end_is_told_after_the_verdict(
    command: Command, found: Callable[[ValidationResult], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found(validation())

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(validate_run, "write_whole", full)
    code, out, err = command("--json", "a.json")
    assert code == 1
    assert out.startswith("PASS: ")
    assert err.splitlines()[-1] == "yolo-stable: validate: a.json could not be written: No space left on device."


def test_results_of_the_same_name_are_told_apart_by_their_folders(command: Command) -> None:
    for name in ("a", "b"):
        Path(name).mkdir()
        Path(name, "r.json").write_text(to_json(validation()))
    _, out, _ = command("--compare", "a/r.json", "b/r.json")
    assert out.startswith("SAME: 1 check, b/r.json no worse than a/r.json.")
