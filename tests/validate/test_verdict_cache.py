"""Verdicts that are kept: for which device and version, whole or not at all, and once asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from validations import CONV, failing, validation

from yolo_stable.data.builtin import CACHE_VARIABLE
from yolo_stable.validate import BACKENDS, Status
from yolo_stable.validate import verdict_cache as validated
from yolo_stable.validate.healing import Healing
from yolo_stable.validate.verdict_cache import DeviceIdentity, DeviceVerdict, folder, is_first_time, recall, remember

ENVIRONMENT: dict[str, Any] = {
    "torch": "2.9", "hip": "7.0", "driver": "amdgpu 6.1", "uuid": "", "gcn_arch": "gfx1100", "threads": 2,
    "variables": {"OMP_NUM_THREADS": "2"}, "switches": {"cudnn.enabled": True},
}  # fmt: skip
GOOD = DeviceVerdict(status=Status.PASS, tier="quick", checks=244, when="2031-01-02T03:04:05+00:00")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def card(device: str = "cuda:0", name: str = "Radeon of 2031", **facts: Any) -> DeviceIdentity:
    return DeviceIdentity.of("rocm", device, name, {**ENVIRONMENT, **facts})


def test_a_verdict_comes_back_as_it_was() -> None:
    setting = BACKENDS["rocm"].heals[2]
    result = validation(failing())
    verdict = DeviceVerdict.of(result, Healing(chosen=(setting,), heals={CONV: setting}, failing=1))
    assert (verdict.status, verdict.failed, verdict.searched) == (Status.FAIL, (CONV,), True)
    assert verdict.env == {"MIOPEN_DEBUG_CONV_WINOGRAD": "0"}
    assert remember(card(), verdict) == ""
    assert recall(card()) == verdict
    assert recall(card(device="cuda")) == verdict  # the same, named without its index
    assert [path.suffix for path in folder().iterdir()] == [".json"]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"torch": "3.0"}, id="torch"),
        pytest.param({"driver": "amdgpu 6.2"}, id="driver"),
        pytest.param({"hip": "7.1"}, id="runtime"),
        pytest.param({"device": "cuda:1"}, id="second card"),
        pytest.param({"name": "Radeon of 2032"}, id="other card"),
        pytest.param({"variables": {"MIOPEN_DEBUG_CONV_WINOGRAD": "0"}}, id="setting"),
        pytest.param({"switches": {"cudnn.enabled": False}}, id="switch"),
    ],
)
def test_it_holds_for_this_device_driver_version_and_setting_only(other: dict[str, Any]) -> None:
    remember(card(), GOOD)
    assert recall(card()) == GOOD
    assert recall(card(**other)) is None


@pytest.mark.parametrize("other", [{"threads": 1}, {"variables": {"OMP_NUM_THREADS": "1"}}, {"blas": "x"}])
def test_what_changes_no_kernel_of_a_card_changes_no_verdict(other: dict[str, Any]) -> None:
    remember(card(), GOOD)
    assert recall(card(**other)) == GOOD


def test_a_card_with_a_uuid_is_the_same_in_another_slot() -> None:
    assert card("cuda:0", uuid="GPU-1").key == card("cuda:1", uuid="GPU-1").key
    assert card("cuda:0", uuid="GPU-1").key != card("cuda:0", uuid="GPU-2").key


def test_another_battery_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(card(), GOOD)
    monkeypatch.setattr(validated, "SUITE", "99")
    assert recall(card()) is None


def test_a_larger_battery_answers_for_a_smaller_one() -> None:
    remember(card(), GOOD)
    assert recall(card(), "default") is None
    remember(card(), DeviceVerdict(status=Status.PASS, tier="full", checks=900))
    found = recall(card(), "default")
    assert found is not None
    assert found.checks == 900


def test_a_device_under_a_setting_is_what_it_is_when_the_setting_is_really_there() -> None:
    there = card(variables={"MIOPEN_DEBUG_CONV_WINOGRAD": "0"}, switches={"cudnn.enabled": False})
    assert card().under({"MIOPEN_DEBUG_CONV_WINOGRAD": "0"}, {"cudnn.enabled": False}).key == there.key
    overridden = card(variables={"HSA_OVERRIDE_GFX_VERSION": "10.3.0"})
    assert overridden.under({"HSA_OVERRIDE_GFX_VERSION": ""}, {}).key == card().key


@pytest.mark.parametrize("text", ["", "{", "[]", '{"form": 1}', '{"form": 99, "verdict": {}}', "null"])
def test_a_file_that_cannot_be_read_counts_as_none(text: str) -> None:
    remember(card(), GOOD)
    (file,) = folder().iterdir()
    file.write_text(text)
    assert recall(card()) is None
    assert remember(card(), GOOD) == ""
    assert recall(card()) == GOOD


def test_the_file_says_in_words_what_it_is_about() -> None:
    remember(card(), GOOD)
    (file,) = folder().iterdir()
    content = json.loads(file.read_text())
    assert content["device"] == "cuda:0 (Radeon of 2031, torch 2.9, driver amdgpu 6.1)"
    assert content["verdict"]["status"] == "pass"


def test_a_folder_that_cannot_be_written_is_told_and_ends_nothing(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    problem = remember(card(), GOOD)
    assert problem.startswith(f"{cache / 'validated'}")
    assert recall(card()) is None
    assert [is_first_time(card()), is_first_time(card())] == [True, True]


def test_the_first_time_is_once_for_each_device_and_version() -> None:
    assert [is_first_time(card()) for _ in range(3)] == [True, False, False]
    assert is_first_time(card(torch="3.0"))
    assert is_first_time(card(name="another"))
    assert recall(card()) is None  # to have been asked is no verdict
