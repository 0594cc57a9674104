"""Does a preflight stop at the right stage, and is it quick? Faults of set-ups put in from outside, and healthy ones timed.

    python -m benchmarks.preflight [--model yolo11n.yaml] [--imgsz 640] [--batch 16] [--json F]

Each fault is what people do to their set-ups, in files, arguments, or the code around the model; nothing in the package knows of
them. A row says where the preflight had to stop and where it did. The healthy set-ups are the built-in data set with a network
of normal size; the bar is 60 seconds on two cores.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch.utils.checkpoint import checkpoint
from ultralytics import YOLO

from yolo_stable.chaos.files import FileFault
from yolo_stable.data.builtin import make
from yolo_stable.errors import InvalidCallError
from yolo_stable.preflight import trained
from yolo_stable.preflight.command import run
from yolo_stable.preflight.show import Show
from yolo_stable.preflight.stage import Preflight
from yolo_stable.train.call import TrainCall
from yolo_stable.trainer.trainers import TRAINERS

from .contenders import quiet
from .narrow import NETWORK
from .record import keep, show

WRONG_CALL = "the call"
HEALTHY = "none"
PLAIN = ("mosaic=0", "hsv_h=0", "hsv_s=0", "hsv_v=0", "auto_augment=none")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A set-up that can be spoiled."""

    folder: Path
    data: Path
    words: list[str] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path) -> Setup:
        """Make a healthy one: a data set of its own and a narrow network."""
        source = make("shapes", cache=folder / "cache", train=8, val=4, imgsz=64)
        shutil.copytree(source.parent, folder / "data")
        content = yaml.safe_load(source.read_text())
        data = folder / "data" / "data.yaml"
        data.write_text(yaml.safe_dump({**content, "path": str(folder / "data")}))
        (folder / "narrow.yaml").write_text(yaml.safe_dump(NETWORK))
        small = ["imgsz=64", "batch=4", "device=cpu", "optimizer=SGD", "seed=1", f"project={folder / 'runs'}"]
        return cls(folder=folder, data=data, words=[f"model={folder / 'narrow.yaml'}", *small])

    def checkpoint(self, change: Callable[[Any], None]) -> str:
        """Write a checkpoint of the network with a change, and return the word that names it."""
        torch.manual_seed(1)
        model = YOLO(str(self.folder / "narrow.yaml"))
        network: Any = model.model
        with torch.no_grad():
            change(network)
        path = self.folder / "changed.pt"
        torch.save({"model": network, "train_args": {}}, path)
        return f"model={path}"


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A fault of a set-up, and where a preflight has to stop."""

    name: str
    stage: str
    """Or :data:`WRONG_CALL`, or :data:`HEALTHY`."""
    words: tuple[str, ...] = ()
    """Added to the call."""
    spoil: Callable[[Setup], list[str]] | None = None
    """Changes files, and returns further words."""
    on: Callable[[Any], Any] | None = None
    """Returns a spoiled subclass of the trainer."""
    around: Callable[[], AbstractContextManager[None]] | None = None
    """Is in force for the time of the preflight."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the preflight."""


def fly(setup: Setup, fault: Planted | None = None, **options: Any) -> Preflight:
    """Run a preflight of a set-up with a fault in it.

    Raises:
        InvalidCallError: The call is wrong.
    """
    words = [*setup.words, *(fault.words if fault else ())]
    words += fault.spoil(setup) if fault is not None and fault.spoil is not None else []
    options = {"lr_range": fault is None or fault.stage == "lr range", **(fault.options if fault else {}), **options}
    base = TRAINERS["detect"]
    if fault is not None and fault.on is not None:
        TRAINERS["detect"] = fault.on(base)
    try:
        with fault.around() if fault is not None and fault.around is not None else _nothing():
            return run(TrainCall.parse(str(setup.data), _last_of_each(words)), show=Show(io.StringIO()), **options)
    finally:
        TRAINERS["detect"] = base


def _last_of_each(words: list[str]) -> list[str]:
    return list({word.partition("=")[0]: word for word in words}.values())


@contextmanager
def _nothing() -> Iterator[None]:
    yield


# ---- faults in files -----------------------------------------------------------------------------------------------------


def nan_image(setup: Setup) -> list[str]:
    """Put a .npy of floats with NaN beside each image, as a broken tool that caches them would."""
    for image in (setup.folder / "data/images/train").glob("*.png"):
        np.save(image.with_suffix(".npy"), np.full((64, 64, 3), np.nan, dtype=np.float32))
    return list(PLAIN)


