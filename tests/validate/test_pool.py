"""The process that touches the device: what it costs to lose it, and for how long anybody waits."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from yolo_stable.errors import InvalidCallError
from yolo_stable.validate import Status, pool
from yolo_stable.validate.battery import find_case
from yolo_stable.validate.pool import Pool

SEVEN = find_case("linear/depthwise7x7/contiguous/strict")


def test_a_device_that_does_not_answer_is_not_waited_for_any_longer_than_was_asked() -> None:
    slow = Pool("cpu", start_seconds=0.3)
    slow._command = ["sleep", "60"]
    begin = time.monotonic()
    with pytest.raises(InvalidCallError, match=r"did not answer within 0.3 s. Is its driver loaded\?"), slow:
        pass
    assert time.monotonic() - begin < 30
    assert slow._process is None


def test_a_process_that_ends_before_it_says_anything_is_told_with_its_last_words() -> None:
    broken = Pool("cpu")
    broken._command = ["sh", "-c", "echo libamdhip64.so: cannot open >&2; exit 3"]
    with (
        pytest.raises(InvalidCallError, match=r"did not answer: .*\(exit code 3\): libamdhip64.so: cannot open"),
        broken,
    ):
        pass


def test_a_process_that_cannot_be_killed_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs inside a driver does not die, and the validation must end all the same."""

    class Stuck:
        stdin = stdout = None
        waited: Any = None

        def kill(self) -> None:
            pass

        def wait(self, timeout: float | None = None) -> int:
            Stuck.waited = timeout
            raise subprocess.TimeoutExpired("worker", timeout or 0.0)

    stuck: Any = Stuck()
    asked = Pool("cpu")
    asked._process = stuck
    asked.close()
    assert (asked._process, Stuck.waited) == (None, pool._KILL_SECONDS)


@pytest.mark.usefixtures("warm_programs")
def test_what_hangs_twice_in_a_check_is_not_tried_a_third_time() -> None:
    views = [find_case(f"linear/depthwise7x7/{layout}/strict") for layout in ("contiguous", "channels_last", "view")]
    with Pool("cpu", inject="hangs", seconds=1.0) as asked:
        reasons = [asked.run(case).reason for case in views]
        asked.seconds = None
        other = asked.run(find_case("linear/matmul-odd/contiguous/strict"))
        assert asked.starts == 3
    assert reasons[:2] == ["no answer within 1 s: it hung, and the process was ended"] * 2
    assert reasons[2] == "not run: 2 other cases of this check hung or killed the process"
    assert other.status is Status.PASS
