"""What is to be done after an incident, and that each command of it does something."""

from __future__ import annotations

import pytest

from yolo_stable._shared.shell_text import GO_ON
from yolo_stable.autopsy.advice import Names, commands, named, next_step
from yolo_stable.autopsy.cause import CAUSES

HERE = Names(folder="my runs/incidents/0001", data="my data.yaml", model="yolo11s.pt", run="my runs")


def given(cause: str, names: Names = HERE, **facts: object) -> str:
    return named(next_step(cause, **facts), cause, names)  # type: ignore[arg-type]


@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_has_a_sentence_and_a_command_with_the_names_of_the_run(cause: str) -> None:
    sentence, *rest = given(cause).splitlines()
    assert sentence
    (command,) = commands(given(cause))
    assert command == rest[-1]
    for word in ("DATA", "MODEL", "RUN", "incidents/0001 "):
        assert f" {word}" not in f"{command} ".replace("'my runs/incidents/0001'", "")


@pytest.mark.parametrize("cause", CAUSES)
def test_where_nothing_is_known_there_is_a_sentence_and_no_command_that_needs_a_name(cause: str) -> None:
    step = given(cause, Names())
    assert step
    assert not step.endswith(":")
    assert set(commands(step)) <= {"yolo-stable validate"}


def test_the_names_are_quoted_for_a_shell() -> None:
    assert commands(given("data")) == ["yolo-stable check 'my data.yaml'"]
    assert commands(given("weights")) == [
        "yolo-stable train 'my data.yaml' 'model=my runs/weights/last_good.pt' --preset recovery"
    ]
    assert commands(given("undecided")) == ["yolo-stable autopsy 'my runs/incidents/0001' --frames 5"]


def test_the_device_that_is_asked_is_that_of_the_run() -> None:
    assert commands(given("hardware persistent", Names(device="cuda:1"))) == ["yolo-stable validate --device cuda:1"]


def test_a_run_without_a_checkpoint_is_not_told_to_go_on() -> None:
    assert named(f"It halted.\nGo on:\n{GO_ON}", "", Names(data="d.yaml")) == "It halted."


def test_a_file_called_as_a_placeholder_stays() -> None:
    assert given("data", files=("DATA/a.jpg",)).startswith("Repair or remove DATA/a.jpg.")


def test_the_file_and_the_line_are_named() -> None:
    assert "line 3 of the labels of a.jpg" in next_step("data", files=("a.jpg",), rows=(2,))
    assert "a.jpg, b.jpg, c.jpg and 2 more" in next_step("data", files=("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"))


def test_of_files_that_lie_on_each_other_not_all_are_said_to_be_bad() -> None:
    assert "remove what is bad among a.jpg, b.jpg." in next_step("data", files=("a.jpg", "b.jpg"), images=1)
    assert "remove a.jpg, b.jpg." in next_step("data", files=("a.jpg", "b.jpg"), images=2)


def test_more_time_is_advised_only_when_the_time_was_up() -> None:
    assert next_step("undecided").endswith("incidents/0001 --frames 5")
    assert "with more time" in next_step("undecided", hurried=True)


@pytest.mark.parametrize("cause", ["undecided", "hardware transient"])
def test_without_a_bundle_nobody_is_sent_to_one(cause: str) -> None:
    step = given(cause, Names(data="d.yaml", model="m.pt"))
    assert commands(step) == ["yolo-stable train d.yaml model=m.pt guard.incidents=100"]
    assert "was not kept" in step


@pytest.mark.parametrize("cause", CAUSES)
def test_without_a_network_in_the_bundle_nobody_is_sent_to_a_replay(cause: str) -> None:
    step = given(cause, Names(folder="r/incidents/0001", data="d.yaml", model="m.pt", replayable=False))
    assert "autopsy" not in step
    assert "replay" not in step
    assert not step.endswith(":")


