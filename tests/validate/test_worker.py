"""The process that touches the device, as a program of its own."""

from __future__ import annotations

import subprocess
import sys


def test_the_worker_is_a_program_of_its_own() -> None:
    command = [
        sys.executable,
        "-m",
        "yolo_stable.validate.worker",
        "--device",
        "cpu",
        "--case",
        "exact/argmax/contiguous/exact",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert '"status": "pass"' in done.stdout
    assert done.stdout.count("\n") == 1
