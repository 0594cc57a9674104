"""The search for a setting that heals: on a simulated card in real processes, and its rules with processes that are made up."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from validations import CONV, check, failing, validation

from yolo_stable.errors import InvalidCallError
from yolo_stable.validate import BACKENDS, CheckResult, HealSetting, Status, to_json
from yolo_stable.validate import healing as module
from yolo_stable.validate.check import CheckCase
from yolo_stable.validate.healing import Healing, healed, search

WINOGRAD = next(s for s in BACKENDS["rocm"].heals if s.name == "MIOPEN_DEBUG_CONV_WINOGRAD=0")
DIRECT = next(s for s in BACKENDS["rocm"].heals if s.name == "MIOPEN_DEBUG_CONV_DIRECT=0")
SDPA = next(s for s in BACKENDS["rocm"].heals if s.name == "sdpa=math")
STEM, MATMUL = (f"linear/{name}/contiguous/strict" for name in ("conv-stem", "matmul-nt"))


def test_the_variable_that_heals_a_simulated_card_is_found_and_is_a_line_to_paste() -> None:
    inject = "zero-tail@MIOPEN_DEBUG_CONV_WINOGRAD=0"
    result = validation(failing(STEM), failing(CONV), check(MATMUL))
    healing = search(result, "simulated-rocm", inject=inject, settings=(WINOGRAD, SDPA))
    assert healing.vanished == ()
    assert [(t.setting, len(t.passed)) for t in healing.trials] == [(WINOGRAD, 2)]
    assert healing.chosen == (WINOGRAD,)
    assert healing.summary == "2 of 2 failing checks pass with export MIOPEN_DEBUG_CONV_WINOGRAD=0."
    assert "MIOPEN_DEBUG_CONV_WINOGRAD" not in os.environ
    mended = healed(result, healing)
    assert [r.heal for r in mended.results] == ["export MIOPEN_DEBUG_CONV_WINOGRAD=0"] * 2 + [None]
    assert mended.status is Status.FAIL
    assert to_json(mended).count('"heal": "export MIOPEN_DEBUG_CONV_WINOGRAD=0"') == 2


def test_a_switch_of_torch_heals_as_well() -> None:
    off = next(s for s in BACKENDS["cuda"].heals if s.name == "cudnn.enabled=False")
    result = validation(failing(STEM), backend="cuda")
    healing = search(result, "simulated-cuda", inject="zero-tail@cudnn.enabled=False", settings=(off,))
    assert (healing.vanished, healing.line) == ((), "torch.backends.cudnn.enabled = False")


# ---- the rules -----------------------------------------------------------------------------------------------------------


class FakePool:
    """A process in which cases pass as ``passing`` says of the setting in force."""

    passing: Callable[[dict[str, Any], str], bool]
    started: list[dict[str, Any]]
    ran: list[str]

    def __init__(self, device: str | None, *, settings: dict[str, Any], seconds: float, **_: Any) -> None:
        self.settings = settings
        assert device == "rocm:0"
        assert seconds <= 60
        FakePool.started.append(settings)

    def __enter__(self) -> FakePool:
        if self.settings["env"].get("MIOPEN_DEBUG_CONV_FFT"):
            raise InvalidCallError("The device cannot be asked.")
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, case: CheckCase) -> CheckResult:
        FakePool.ran.append(case.id)
        return check(case.id) if FakePool.passing(self.settings, case.id) else failing(case.id)


@pytest.fixture(autouse=True)
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "passing" in request.fixturenames:
        FakePool.started, FakePool.ran = [], []
        monkeypatch.setattr(module, "Pool", FakePool)


@pytest.fixture
def passing() -> Callable[[Callable[[dict[str, Any], str], bool]], None]:
    def choose(rule: Callable[[dict[str, Any], str], bool]) -> None:
        FakePool.passing = staticmethod(rule)

    return choose


Rule = Callable[[Callable[[dict[str, Any], str], bool]], None]


def under(settings: dict[str, Any], setting: HealSetting) -> bool:
    return settings["env"] == dict(setting.env) and settings["flags"] == dict(setting.flags) and bool(settings["env"])


def test_two_settings_are_taken_where_no_single_one_heals_all(passing: Rule) -> None:
    passing(lambda s, name: (under(s, WINOGRAD) and "conv" in name) or (under(s, DIRECT) and "conv" not in name))
    healing = search(validation(failing(STEM), failing(CONV), failing(MATMUL)))
    assert healing.chosen == (WINOGRAD, DIRECT)
    assert healing.heals == {STEM: WINOGRAD, CONV: WINOGRAD, MATMUL: DIRECT}
    assert healing.line == "export MIOPEN_DEBUG_CONV_WINOGRAD=0; export MIOPEN_DEBUG_CONV_DIRECT=0"
    assert len(FakePool.started) == 1 + len(healing.trials)
    problems = [t.problem for t in healing.trials if t.problem]
    assert problems == ["The device cannot be asked."]  # under this setting nothing runs, and the search goes on


def test_the_search_ends_with_the_first_setting_that_heals_all(passing: Rule) -> None:
    passing(lambda s, name: bool(s["env"]) or bool(s["flags"]))
    healing = search(validation(failing()))
    assert healing.chosen == (BACKENDS["rocm"].heals[1],)  # the first is to unset a variable that is not set
    assert len(healing.trials) == 1


def test_one_case_of_each_check_is_tried_and_the_others_under_what_was_found_only(passing: Rule) -> None:
    passing(lambda s, name: under(s, DIRECT))
    layouts = [f"linear/conv3x3-64/{layout}/{p}" for layout in ("contiguous", "view") for p in ("strict", "bfloat16")]
    healing = search(validation(*map(failing, layouts)), settings=(WINOGRAD, DIRECT))
    assert set(healing.heals) == set(layouts)
    assert FakePool.ran.count(layouts[0]) == 3
    assert FakePool.ran.count(layouts[1]) == 2  # nothing changed, and under the setting that heals


def test_a_failure_that_comes_and_goes_is_not_called_healed(passing: Rule) -> None:
    passing(lambda s, name: True)
    result = validation(failing())
    healing = search(result)
    assert (healing.chosen, healing.vanished, healing.trials) == ((), (CONV,), ())
    assert healing.summary == "1 passed when run again: the failure is intermittent."
    (check,) = healed(result, healing).results
    assert (check.heal, check.notes) == (None, ("passed when run again in a new process",))


def test_nothing_that_is_known_heals(passing: Rule) -> None:
    passing(lambda s, name: False)
    healing = search(validation(failing()))
    assert healing.summary == "none of 13 settings heals any of 1 failing checks."
    assert healing.line == ""


def test_the_search_ends_when_its_time_is_over(passing: Rule) -> None:
    passing(lambda s, name: False)
    healing = search(validation(failing()), seconds=0)
    assert (healing.trials, healing.complete) == ((), False)
    assert healing.summary.endswith("the time ran out before all was tried.")


def test_a_setting_that_is_in_force_already_is_not_tried(passing: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    passing(lambda s, name: False)
    monkeypatch.setenv("MIOPEN_DEBUG_CONV_WINOGRAD", "0")
    monkeypatch.setenv("HSA_OVERRIDE_GFX_VERSION", "10.3.0")
    healing = search(validation(failing(), environment={"switches": {"cudnn.enabled": False}, "variables": {}}))
    tried = [t.setting.name for t in healing.trials]
    assert tried[0] == "HSA_OVERRIDE_GFX_VERSION unset"
    assert "MIOPEN_DEBUG_CONV_WINOGRAD=0" not in tried
    assert "cudnn.enabled=False" not in tried


def test_where_nothing_failed_nothing_is_searched() -> None:
    assert search(validation()) == Healing()
    stress = failing("determinism/stress/contiguous/strict", id="determinism/stress", check="determinism/stress")
    assert search(validation(stress)) == Healing()  # cannot be run alone
