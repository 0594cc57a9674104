"""A program that reads data by workers while Ctrl-C is pressed again and again: ``python loading.py START_METHOD``.

It prints whether all items came, and whether nobody but itself got the signal. Spawned workers import it anew, so that it imports
at its top only what they need.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from threading import Event, Thread

import torch
from torch.utils.data import DataLoader, Dataset


class Slow(Dataset[torch.Tensor]):
    """Whose items take a while, so that a signal comes in the middle of one."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.05)
        return torch.full((), float(index))


def load(start_method: str) -> None:
    """Read data by workers, in a process group that gets Ctrl-C while they start and while they work."""
    from yolo_stable.trainer import shutdown as interrupting

    workers = passes = 2 if start_method == "fork" else 1  # each of the others imports torch, in each pass
    loader = DataLoader(Slow(), batch_size=1, num_workers=workers, multiprocessing_context=start_method)
    interrupting._leave_ctrl_c_to_parent(loader)
    seen: list[float] = []
    over = Event()

    def press() -> None:
        while not over.wait(0.2):
            os.killpg(0, signal.SIGINT)

    pressing = Thread(target=press)
    got: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: got.append(os.getpid()))
    pressing.start()
    for _ in range(passes):
        seen += [float(batch) for batch in loader]
    over.set()
    pressing.join()
    print(seen == [*range(6)] * passes, set(got) == {os.getpid()})


if __name__ == "__main__":
    load(sys.argv[1])
