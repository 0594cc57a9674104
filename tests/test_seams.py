"""The contract with Ultralytics: each place of its training loop that the guarded trainer takes hold of.

When a new version moves one, the test that fails says which part of the guard has lost its hold, before any training is
silently unguarded.
"""

from __future__ import annotations

import inspect

import pytest
import ultralytics
from ultralytics.data.augment import BaseMixTransform
from ultralytics.data.base import BaseDataset
from ultralytics.data.build import InfiniteDataLoader, build_dataloader
from ultralytics.data.dataset import ClassificationDataset
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.engine.validator import BaseValidator
from ultralytics.models.yolo.depth import DepthTrainer
from ultralytics.models.yolo.depth.calibrate import calibrate_checkpoint
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.dist import generate_ddp_file
from ultralytics.utils.loss import v8DetectionLoss
from ultralytics.utils.torch_utils import ModelEMA

SEAMS = {
    "the gate between forward and backward": (
        BaseTrainer._do_train,
        ["self.loss = loss.sum()", "self.scaler.scale(self.loss).backward()"],
    ),
    "the running loss is replaced after each batch": (
        BaseTrainer._do_train,
        [
            "self.tloss = None",
            "{k: (self.tloss[k] * i + v) / (i + 1) for k, v in self.loss_items.items()}",
            "*self.tloss.values()",
        ],
    ),
    "loss items are a dict that names the columns": (
        BaseTrainer._do_train,
        ["self.loss_names = tuple(self.loss_items)"],
    ),
    "the step of a window": (
        BaseTrainer._do_train,
        ["if ni - last_opt_step >= self.accumulate:", "self.optimizer_step()"],
    ),
    "what the step does in stock": (
        BaseTrainer.optimizer_step,
        [
            "self.scaler.unscale_(self.optimizer)",
            "clip_grad_norm_(self.model.parameters(), max_norm=10.0)",
            "self.scaler.step(self.optimizer)",
            "self.scaler.update()",
            "self.optimizer.zero_grad()",
            "self.ema.update(self.model)",
        ],
    ),
    "the batch passes through preprocess_batch": (BaseTrainer._do_train, ["batch = self.preprocess_batch(batch)"]),
    "epochs and batches are announced": (
        BaseTrainer._do_train,
        [f'self.run_callbacks("{e}")' for e in ("on_train_epoch_start", "on_train_batch_start", "on_train_epoch_end")],
    ),
    "the results take the training loss from label_loss_items": (
        BaseTrainer._do_train,
        ["self.save_metrics(metrics={**self.label_loss_items(self.tloss), **self.metrics, **self.lr})"],
    ),
    "the warm-up": (
        BaseTrainer._do_train,
        ["nw = self._get_warmup_iterations(nb)", "ni = i + nb * epoch", "if nw and ni <= nw:"],
    ),
    "a save that returns False is no save": (BaseTrainer._do_train, ["self.save_model():"]),
    "the recovery is asked, and says whether the epoch is done again": (
        BaseTrainer._do_train,
        ["if self._handle_nan_recovery(epoch):"],
    ),
    "a validation may set the best fitness": (
        BaseTrainer.validate,
        ["if self.best_fitness is None or self.best_fitness < fitness:", "return metrics, fitness"],
    ),
    "the precision is looked up for each batch": (
        BaseTrainer._do_train,
        ['with autocast(torch.bfloat16 if self.args.amp == "bf16" else self.amp, device=self.device.type):'],
    ),
    "out of memory builds the pipeline again": (
        BaseTrainer._do_train,
        ["self._build_train_pipeline()", "except RuntimeError as e:"],
    ),
    "the scaler is an attribute of the trainer": (BaseTrainer._setup_train, ["self.scaler = ("]),
    "the progress bar is headed by the loss names": (DetectionTrainer.progress_string, ["*self.loss_names"]),
    "the validator shapes its losses after loss_items": (BaseValidator.__call__, ["trainer.loss_items.items()"]),
    "workers get the class, the arguments and the callbacks": (
        generate_ddp_file,
        ['"trainer": type(trainer)', '"args": vars(trainer.args)', 'overrides=state["args"]'],
    ),
    "checkpoints are written as bytes to three paths": (
        BaseTrainer.save_model,
        [
            "self.wdir.mkdir(parents=True, exist_ok=True)",
            "self.last.write_bytes(serialized_ckpt)",
            "self.best.write_bytes(serialized_ckpt)",
            '(self.wdir / f"epoch{self.epoch}.pt").write_bytes(serialized_ckpt)',
        ],
    ),
    "checkpoints are stripped by a function of the trainer's module": (
        BaseTrainer.final_eval,
        [
            "ckpt = strip_optimizer(self.last) if self.last.exists() else {}",
            'strip_optimizer(self.best, updates={"train_results": ckpt.get("train_results")})',
        ],
    ),
    "a resumed run takes its arguments from the checkpoint": (
        BaseTrainer.check_resume,
        ["ckpt_args = load_checkpoint(last)[0].args", "self.args = get_cfg(ckpt_args)", "self.resume = resume"],
    ),
    "a resumed run begins behind the epoch of the checkpoint": (
        BaseTrainer.resume_training,
        [
            'start_epoch = ckpt.get("epoch", -1) + 1',
            "self._load_checkpoint_state(ckpt)",
            "model.criterion.updates = start_epoch - 1",
            "self.start_epoch = start_epoch",
        ],
    ),
    "the loop zeroes gradients, then announces its first epoch, then draws": (
        BaseTrainer._do_train,
        ["self.optimizer.zero_grad()  # zero any resumed gradients", "last_opt_step = -1", "self.train_loader.reset()"],
    ),
    "the loader keeps its iterator over the epochs": (
        InfiniteDataLoader,
        ["self.iterator = self._get_iterator()", "yield next(self.iterator)", "self.iterator = None"],
    ),
    "an image is read in load_image, from the lists of that moment": (
        BaseDataset.load_image,
        [
            "im, f, fn = self.ims[i], self.im_files[i], self.npy_files[i]",
            "return self.ims[i], self.im_hw0[i], self.im_hw[i]",
        ],
    ),
    "an image and its labels are drawn by one method": (
        BaseDataset.get_image_and_label,
        ["deepcopy(self.labels[index])", "self.load_image(index)"],
    ),
    "partners of a mosaic are drawn by the same method": (
        BaseMixTransform.get_params,
        ["self.dataset.get_image_and_label(i) for i in indexes"],
    ),
    "a classification sample is read from the list of that moment": (
        ClassificationDataset.__getitem__,
        ["f, j, fn, im = self.samples[i]", "im = self.img_cache[i]", "im = self.imread(f)"],
    ),
    "the loader collates as its data set does": (
        build_dataloader,
        ['collate_fn=getattr(dataset, "collate_fn", None)'],
    ),
    "a detection loss is divided by the sum of the target scores, which is 1 at least": (
        v8DetectionLoss.get_assigned_targets_and_loss,
        ["target_scores_sum = target_scores.sum().clamp_(min=1)", "target_scores_sum,"],
    ),
    "the calibration of a depth model looks its function up, and writes to the path that it is given": (
        DepthTrainer.final_eval,
        [
            "from .calibrate import calibrate_checkpoint",
            "provenance = calibrate_checkpoint(",
            "for ckpt in (self.best, self.last):",
        ],
    ),
    "a calibration saves where it has read": (
        calibrate_checkpoint,
        ["ckpt = torch_load(ckpt_path", "torch.save(ckpt, ckpt_path)", "Auto-calibration written to"],
    ),
    "the EMA counts its updates": (ModelEMA.update, ["self.updates += 1"]),
    "the EMA is a linear interpolation between two lists": (
        ModelEMA.update,
        ["d = self.decay(self.updates)", "ema_v, model_v = self._pairs", "torch._foreach_lerp_(ema_v, model_v, 1 - d)"],
    ),
}


@pytest.mark.parametrize("seam", SEAMS)
def test_ultralytics_still_has_the_seam(seam: str) -> None:
    place, lines = SEAMS[seam]
    source = inspect.getsource(place)
    missing = [line for line in lines if line not in source]
    assert not missing, (
        f"Ultralytics {ultralytics.__version__} has changed {place.__qualname__}: {seam}. Not found any more: {missing}."
        " Look at yolo_stable/trainer/mixin.py before allowing this version in pyproject.toml."
    )


def test_forward_comes_before_the_gate_and_the_gate_before_the_step() -> None:
    source = inspect.getsource(BaseTrainer._do_train)
    order = [
        "self.preprocess_batch(batch)",
        "self.model(batch)",
        ".scale(self.loss).backward()",
        "self.optimizer_step()",
    ]
    places = [source.index(line) for line in order]
    assert places == sorted(places)
