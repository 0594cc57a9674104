"""Stands for comet_ml 3.58: what we call has the signatures of its own."""

from __future__ import annotations

from typing import Any

from recording import Recording, record

__version__ = "3.58.8"


class Experiment(Recording):
    library = "comet"

    def log_metrics(
        self, dic: dict[str, Any], prefix: str | None = None, step: int | None = None, epoch: int | None = None
    ) -> None:
        record("comet.metrics", dic=dic, step=step)

    def log_text(self, text: str, step: int | None = None, metadata: dict[str, Any] | None = None) -> None:
        record("comet.text", text=text, step=step, metadata=metadata)

    def log_image(self, image_data: Any, name: str | None = None, step: int | None = None) -> None:
        record("comet.image", path=str(image_data), name=name, step=step)

    def end(self) -> None:
        global running
        record("comet.end")
        running = None


running: Experiment | None = None


def start(**given: Any) -> Experiment:
    global running
    assert running is None, "there is an experiment already"
    record("comet.start")
    running = Experiment()
    return running


def get_running_experiment() -> Experiment | None:
    return running