def test_an_autopsy_is_not_told_to_run_itself_again() -> None:
    asked = Names(folder="r/incidents/0001", asked=True)
    assert commands(given("hardware transient", asked)) == []
    assert commands(given("undecided", asked, hurried=True)) == []
    assert commands(given("undecided", asked)) == ["yolo-stable autopsy r/incidents/0001 --frames 5"]


@pytest.mark.parametrize(
    ("preset", "end"),
    [
        (None, ["yolo-stable train d.yaml model=m.pt --preset stable"]),
        ("finetune", ["yolo-stable train d.yaml model=m.pt --preset stable"]),
        ("stable", ["yolo-stable train d.yaml model=m.pt --preset cautious"]),
        ("cautious", []),
        ("recovery", []),
    ],
)
def test_after_a_divergence_a_calmer_preset_is_advised_than_that_of_the_run(preset: str | None, end: list[str]) -> None:
    step = given("optimisation", Names(data="d.yaml", model="m.pt", preset=preset))
    assert commands(step) == end
    assert end or step.endswith("lower the learning rate.\nSet lr0= below that of the preset.")


def test_a_state_that_was_healed_is_no_reason_to_start_again() -> None:
    healed = given("weights", Names(data="d.yaml", run="r", healed=True))
    assert "Start again" not in healed
    assert healed.startswith("Nothing: ")
    assert commands(healed) == ["yolo-stable validate"]


def test_there_is_no_good_checkpoint_to_start_from_before_one_was_written() -> None:
    assert given("weights", Names(data="d.yaml")) == "The weights were ruined before the batch came."


class TestOwnLayers:
    OWN = Names(folder="r/incidents/0001", data="d.yaml", model="own.yaml", own=("Gate",))

    @pytest.mark.parametrize(
        ("cause", "options"), [("precision", 'preset="stable", amp=False'), ("optimisation", 'preset="stable"')]
    )
    def test_a_training_is_told_how_the_class_becomes_known(self, cause: str, options: str) -> None:
        lines = given(cause, self.OWN).splitlines()
        assert lines[-2:] == [
            'setattr(ultralytics.nn.tasks, "Gate", Gate)',
            f'# then as before YOLO("own.yaml").train(...), with {options}',
        ]
        assert commands("\n".join(lines)) == []

    def test_a_training_is_given_the_file(self) -> None:
        names = Names(
            data="d.yaml", model="own.yaml", last="r/weights/last.pt", own=("Gate",), own_files=("/my blocks.py",)
        )
        assert commands(given("optimisation", names)) == [
            "yolo-stable train d.yaml model=own.yaml --preset stable --import '/my blocks.py'"
        ]
        assert named(GO_ON, "", names) == (
            "yolo-stable train d.yaml model=r/weights/last.pt resume=True --import '/my blocks.py'"
        )

    def test_an_autopsy_is_given_the_file(self) -> None:
        names = Names(folder="r/incidents/0001", own=("Gate",), own_files=("/my blocks.py",))
        assert commands(given("undecided", names)) == [
            "yolo-stable autopsy r/incidents/0001 --frames 5 --import '/my blocks.py'"
        ]

    def test_a_class_of_the_script_itself_has_to_be_moved_first(self) -> None:
        step = given("undecided", self.OWN)
        assert commands(step) == []
        assert step.endswith("move Gate into a file of its own, and name that with --import.")


class TestInjected:
    def test_what_was_put_in_on_purpose_is_nothing_to_repair(self) -> None:
        names = Names(data="d.yaml", injected=("nan-pixel@1.2",), injected_now=("nan-pixel@1.2",))
        assert given("data", names, files=("a.jpg",)) == "Nothing: what broke was put in on purpose (nan-pixel@1.2)."

    def test_what_was_put_in_before_is_mentioned(self) -> None:
        step = given("data", Names(data="d.yaml", injected=("lr-x100@1.1",)), files=("a.jpg",))
        assert step.splitlines()[0].startswith("Faults were put into this run on purpose before (lr-x100@1.1)")
        assert "Repair or remove a.jpg." in step
