"""A python whose programs start in milliseconds: they are forked from a process that has imported torch and Ultralytics.

Its path is called as ``sys.executable`` is: with a file, ``-m`` and a module, or ``-c`` and code. A program has arguments, an
environment, a working folder, standard files, signals and an end of its own; only the four seconds are left out that the imports
take. Where the start itself is tested, or what is imported then, take ``sys.executable``.

This file is both ends as well: ``warmed.py serve SOCKET`` is the process that forks, and ends with its standard input;
``warmed.py ask SOCKET WORDS`` stands for a program, takes its signals and ends as it does.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What is passed on to a program."""
IMPORTED = (
    *("torch", "torch.distributed", "torchvision", "cv2", "scipy", "typer", "rich.console", "jinja2", "yaml", "psutil"),
    *("ultralytics", "ultralytics.models", "ultralytics.engine.trainer", "ultralytics.utils.plotting"),
    *("torch._inductor", "albumentations", "polars", "matplotlib.pyplot"),  # which Ultralytics imports when it trains
    *(
        "yolo_stable.cli.main",
        "yolo_stable.trainer.trainers",
        "yolo_stable.train.run",
        "yolo_stable.chaos",
        "yolo_stable.report",
    ),
)
"""What a program finds imported."""
LOOK = 0.01
"""Seconds between two looks whether a program is over, or nobody asks for it any more."""


class Warmed:
    """Makes the executable; a context that ends the process that forks."""

    def __init__(self) -> None:
        import shlex
        import tempfile
        from pathlib import Path

        self._folder = tempfile.TemporaryDirectory(prefix="warmed-")
        self.executable = Path(self._folder.name, "python")
        address = str(self.executable.with_name("socket"))
        words = shlex.join([sys.executable, "-S", __file__, "ask", address])
        self.executable.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        self.executable.chmod(0o755)
        self._command = [sys.executable, __file__, "serve", address]

    def __enter__(self) -> Warmed:
        import subprocess

        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        with self._process.stdout as said:
            assert b"ready\n" in said, "it could not import what programs need"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()


# ---- what stands for a program -------------------------------------------------------------------------------------------


def ask(address: str, words: list[str]) -> None:
    """Have a program started with all that this process was given, and end as it does."""
    asked = {
        "words": words,
        "cwd": os.getcwd(),
        "env": dict(os.environ),
        "deaf": [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN],
    }
    content = json.dumps(asked).encode()
    with socket.socket(socket.AF_UNIX) as talk:
        talk.connect(address)
        socket.send_fds(talk, [len(content).to_bytes(8, "big")], [0, 1, 2])
        talk.sendall(content)
        with talk.makefile("r") as answers:
            pid = int(answers.readline())
            for number in set(SIGNALS) - set(asked["deaf"]):
                signal.signal(number, lambda number, _: os.kill(pid, number))
            code = int(answers.readline())
    if code < 0:
        if -code in SIGNALS:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


# ---- the process that forks ----------------------------------------------------------------------------------------------


def serve(address: str) -> None:
    """Fork for each request until the standard input ends; returns in the parent then, and in a program at its end."""
    import gc
    import importlib
    import select

    for name in IMPORTED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # no program looks through what the libraries have made, nor copies it for that
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    usual = [path for path in sys.path[1:] if path not in paths]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that keep the programs
    for (
        number
    ) in SIGNALS:  # that of a terminal is for the programs, and what a test sends to all children is not for this one
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        os.dup2(2, 1)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            talk, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                keep(talk, usual)
                return
            talk.close()


def keep(talk: socket.socket, usual: list[str]) -> None:
    """Fork the program, and tell what becomes of it; returns in the program, at its end."""
    import select

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    length, files, _, _ = socket.recv_fds(talk, 8, 3)
    with talk.makefile("rb") as content:
        asked = json.loads(content.read(int.from_bytes(length, "big")))
    pid = os.fork()
    if pid == 0:
        talk.close()
        become(asked, files, usual)
        return
    for file in files:
        os.close(file)
    talk.sendall(b"%d\n" % pid)
    while True:
        if select.select([talk], [], [], LOOK)[0]:  # it was killed
            os.kill(pid, signal.SIGKILL)
            os._exit(0)
        over, status = os.waitpid(pid, os.WNOHANG)
        if over:
            talk.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            os._exit(0)


def become(asked: dict[str, Any], files: list[int], usual: list[str]) -> None:
    """Be the program."""
    import runpy
    from types import ModuleType

    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    for number in SIGNALS:
        alert = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in asked["deaf"] else alert)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    streams: Any = (sys.stdout, sys.stderr)
    for stream in streams:
        stream.reconfigure(line_buffering=stream.isatty() or stream is sys.stderr)
    paths = os.environ.get("PYTHONPATH", "")
    rest = [*(paths.split(os.pathsep) if paths else []), *usual]
    how, *more = asked["words"]
    if how == "-m":
        sys.path[:], sys.argv[:] = [os.getcwd(), *rest], more
        runpy.run_module(more[0], run_name="__main__", alter_sys=True)
    elif how == "-c":
        sys.path[:], sys.argv[:] = ["", *rest], ["-c", *more[1:]]
        sys.modules["__main__"] = main = ModuleType("__main__")  # one without a file, for those that look for it
        exec(compile(more[0], "<string>", "exec"), vars(main))
    else:
        sys.path[:], sys.argv[:] = [os.path.dirname(os.path.realpath(how)), *rest], [how, *more]
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        ask(sys.argv[2], sys.argv[3:])