def no_labels(setup: Setup) -> list[str]:
    """Call the folder of the labels otherwise than Ultralytics looks for it."""
    (setup.folder / "data/labels").rename(setup.folder / "data/annotations")
    return []


def wrong_path(setup: Setup) -> list[str]:
    """Let data.yaml name a folder that is not there."""
    content = yaml.safe_load(setup.data.read_text())
    setup.data.write_text(yaml.safe_dump({**content, "train": "images/trian"}))
    return []


def nan_weight(setup: Setup) -> list[str]:
    """Start from a checkpoint of a run that was ruined."""

    def ruin(network: Any) -> None:
        network.model[4].cv1.conv.weight.view(-1)[3] = float("nan")

    return [setup.checkpoint(ruin)]


def huge_weight(setup: Setup) -> list[str]:
    """Start from a checkpoint that overflows on the way."""

    def ruin(network: Any) -> None:
        network.model[3].conv.weight.mul_(1e30)

    return [setup.checkpoint(ruin)]


def large_weight(setup: Setup) -> list[str]:
    """Start from a checkpoint whose activations float32 holds and float16 does not."""

    def ruin(network: Any) -> None:
        network.model[3].conv.weight.mul_(1e6)

    return [setup.checkpoint(ruin)]


def stale_statistics(setup: Setup) -> list[str]:
    """Start from a checkpoint whose running variances are 0 and stay so: only a validation computes with them."""

    def ruin(network: Any) -> None:
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d) and module.running_var is not None:
                module.running_var.zero_()
                module.momentum = 0.0

    return [setup.checkpoint(ruin)]


# ---- faults in the code around the model -----------------------------------------------------------------------------------


def with_model(change: Callable[[Any], None]) -> Callable[[Any], Any]:
    """Return what makes a trainer that changes its model before the optimizer is made."""

    def on(base: Any) -> Any:
        class Changed(base):
            def set_model_attributes(self) -> None:
                super().set_model_attributes()
                change(self.model)

        return Changed

    return on


def with_loss(change: Callable[[Any, dict[str, Any]], tuple[Any, dict[str, Any]]]) -> Callable[[Any], Any]:
    """Return what makes a trainer whose loss is changed."""

    def put_in(model: Any) -> None:
        own = model.init_criterion

        def init() -> Any:
            criterion = own()
            return lambda *args: change(*criterion(*args))

        model.init_criterion = init

    return with_model(put_in)


