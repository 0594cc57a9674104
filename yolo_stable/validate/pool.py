"""Pool: a long-lived process that runs cases and is started again when it dies or hangs; no operation ends a validation."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from ..errors import InvalidCallError
from .check import CheckCase
from .gate import Status
from .result import CheckResult
from .result_file import check_from_json

START_SECONDS = 180.0
"""For torch to be imported and the device to answer: 3 s here; a first start from a network disk took a minute."""
_KILL_SECONDS = 5.0
"""For a killed process to be gone. One that hangs inside a driver lives as long as the driver; nobody waits for it."""
_GIVE_UP = 2
"""Cases of one check that may hang or kill the process; its other cases are not tried then."""
_WAITING = ("OMP_WAIT_POLICY", "PASSIVE")
"""Waiting CPU threads sleep instead of spinning. This changes no number; beside other work on the same cores the references
take a fifth of the time (measured: 18 s instead of 98 s)."""
_PACKAGES = Path(__file__).parents[2]


class Pool:
    """Asks a worker process for one case after another; the arguments are those of :func:`~yolo_stable.validate.run.validate`."""

    def __init__(
        self,
        device: str | None,
        *,
        seed: int = 0,
        inject: str | None = None,
        settings: Mapping[str, Any] | None = None,
        recompute_reference: bool = False,
        seconds: float | None = None,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self.seconds, self.start_seconds = seconds, start_seconds
        self._command = [sys.executable, "-m", "yolo_stable.validate.worker", "--serve", "--seed", str(seed)]
        self._command += ["--device", device] if device else []
        self._command += ["--inject", inject] if inject else []
        self._command += ["--recompute-reference"] if recompute_reference else []
        self._command += ["--settings", json.dumps(settings or {})]
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._log: IO[bytes] | None = None
        self._lost: dict[str, int] = {}
        self.starts = 0
        """How often a process was started; never reset."""
        self.hello: dict[str, Any] = {}
        """What the process said about the device."""

    def __enter__(self) -> Pool:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, case: CheckCase) -> CheckResult:
        """Return the verdict on a case; a process that dies or is silent for too long is a failure of that case alone."""
        if self._lost.get(case.check.id, 0) >= _GIVE_UP:
            return CheckResult.of(
                case, Status.FAIL, f"not run: {_GIVE_UP} other cases of this check hung or killed the process"
            )
        try:
            if self._process is None:
                self._start()
            process = self._process
            assert process is not None
            assert process.stdin is not None
            process.stdin.write(case.id + "\n")
            process.stdin.flush()
        except InvalidCallError as error:
            return self._count(case, f"the device no longer answers: {error}")
        except OSError:
            return self._count(case, self._obituary())
        limit = self.seconds or case.check.seconds
        try:
            line = self._lines.get(timeout=limit)
        except queue.Empty:
            self.close()
            return self._count(case, f"no answer within {limit:g} s: it hung, and the process was ended")
        if line is None:
            return self._count(case, self._obituary())
        return check_from_json(line)

    def close(self) -> None:
        """End the process, at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_KILL_SECONDS)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what was not written yet goes to a process that is dead
                        pipe.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _start(self) -> None:
        env = dict(os.environ)
        env["PYTHONPATH"] = os.pathsep.join([str(_PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])])
        env.setdefault(*_WAITING)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs
        self._lines = queue.Queue()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=env, text=True,
            encoding="utf-8",
        )  # fmt: skip
        self.starts += 1
        threading.Thread(target=_read, args=(self._process.stdout, self._lines), daemon=True).start()
        try:
            line = self._lines.get(timeout=self.start_seconds)
        except queue.Empty:
            self.close()
            raise InvalidCallError(
                f"The device did not answer within {self.start_seconds:g} s. Is its driver loaded?"
            ) from None
        if line is None:
            raise InvalidCallError(f"The device did not answer: {self._obituary()}.")
        said = json.loads(line)
        if "error" in said:
            self.close()
            raise InvalidCallError(said["error"])
        self.hello = said

    def _count(self, case: CheckCase, reason: str) -> CheckResult:
        self._lost[case.check.id] = self._lost.get(case.check.id, 0) + 1
        return CheckResult.of(case, Status.FAIL, reason)

    def _obituary(self) -> str:
        """Return how the process ended, with the last line that it printed; and forget it."""
        process, log = self._process, self._log
        assert process is not None
        assert log is not None
        code = process.wait()
        log.seek(0)
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        self.close()
        killed = code < 0 and -code in set(signal.Signals)
        how = f"signal {signal.Signals(-code).name}" if killed else f"exit code {code}"
        return f"the process was killed ({how})" + (f": {lines[-1].strip()[:200]}" if lines else "")


def _read(pipe: IO[str], lines: queue.Queue[str | None]) -> None:
    try:
        for line in pipe:
            lines.put(line)
    except ValueError:  # closed by the other thread
        return
    finally:
        lines.put(None)
