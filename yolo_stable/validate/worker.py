"""Worker: the process that touches the device; runs one case with ``--case``, or one after another with ``--serve``.

    python -m yolo_stable.validate.worker --device rocm --case linear/conv3x3-64/contiguous/strict --settings '{"env": {...}}'

Its answers are JSON, a line each, on stdout; what libraries print goes to stderr. It imports torch late, after it has set the
environment variables of ``--settings``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import IO, Any


def main() -> int:
    """Run one case, or serve; return 0, or 2 when the device is not there."""
    parser = argparse.ArgumentParser(prog="python -m yolo_stable.validate.worker")
    parser.add_argument("--device")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inject")
    parser.add_argument("--settings", default="{}")
    parser.add_argument("--recompute-reference", action="store_true")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--case")
    what.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    settings = json.loads(options.settings)
    for name, value in settings.get("env", {}).items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    said = _own_stdout()
    from ..errors import YoloStableError

    try:
        executor = _executor(options, settings)
        if options.case:
            from .battery import find_case
            from .result_file import check_to_json

            said.write(check_to_json(executor.run(find_case(options.case))) + "\n")
        else:
            _serve(executor, said)
    except YoloStableError as error:
        said.write(json.dumps({"error": str(error), "exit_code": error.exit_code}) + "\n")
        return error.exit_code
    finally:
        said.flush()
    return 0


def _own_stdout() -> IO[str]:
    """Return stdout for our own use; whatever else writes to it, C libraries included, then writes to stderr."""
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return said


def _executor(options: argparse.Namespace, settings: dict[str, Any]) -> Any:
    from .execute import Executor
    from .precision import write
    from .simulated import machine_for

    machine = machine_for(options.device, options.inject)
    for name, value in settings.get("flags", {}).items():
        write(name, value)
    return Executor(machine, options.seed, recompute_reference=options.recompute_reference)


def _serve(executor: Any, said: IO[str]) -> None:
    from .._shared.strict_json import strict
    from .battery import find_case
    from .result_file import check_to_json

    machine = executor.machine
    hello = {
        "backend": machine.backend.name,
        "device": str(machine.device),
        "device_name": machine.name,
        "reduced": machine.reduced(),
        "golden": executor.golden.id,
        "environment": machine.environment(),
    }
    said.write(json.dumps(strict(hello), allow_nan=False) + "\n")
    said.flush()
    for line in sys.stdin:
        said.write(check_to_json(executor.run(find_case(line.strip()))) + "\n")
        said.flush()


if __name__ == "__main__":
    sys.exit(main())