def nan_item(loss: Any, items: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Make one item of the loss NaN."""
    return loss, {**items, "box_loss": items["box_loss"] * float("nan")}


def detached(loss: Any, items: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return a loss that has forgotten where it comes from."""
    return loss.detach(), items


def rounded(loss: Any, items: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return a loss that is flat everywhere."""
    return loss.round() + 1.0, items


def cut_off(model: Any) -> None:
    """Detach what a layer gives out."""
    model.model[6].register_forward_hook(lambda _m, _i, out: out.detach())


def checkpointed(model: Any) -> None:
    """Switch on gradient checkpointing for a layer whose input needs no gradient."""
    layer = model.model[2]
    own = layer.forward
    layer.forward = lambda x: checkpoint(own, x, use_reentrant=True)


class _Steep(torch.autograd.Function):
    """Hands on what it is given, and back what is no number."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return grad_outputs[0] / grad_outputs[0].new_zeros(())


def steep(model: Any) -> None:
    """Put an operation in whose derivative is infinite."""
    model.model[4].register_forward_hook(lambda _m, _i, out: _Steep.apply(out))


def without_head(base: Any) -> Any:
    """Make an optimizer before the head was put on."""

    class Without(base):
        def build_optimizer(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            optimizer = super().build_optimizer(model, *args, **kwargs)
            head = {id(p) for p in model.model[-1].parameters()}
            for group in optimizer.param_groups:
                group["params"] = [p for p in group["params"] if id(p) not in head]
            return optimizer

    return Without


def standing_average(base: Any) -> Any:
    """Let the EMA stay where it is."""

    class Still(base):
        def _setup_train(self) -> None:
            super()._setup_train()
            self.ema.decay = lambda _: 1.0

    return Still


@contextmanager
def half_validation() -> Iterator[None]:
    """Validate in float16, as Ultralytics does on an accelerator with amp=True."""
    own = trained.validated_in
    trained.validated_in = lambda _: "float16"
    try:
        yield
    finally:
        trained.validated_in = own


PLANTED = (
    Planted(name="data.yaml names a folder that is not there", stage=WRONG_CALL, spoil=wrong_path),
    Planted(name="device that is not there", stage=WRONG_CALL, words=("device=7",)),
    Planted(name="labels in a folder of another name", stage="setup", spoil=no_labels),
    Planted(name="freeze=14 freezes everything", stage="setup", words=("freeze=14",)),
    Planted(name="NaN in a .npy beside an image", stage="data", spoil=nan_image),
    Planted(name="class out of range after an augmentation", stage="data", words=(*PLAIN, "batch=8"),
            on=lambda base: FileFault("train/000003.png", kind="class", value=9.0).on(base)),
    Planted(name="NaN weight in the checkpoint", stage="parameters", spoil=nan_weight),
    Planted(name="weights that overflow in the forward pass", stage="forward", spoil=huge_weight),
    Planted(name="NaN in a loss item", stage="loss", on=with_loss(nan_item)),
    Planted(name="all weights of the loss are 0", stage="loss", words=("box=0", "cls=0", "dfl=0")),
    Planted(name="momentum=1", stage="settings", words=("momentum=1.0",)),
    Planted(name="momentum=1 in the warm-up", stage="settings", words=("warmup_momentum=1.0",)),
    Planted(name="weight decay that eats the weights", stage="settings", words=("weight_decay=1.0",)),
    Planted(name="loss of which no gradient is left", stage="gradients", on=with_loss(rounded)),
    Planted(name="loss detached from the network", stage="backward", on=with_loss(detached)),
    Planted(name="detach() in the middle of the network", stage="gradients", on=with_model(cut_off)),
    Planted(name="reentrant checkpointing behind frozen layers", stage="gradients", words=("freeze=2",),
            on=with_model(checkpointed)),
    Planted(name="operation with an infinite derivative", stage="gradients", on=with_model(steep)),
    Planted(name="optimizer without the head", stage="optimizer", on=without_head),
    Planted(name="lr0=0", stage="optimizer", words=("lr0=0.0",)),
    Planted(name="EMA with a decay of 1", stage="ema", on=standing_average),
    Planted(name="validation that overflows in float16", stage="validation", spoil=stale_statistics, around=half_validation),
    Planted(name="activations that float16 cannot hold", stage="precision", spoil=large_weight,
            options={"precisions": "float16"}),
    Planted(name="lr0=1 without clipping", stage="lr range", words=("lr0=1.0", "guard.max_norm=none")),
)  # fmt: skip


def stopped_at(setup: Setup, fault: Planted | None = None) -> tuple[str, str]:
    """Return where a preflight stops, and what it says."""
    try:
        found = fly(setup, fault)
    except InvalidCallError as error:
        return WRONG_CALL, str(error)
    failed = found.failed
    return (HEALTHY, found.line()) if failed is None else (failed.stage, f"{failed.reason} Fix: {failed.fix}")


def _since(wall: float, processor: float) -> dict[str, float]:
    """Return seconds of the clock, and of the processor: on a machine with other work the first are more."""
    return {"seconds": time.perf_counter() - wall, "processor seconds": time.process_time() - processor}


def main() -> None:
    """Run all faults, then the healthy set-ups of normal size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolo11n.yaml")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    quiet()
    rows: list[dict[str, Any]] = []
    for fault in (Planted(name="healthy, narrow", stage=HEALTHY), *PLANTED):
        with tempfile.TemporaryDirectory() as folder:
            setup = Setup.make(Path(folder))
            clocks = time.perf_counter(), time.process_time()
            stage, said = stopped_at(setup, fault)
        row = {"set-up": fault.name, "to stop at": fault.stage, "stopped at": stage}
        rows.append({**row, "right": stage == fault.stage, **_since(*clocks), "said": said.replace(folder, "FOLDER")})
    words = [f"model={options.model}", f"imgsz={options.imgsz}", f"batch={options.batch}", "device=cpu"]
    clocks = time.perf_counter(), time.process_time()
    found = run(TrainCall.parse("shapes", words), show=Show(io.StringIO()))
    row = {"set-up": f"healthy, {' '.join(words[:3])}", "to stop at": HEALTHY}
    stage = HEALTHY if found.failed is None else found.failed.stage
    said = f"{found.line()} {found['forward'].figure}; {found['lr range'].figure}"
    rows.append({**row, "stopped at": stage, "right": stage == HEALTHY, **_since(*clocks), "said": said})
    show("where a preflight stops", [{k: v for k, v in row.items() if k != "said"} for row in rows])
    print(keep("preflight", rows, {k: v for k, v in vars(options).items() if k != "json"}, options.json))


if __name__ == "__main__":
    main()
