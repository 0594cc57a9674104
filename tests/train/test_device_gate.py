"""``validate=quick`` and ``validate=heal`` of ``yolo-stable train``."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from validations import CONV, check, failing, validation

from yolo_stable.data.builtin import CACHE_VARIABLE
from yolo_stable.errors import InvalidCallError, YoloStableError
from yolo_stable.train import device_gate as train_validation
from yolo_stable.train.call import TrainCall
from yolo_stable.train.device_gate import prepared
from yolo_stable.validate import BACKENDS, HealSetting, ValidationResult
from yolo_stable.validate.healing import Healing
from yolo_stable.validate.verdict_cache import DeviceIdentity, DeviceVerdict, remember

WINOGRAD = next(s for s in BACKENDS["rocm"].heals if s.name == "MIOPEN_DEBUG_CONV_WINOGRAD=0")
OFF = next(s for s in BACKENDS["rocm"].heals if s.name == "cudnn.enabled=False")
VARIABLE = "MIOPEN_DEBUG_CONV_WINOGRAD"
FACTS = {"torch": "2.9", "hip": "7.0", "driver": "amdgpu 6.1", "switches": {"cudnn.enabled": True}}


class Card:
    """A card of which a simulated validation finds what ``passes_with`` says."""

    def __init__(self) -> None:
        self.passes_with: tuple[HealSetting, ...] | None = ()
        """The settings under which it computes rightly; empty: without any; None: never."""
        self.validated: list[dict[str, Any]] = []
        self.asked: list[str | None] = []

    def environment(self, flags: dict[str, Any]) -> dict[str, Any]:
        switches = {**FACTS["switches"], **flags}  # type: ignore[dict-item]
        return {**FACTS, "switches": switches, "variables": {k: v for k, v in os.environ.items() if k == VARIABLE}}

    def pool(self, device: str | None) -> Any:
        self.asked.append(device)
        if device in ("cuda:7", "xpu"):
            raise InvalidCallError(f"The device {device!r} is not there.")
        said = {
            "backend": "rocm",
            "device": device,
            "device_name": "Radeon of 2031",
            "environment": self.environment({}),
        }
        return nullcontext(SimpleNamespace(hello=said))

    def examine(
        self, device: str, tier: str, *, settings: dict[str, Any], heal: bool
    ) -> tuple[ValidationResult, Healing | None]:
        self.validated.append(settings)
        flags = settings.get("flags", {})
        environment = self.environment(flags)
        force = {**environment["variables"], **flags}
        good = self.passes_with is not None and all(
            force.get(name) == value for s in self.passes_with for name, value in {**s.env, **s.flags}.items()
        )
        result = validation(check() if good else failing(), device=device, tier=tier, environment=environment)
        chosen = self.passes_with or ()
        healing = (
            Healing(chosen=chosen, heals=dict.fromkeys([CONV], chosen[0]) if chosen else {}, failing=1)
            if heal and not good
            else None
        )
        identity = DeviceIdentity.of("rocm", device, result.device_name, environment)
        remember(identity, DeviceVerdict.of(result, healing))
        return result, healing


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv(VARIABLE, "")  # so that what a test sets is put back
    monkeypatch.delenv(VARIABLE)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    made = Card()
    monkeypatch.setattr(train_validation, "Pool", made.pool)
    monkeypatch.setattr(train_validation, "examine", made.examine)
    return made


def call(data: str, *words: str) -> TrainCall:
    return TrainCall.parse(data, words)


@pytest.fixture
def data(tmp_path: Path) -> str:
    (tmp_path / "data.yaml").touch()
    return str(tmp_path / "data.yaml")


# ---- the word ------------------------------------------------------------------------------------------------------------


def test_it_is_no_argument_of_ultralytics() -> None:
    wish = call("data.yaml", "validate=heal", "epochs=1")
    assert (wish.validate, wish.settings) == ("heal", {"epochs": 1})
    assert call("data.yaml").validate is None
    assert call("data.yaml", "validate=none").validate is None
    assert call("data.yaml", "validate=False").validate is None


@pytest.mark.parametrize("value", ["quik", "True", "full", "1"])
def test_another_value_is_refused(value: str) -> None:
    with pytest.raises(InvalidCallError, match=f"train: validate={value} is not allowed. It must be quick or heal"):
        call("data.yaml", f"validate={value}")


def test_nothing_is_validated_for_a_data_set_that_is_not_there(card: Card) -> None:
    with pytest.raises(InvalidCallError, match="there is no data set"):
        prepared(call("gone.yaml", "validate=quick"))
    assert card.asked == []


def test_torch_is_not_imported_before_the_variables_are_set() -> None:
    code = "import sys, yolo_stable.train.device_gate\nprint({'torch', 'ultralytics', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")


# ---- quick ---------------------------------------------------------------------------------------------------------------


def test_a_device_that_passes_is_validated_once(card: Card, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert prepared(call(data, "validate=quick", "device=0")).switches == {}
    assert len(card.validated) == 1
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "Validating cuda:0 (Radeon of 2031, torch 2.9, driver amdgpu 6.1) before training."
    assert second.endswith(": pass, 1 check in 41 s.")
    assert third.endswith(": pass, 1 check, as validated at 2031-01-02T03:04:05+00:00.")


def test_a_device_that_fails_is_not_trained_on_and_nothing_is_applied(card: Card, data: str) -> None:
    card.passes_with = (WINOGRAD,)
    for _ in range(2):
        with pytest.raises(YoloStableError) as error:
            prepared(call(data, "validate=quick", "device=0"))
        assert str(error.value).endswith(
            f"fails 1 of 1 check ({CONV}). Training did not start.\nHeal it in this shell, or add validate=heal:\n"
            "export MIOPEN_DEBUG_CONV_WINOGRAD=0"
        )
        assert error.value.exit_code == 1
    assert len(card.validated) == 1
    assert VARIABLE not in os.environ


@pytest.mark.parametrize("wish", ["quick", "heal"])
def test_a_device_that_nothing_heals_is_not_trained_on(card: Card, data: str, wish: str) -> None:
    card.passes_with = None
    with pytest.raises(YoloStableError, match="and no known setting heals it"):
        prepared(call(data, f"validate={wish}", "device=0"))


def test_without_a_device_the_one_is_asked_that_ultralytics_would_take(
    card: Card, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(call(data, "validate=quick"))
    assert card.asked == ["cuda"]

    def none_there(device: str) -> Any:
        card.asked.append(device)
        if device == "cuda":
            raise InvalidCallError("The device 'cuda' is not there.")
        return card.pool(device)

    monkeypatch.setattr(train_validation, "Pool", none_there)
    prepared(call(data, "validate=quick"))
    assert card.asked == ["cuda", "cuda", "cpu", "cpu"]


def test_a_device_that_is_not_there_is_a_wrong_call(card: Card, data: str) -> None:
    with pytest.raises(InvalidCallError, match="'cuda:7' is not there"):
        prepared(call(data, "validate=quick", "device=7"))


def test_every_device_of_a_training_is_validated(card: Card, data: str) -> None:
    prepared(call(data, "validate=quick", "device=0,1"))
    assert card.asked == ["cuda:0", "cuda:1"]
    assert len(card.validated) == 2


# ---- heal ----------------------------------------------------------------------------------------------------------------


def test_a_variable_that_heals_is_set_and_the_device_validated_under_it(
    card: Card, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    card.passes_with = (WINOGRAD,)
    assert prepared(call(data, "validate=heal", "device=0")).switches == {}
    assert os.environ[VARIABLE] == "0"
    assert len(card.validated) == 2
    said = (
        "Healed: this training runs with export MIOPEN_DEBUG_CONV_WINOGRAD=0, under which the device passes (1 check)."
    )
    assert capsys.readouterr().out.splitlines()[-1] == said
    del os.environ[VARIABLE]
    prepared(call(data, "validate=heal", "device=0"))  # both verdicts are kept
    assert (os.environ[VARIABLE], len(card.validated)) == ("0", 2)
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_a_variable_that_the_user_has_set_is_all_that_is_needed(
    card: Card, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card.passes_with = (WINOGRAD,)
    with pytest.raises(YoloStableError):
        prepared(call(data, "validate=quick", "device=0"))
    monkeypatch.setenv(VARIABLE, "0")
    prepared(call(data, "validate=quick", "device=0"))
    assert len(card.validated) == 2  # the verdict without the variable says nothing


def test_a_switch_that_heals_is_handed_on(card: Card, data: str) -> None:
    card.passes_with = (OFF,)
    assert prepared(call(data, "validate=heal", "device=0")).switches == {"cudnn.enabled": False}
    assert card.validated[-1] == {"env": {}, "flags": {"cudnn.enabled": False}}


def test_a_switch_cannot_be_handed_to_the_workers_of_several_devices(card: Card, data: str) -> None:
    card.passes_with = (OFF,)
    with pytest.raises(YoloStableError, match="can be switched in one process only"):
        prepared(call(data, "validate=heal", "device=0,1"))


def test_what_does_not_heal_everything_is_taken_back(card: Card, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    card.passes_with = (WINOGRAD,)
    whole = card.examine
    monkeypatch.setattr(
        train_validation, "examine", lambda *a, **k: (failing_again(whole(*a, **k)[0]), whole(*a, **k)[1])
    )
    with pytest.raises(YoloStableError, match=r"and with export MIOPEN_DEBUG_CONV_WINOGRAD=0 still 1 of 1 check"):
        prepared(call(data, "validate=heal", "device=0"))
    assert VARIABLE not in os.environ


def failing_again(result: ValidationResult) -> ValidationResult:
    return replace(result, results=(failing(),))


def test_a_failure_whose_healing_was_never_looked_for_is_looked_at_again(card: Card, data: str) -> None:
    identity = DeviceIdentity.of("rocm", "cuda:0", "Radeon of 2031", card.environment({}))
    remember(identity, DeviceVerdict.of(validation(failing())))
    card.passes_with = (WINOGRAD,)
    prepared(call(data, "validate=heal", "device=0"))
    assert os.environ[VARIABLE] == "0"
