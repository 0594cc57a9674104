"""How the services of a trainer are built: in one place, of each other, without looking at the trainer."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from yolo_stable.checkpoints.trainer_view import TrainerView
from yolo_stable.trainer.services import Services

FIELDS = [field.name for field in dataclasses.fields(Services)]


class Unread:
    """A trainer that is not set up: whoever asks for anything of it has come too early."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was read while the services were built")


class Faulty:
    """A trainer's class with a fault in it."""

    chaos = SimpleNamespace(fired=0, fault=SimpleNamespace(place="pixel", value=float("nan")))


def built(trainer: object | None = None) -> Services:
    return Services.of(Unread() if trainer is None else trainer, lambda epoch: None)


def test_nothing_of_the_trainer_is_read_yet() -> None:
    services = built()
    assert [type(getattr(services, name)).__name__ for name in FIELDS] == [
        field.type for field in dataclasses.fields(Services)
    ]


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in {"view", "injections"}])
def test_the_services_that_one_holds_are_those_of_the_table(name: str) -> None:
    services = built()
    table: dict[type, Any] = {type(getattr(services, field)): getattr(services, field) for field in FIELDS}
    held = [value for value in vars(getattr(services, name)).values() if type(value) in table]
    assert services.view in held
    assert [one for one in held if one is not table[type(one)]] == []


def test_all_of_them_read_one_trainer() -> None:
    trainer = SimpleNamespace(epoch=1, amp=True, args=SimpleNamespace(amp="bf16"))
    services = built(trainer)
    assert isinstance(services.view, TrainerView)
    assert services.precision.available() == 2
    trainer.amp = False
    assert services.precision.available() == 1


def test_the_faults_in_the_class_of_the_trainer_are_known() -> None:
    assert built(Faulty()).injections.names == ("pixel nan",)
    assert built().injections.names == ()


def test_one_is_not_replaced_while_a_run_goes_on() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        built().window = None  # type: ignore[misc, assignment]


def test_what_two_of_them_hand_each_other() -> None:
    """A validation that is not finite is looked into by the incidents; a failed run undoes its resume; saves have its state."""
    made: list[int] = []
    services = Services.of(Unread(), made.append)
    services.checkpoints._make_content(3)
    assert made == [3]
    assert services.validation._look_into == services.incidents.look_into_validation
    assert services.ending._undo_resume == services.resume.undo
    assert services.checkpoints._collect_state == services.resume.collect
    assert services.resume._filled == services.next_steps.filled
