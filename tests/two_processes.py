"""Two processes that form a process group on this machine; a test file is their program as well."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist

RANKS = (0, 1)


def run_both(program: str, *words: object, seconds: float, ranks: bool = False, python: str = sys.executable) -> None:
    """Run ``python PROGRAM RANK WORDS`` as two processes to their end, or kill them when they wait for each other.

    Args:
        program: A file.
        *words: What it is given behind the rank.
        seconds: That it may take, > 0.
        ranks: Tell them their rank by the environment as well, as ``torch.distributed.run`` does.
        python: Runs them. A warm one has read its environment before: not together with ``ranks``.
    """
    loopback = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}  # a host's name need not resolve
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}  # as pytest has set it up
    processes = []
    for rank in map(str, RANKS):
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(len(RANKS))} if ranks else {}
        processes.append(
            subprocess.Popen(
                [python, program, rank, *map(str, words)],
                env={**os.environ, **loopback, **path, **told},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        output = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(text[-3000:] for text in output)


def join(rank: int, store: Path, *, seconds: float = 20) -> None:
    """Join the process group.

    Args:
        rank: Of this process.
        store: A file of both, which is not there yet.
        seconds: After which a collective that only one rank asks for ends in an error.
    """
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=seconds)
    dist.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=len(RANKS), timeout=timeout)
