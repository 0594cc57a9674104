"""A script that uses Ultralytics in every common way; it finds ``network.yaml``, ``data.yaml`` and ``images/`` where it runs."""
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

import sys
from pathlib import Path

import yaml
from ultralytics import YOLO
from ultralytics.data import YOLODataset
from ultralytics.models.yolo.detect import DetectionTrainer

HERE = Path.cwd()
SETTINGS = {"imgsz": 32, "batch": 4, "workers": 0, "device": "cpu", "plots": False, "project": str(HERE / "runs")}
images = sorted(map(str, (HERE / "images" / "train").iterdir()))
losses = []


class Darker(YOLODataset):
    def __getitem__(self, index):
        item = super().__getitem__(index)
        item["img"] = item["img"] // 2
        return item


class DarkTrainer(DetectionTrainer):
    def build_dataset(self, img_path, mode="train", batch=None):
        dataset = super().build_dataset(img_path, mode, batch)
        dataset.__class__ = Darker if mode == "train" else YOLODataset
        return dataset

    def preprocess_batch(self, batch):
        return super().preprocess_batch({**batch, "seen": len(batch["img"])})


model = YOLO("network.yaml")
model.add_callback("on_train_batch_end", lambda trainer: losses.append([float(x) for x in trainer.loss_items.values()]))
metrics = model.train(data="data.yaml", epochs=2, name="scratch", **SETTINGS)
print("train", metrics.results_dict, losses, model.trainer.epoch, model.ckpt_path, type(model).__name__)
print("val", model.val(data="data.yaml", name="val", **SETTINGS).results_dict)
boxes = [[r.boxes.data.tolist(), r.names] for r in model.predict(images[:2], imgsz=32, conf=0.0, max_det=3)]
print("predict", boxes, model.info(), model.names, model.task)
print("export", Path(YOLO(model.trainer.best).export(format="torchscript", imgsz=32)).name)

tuned = YOLO(model.trainer.best)
tuned.train(data="data.yaml", epochs=1, name="frozen", freeze=3, optimizer="SGD", lr0=0.1, cos_lr=True, **SETTINGS)
tuned.save("frozen.pt")
own = YOLO("network.yaml").load(tuned.trainer.best)
print("own trainer", own.train(DarkTrainer, data="data.yaml", epochs=1, name="own", **SETTINGS).results_dict)

stopped = YOLO("network.yaml")
stopped.add_callback("on_train_epoch_end", lambda trainer: setattr(trainer, "stop", trainer.epoch == 0))
stopped.add_callback("on_train_start", lambda trainer: setattr(trainer, "final_eval", lambda: None))
stopped.train(data="data.yaml", epochs=2, name="stopped", **SETTINGS)
resumed = YOLO(HERE / "runs" / "stopped" / "weights" / "last.pt")
print("resume", resumed.train(resume=True).results_dict, resumed.trainer.start_epoch)

for fold in range(2):
    description = {**yaml.safe_load(Path("data.yaml").read_text()), "path": str(HERE)}
    for split, chosen in {"train": images[1 - fold :: 2], "val": images[fold::2]}.items():
        Path(f"{split}{fold}.txt").write_text("\n".join(chosen))
        description[split] = f"{split}{fold}.txt"
    Path(f"fold{fold}.yaml").write_text(yaml.safe_dump(description))
several = YOLO(HERE / "frozen.pt")
several.add_callback("on_fit_epoch_end", lambda trainer: print("fold", trainer.args.data, trainer.metrics))
print("k-fold", several.train(data=["fold0.yaml", "fold1.yaml"], epochs=1, **SETTINGS))
if "tune" in sys.argv:
    YOLO(HERE / "frozen.pt").tune(data="data.yaml", epochs=1, iterations=1, name="tune", **SETTINGS)
    print("tune", Path("runs/tune/best_hyperparameters.yaml").read_text())
