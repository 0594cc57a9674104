from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from yolo_stable._shared.resources import resource_dir
from yolo_stable.data import builtin as builtin_data
from yolo_stable.data.builtin import BUILTIN, declaration, generator, make
from yolo_stable.errors import InvalidCallError

CASES = [(name, task) for name in BUILTIN for task in declaration(name)["tasks"]]
each_case = pytest.mark.parametrize(("name", "task"), CASES, ids=[f"{name}-{task}" for name, task in CASES])


class InjectedError(Exception):
    """Raised by these tests only, so that nothing else can be taken for it."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YOLO_STABLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def tiny(
    name: str = "shapes", task: str = "detect", cache: Path | None = None, seed: int = 0, train: int = 4, val: int = 2
) -> Path:
    return make(name, task=task, cache=cache, seed=seed, train=train, val=val, imgsz=64)


def root(data: Path) -> Path:
    return data if data.is_dir() else data.parent


def content(data: Path) -> dict[str, bytes]:
    """Every file except data.yaml, which contains the path of its folder."""
    files = (path for path in root(data).rglob("*") if path.is_file() and path.name != "data.yaml")
    return {path.relative_to(root(data)).as_posix(): path.read_bytes() for path in files}


def rows(data: Path, split: str = "train") -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Each image with its label lines as numbers."""
    pairs = []
    for path in sorted((root(data) / "images" / split).iterdir()):
        label = root(data) / "labels" / split / f"{path.stem}.txt"
        image = cv2.imread(str(path))
        assert image is not None
        pairs.append((image, [np.array(line.split(), float) for line in label.read_text().splitlines()]))
    return pairs


def names_in(cache: Path, pattern: str = "[!.]*") -> list[str]:
    return sorted(path.name for path in cache.glob(pattern))


# ----- what is in the sets


@each_case
def test_the_same_seed_and_options_give_the_same_bytes(name: str, task: str, tmp_path: Path) -> None:
    first, second = (tiny(name, task, cache=tmp_path / place, seed=7) for place in "ab")
    assert content(first) == content(second)
    assert len(content(first)) >= 6
    other = tiny(name, task, cache=tmp_path / "a", seed=8)
    assert other != first
    assert content(other) != content(first)


@pytest.mark.parametrize("name", BUILTIN)
def test_a_longer_set_begins_with_the_shorter_one(name: str) -> None:
    short = content(tiny(name, train=2, val=2))
    longer = content(tiny(name, train=3, val=4))
    images = [key for key in short if key.startswith(("images/", "labels/"))]
    assert len(images) == 8
    assert {key: longer[key] for key in images} == {key: short[key] for key in images}


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_no_handwritten_digit_is_seen_in_training_and_in_validation(task: str) -> None:
    digits = generator("digits")
    pools = {split: set(np.concatenate(pool).tolist()) for split, pool in digits.split_samples(3).items()}
    assert pools["train"] | pools["val"] == set(range(1797))
    assert not pools["train"] & pools["val"]

    data = make("digits", task=task, seed=3, train=40, val=30, imgsz=64)
    used: dict[str, set[int]] = {"train": set(), "val": set()}
    with (root(data) / "samples.csv").open() as handle:
        for row in csv.DictReader(handle):
            path = root(data) / row["image"]
            samples = [int(sample) for sample in row["samples"].split()]
            used["val" if "val" in path.parts else "train"].update(samples)
            written = digits.samples()[1][samples].tolist()
            if task == "classify":
                assert written == [int(path.parent.name)]
            else:
                label = Path(str(path).replace("images", "labels")).with_suffix(".txt")
                assert written == [int(line.split()[0]) for line in label.read_text().splitlines()]
    assert len(used["train"]) >= 38  # of 40 images or more, drawn from 1,438 samples
    assert used["train"] <= pools["train"]
    assert used["val"] <= pools["val"]


def test_the_boxes_of_digits_fit_the_ink(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = generator("digits")
    monkeypatch.setattr(digits, "background", lambda rng, size: np.full((size, size, 3), 128, np.float32))
    for image, lines in rows(make("digits", train=12, val=1, imgsz=160, max_objects=1)):
        # The noise of the camera has a deviation of at most 5, the ink a contrast of at least 64.
        changed = np.abs(image.astype(float) @ digits.LUMA - 128) > 25
        x, y, wide, tall = cv2.boundingRect(changed.astype(np.uint8))
        centre_x, centre_y, width, height = lines[0][1:] * 160
        assert centre_x - width / 2 == pytest.approx(x, abs=2)
        assert centre_y - height / 2 == pytest.approx(y, abs=2)
        assert centre_x + width / 2 == pytest.approx(x + wide, abs=2)
        assert centre_y + height / 2 == pytest.approx(y + tall, abs=2)
        assert 20 <= height <= 80


@pytest.mark.parametrize("task", ["detect", "segment", "obb"])
def test_the_labels_of_shapes_fit_the_pixels(task: str) -> None:
    figures = 0
    for image, lines in rows(make("shapes", task=task, train=12, val=1, imgsz=128, texture=0)):
        ground = image[0, 0].astype(float)  # no figure reaches the corner
        count, parts = cv2.connectedComponents((np.abs(image - ground) > 1).any(axis=2).astype(np.uint8))
        assert count - 1 == len(lines)
        for line in lines:
            points = line[1:].reshape(-1, 2) * 128
            middle = points[0] if task == "detect" else points.mean(axis=0)
            part = parts == parts[int(middle[1]), int(middle[0])]
            inside = np.argwhere(part)[:, ::-1]  # (x, y) of the pixels' upper left corners
            if task == "detect":
                (x, y), (wide, tall) = points
                corners = np.array([[x - wide / 2, y - tall / 2], [x + wide / 2, y + tall / 2]])
                assert np.abs(corners - [inside.min(axis=0), inside.max(axis=0) + 1]).max() < 1
            elif task == "segment":
                colour = image[int(middle[1]), int(middle[0])] - ground
                drawn = ((image - ground) @ colour / (colour @ colour))[part].sum()
                assert drawn == pytest.approx(cv2.contourArea(points.astype(np.float32)), rel=0.01, abs=1)
            else:
                for a, b in ((points[0], points[1]), (points[1], points[2])):
                    axis = (b - a) / np.linalg.norm(b - a)
                    along = (inside + 0.5) @ axis
                    assert along.min() == pytest.approx(a @ axis, abs=1)
                    assert along.max() == pytest.approx(b @ axis, abs=1)
            figures += 1
    assert figures >= 24


def test_keypoints_lie_on_the_figure_and_keep_their_side_in_a_mirror() -> None:
    data = make("shapes", task="pose", train=30, val=1, imgsz=128, max_objects=1, texture=0)
    flip = yaml.safe_load(data.read_text())["flip_idx"]
    hidden = 0
    for image, lines in rows(data):
        for line in lines:
            points, seen = line[5:].reshape(4, 3)[:, :2], line[5:].reshape(4, 3)[:, 2]
            for tip, left, right, tail in (points, (points * [-1, 1] + [1, 0])[flip]):
                # This product is positive to the right of somebody who walks from tail to tip, as y points down.
                way = tip - tail
                assert way[0] * (left - tail)[1] - way[1] * (left - tail)[0] < 0
                assert way[0] * (right - tail)[1] - way[1] * (right - tail)[0] > 0
            centre = points[:3].mean(axis=0)
            x, y = (centre * 128).astype(int)
            for point, visibility in zip(points, seen, strict=True):
                inward = point * 128 + 4 * (centre - point) / np.linalg.norm(centre - point)
                on_figure = (image[int(inward[1]), int(inward[0])] == image[y, x]).all()
                assert visibility == (2 if on_figure else 1)
            hidden += (seen == 1).sum()
    assert hidden >= 3


@pytest.mark.parametrize(("task", "folder"), [("semantic", "masks"), ("depth", "depth")])
def test_the_maps_of_shapes_are_those_of_their_figures(task: str, folder: str) -> None:
    """Their images are those of ``segment``, whose polygons tell which class, or which distance, each pixel has."""
    wish: dict[str, Any] = {"train": 12, "val": 1, "imgsz": 128, "texture": 0}
    data, polygons = make("shapes", task=task, **wish), make("shapes", task="segment", **wish)
    names = declaration("shapes")["tasks"][task]["names"]
    seen: set[float] = set()
    for number, (image, lines) in enumerate(rows(polygons)):
        assert (root(data) / "images/train" / f"{number:06d}.png").read_bytes() == cv2.imencode(".png", image)[
            1
        ].tobytes()
        found = cv2.imread(str(root(data) / folder / "train" / f"{number:06d}.png"), cv2.IMREAD_UNCHANGED)
        assert found is not None
        ground = names.index("background") if task == "semantic" else 10_000
        assert found.dtype == (np.uint8 if task == "semantic" else np.uint16)
        assert found[0, 0] == ground  # no figure reaches the corner
        for line in lines:
            corners = line[1:].reshape(-1, 2) * 128
            x, y = corners.mean(axis=0).astype(int)
            part = found == found[y, x]
            assert part.sum() >= 0.9 * cv2.contourArea(corners.astype(np.float32))
            if task == "semantic":
                assert found[y, x] == line[0]
            elif line[0] == 0:  # a circle fills its box, whose diagonal is 1 m across
                assert found[y, x] == pytest.approx(1000 * 128 / (2**0.5 * np.ptp(corners[:, 0])), rel=0.01)
            seen.add(float(found[y, x]))
        inside = sum(cv2.contourArea((line[1:].reshape(-1, 2) * 128).astype(np.float32)) for line in lines)
        assert (found != ground).sum() == pytest.approx(inside, rel=0.05, abs=4)
    assert len(seen) >= 4
    assert max(seen) < (4 if task == "semantic" else 10_000)


@pytest.mark.parametrize(("name", "task"), [case for case in CASES if case[1] not in {"semantic", "depth"}])
def test_every_label_line_can_be_read(name: str, task: str) -> None:
    data = tiny(name, task)
    classes = declaration(name)["tasks"][task]["names"]
    for split, count in (("train", 4), ("val", 2)):
        if task == "classify":
            assert sorted(path.name for path in (data / split).iterdir()) == sorted(classes)
            assert len(list((data / split).glob("*/*.*"))) == count
            continue
        pairs = rows(data, split)
        assert len(pairs) == count
        for line in (line for _, lines in pairs for line in lines):
            assert line[0] in range(len(classes))
            columns = {"detect": {5}, "obb": {9}, "pose": {17}, "segment": {7, 9, 21, 129}}[task]
            assert len(line) in columns
            places = np.delete(line, [0, 7, 10, 13, 16] if task == "pose" else [0])
            assert (places > 0).all()
            assert (places < 1).all()


@each_case
def test_ultralytics_accepts_it(name: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.data import utils
    from ultralytics.data.dataset import ClassificationDataset, DepthDataset, SemanticDataset, YOLODataset
    from ultralytics.utils import DEFAULT_CFG

    monkeypatch.setattr(utils, "check_font", lambda font: None)  # it would download one
    data = tiny(name, task, train=10)
    classes = declaration(name)["tasks"][task]["names"]
    if task == "classify":
        found = utils.check_cls_dataset(str(data))
        assert list(found["names"].values()) == classes
        dataset = ClassificationDataset(str(found["train"]), args=DEFAULT_CFG, names=found["names"])
        assert sorted(sample[1] for sample in dataset.samples) == sorted(i % len(classes) for i in range(10))
    else:
        found = utils.check_det_dataset(str(data))
        kind = {"semantic": SemanticDataset, "depth": DepthDataset}.get(task, YOLODataset)
        dataset = kind(img_path=found["train"], data=found, task=task, imgsz=64, augment=False)
        assert list(found["names"].values()) == classes
        assert len(dataset) == 10
        labels = {"semantic": "masks", "depth": "depth"}.get(task, "labels")
        table = utils.load_dataset_cache_file(root(data) / labels / "train.cache")
        assert table["results"] == (10, 0, 0, 0, 10)  # found, missing, empty, corrupt, total
        assert dataset[0]["img"].shape == (3, 64, 64)
    before = root(data).stat().st_ino
    assert tiny(name, task, train=10) == data
    assert root(data).stat().st_ino == before  # the label cache of Ultralytics is no damage


# ----- wrong calls


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("digit", {}, r"no built-in data set 'digit'. Allowed: digits, shapes. Did you mean 'digits'\?"),
        ("digits", {"task": "pose"}, r"'digits' has no task 'pose'. Allowed: detect, classify. .*'shapes' has it"),
        ("shapes", {"task": "segmnet"}, r"no task 'segmnet'. Allowed: detect, .* Did you mean 'segment'\?"),
        ("shapes", {"trian": 3}, r"no option 'trian'. Allowed: train, .* Did you mean 'train'\?"),
        ("shapes", {"task": "classify", "max_objects": 3}, r"task 'classify' has no option 'max_objects'"),
        ("shapes", {"train": 0}, r"train=0 is out of range. Give a whole number from 1 to 50000 \(images\)"),
        ("shapes", {"imgsz": 4096}, r"imgsz=4096 is out of range. Give a whole number from 32 to 2048 \(pixels\)"),
        ("shapes", {"val": 2.0}, r"val=2.0 is of type float. Give a whole number from 1"),
        ("shapes", {"val": True}, r"val=True is of type bool"),
        ("shapes", {"seed": -1}, r"seed=-1 is out of range. Give a whole number from 0 to 4294967295"),
        ("digits", {"min_objects": 9}, r"min_objects=9 is more than max_objects=6. Lower min_objects or raise"),
    ],
)
def test_a_wrong_call_names_what_is_allowed(name: str, options: dict[str, Any], message: str, cache: Path) -> None:
    with pytest.raises(InvalidCallError, match=message):
        make(name, **options)
    assert not cache.exists()


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    generator("digits").samples.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InvalidCallError, match=r'pip install "yolo-stable\[demo\]"'):
        tiny("digits")
    assert names_in(cache) == []


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_cache_that_cannot_be_written_names_the_variable(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InvalidCallError, match=r"cache folder .*file.* Set the environment variable YOLO_STABLE_CACHE"):
        tiny(cache=tmp_path / place)


# ----- the cache


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert tiny().parent.parent == tmp_path / "cache"
    assert tiny(cache=tmp_path / "own").parent.parent == tmp_path / "own"
    monkeypatch.delenv("YOLO_STABLE_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert builtin_data.cache_dir() == tmp_path / "yolo-stable"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert builtin_data.cache_dir() == tmp_path / "home" / ".cache" / "yolo-stable"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert builtin_data.cache_dir() == tmp_path / "home" / "Library" / "Caches" / "yolo-stable"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert builtin_data.cache_dir() == tmp_path / "local" / "yolo-stable"


MAKER = """
import pathlib, sys, time
from yolo_stable.data.builtin import generator, make
shapes, wait = generator("shapes"), pathlib.Path(sys.argv[1])
scene = shapes.scene
def slow(number, **kwargs):
    if number == 2 and kwargs["split"] == "train":
        print("midway", flush=True)
        deadline = time.monotonic() + 30
        while not wait.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    return scene(number, **kwargs)
shapes.scene = slow
print(make("shapes", train=4, val=2, imgsz=64))
"""


def start_maker(go: Path) -> subprocess.Popen[str]:
    """Start a process that makes the tiny set of shapes and pauses before its third image until ``go`` exists."""
    environment = {**os.environ, "PYTHONPATH": str(Path(builtin_data.__file__).parents[2])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", MAKER, str(go)], env=environment, **pipes)


def test_a_fault_midway_leaves_nothing(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    shapes = generator("shapes")
    fired = []

    def fail_at_third(number: int, **kwargs: object) -> object:
        if number == 2:
            fired.append(len(list(cache.glob(".unfinished-*/images/train/*.png"))))
            raise InjectedError
        return scene(number, **kwargs)

    scene = shapes.scene
    monkeypatch.setattr(shapes, "scene", fail_at_third)
    with pytest.raises(InjectedError):
        tiny()
    assert fired == [2]
    assert names_in(cache, "*shapes*") == names_in(cache, ".lock-*")
    monkeypatch.undo()
    assert len(rows(tiny(cache=cache))) == 4


def test_what_a_killed_process_leaves_is_never_finished_and_is_cleaned_up(cache: Path, tmp_path: Path) -> None:
    with start_maker(tmp_path / "never") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "midway\n"
        tiny(seed=1)  # another set, while the first process lives: its folder is not swept away
        assert len(list(cache.glob(".unfinished-*/images/train/*.png"))) == 2
        process.kill()
    assert process.returncode != 0
    assert len(list(cache.glob(".unfinished-*/images/train/*.png"))) == 2
    assert len(names_in(cache)) == 1
    tiny(seed=2)
    assert names_in(cache, ".unfinished-*") == []
    assert len(rows(tiny())) == 4


def test_two_processes_at_once_end_with_the_same_whole_set(tmp_path: Path, cache: Path) -> None:
    with start_maker(tmp_path / "go") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "midway\n"
        with start_maker(tmp_path / "go") as second:
            assert second.stderr is not None
            assert "another process is making" in second.stderr.readline()
            assert names_in(cache) == []
            (tmp_path / "go").touch()
            theirs = first.stdout.readline(), second.communicate(timeout=20)[0]
    assert theirs[0] == theirs[1]  # had the second one drawn as well, it would have said "midway" first
    assert (first.returncode, second.returncode) == (0, 0)
    assert len(names_in(cache)) == 1
    whole = content(Path(theirs[0].strip()))
    assert whole == content(tiny(cache=tmp_path / "other"))


@pytest.mark.parametrize("damage", ["image", "half an image", "label", "manifest", "empty manifest", "yaml", "moved"])
def test_a_damaged_folder_is_made_anew(damage: str, cache: Path, tmp_path: Path) -> None:
    data = tiny()
    whole, folder, image = content(data), data.parent, data.parent / "images" / "val" / "000001.png"
    if damage == "moved":
        shutil.move(cache, tmp_path / "elsewhere")
        cache = tmp_path / "elsewhere"
    elif damage == "half an image":
        image.write_bytes(image.read_bytes()[:100])
    elif damage == "empty manifest":
        (folder / "manifest.json").write_text("")
    else:
        paths = {"label": "labels/train/000000.txt", "manifest": "manifest.json", "yaml": "data.yaml"}
        (folder / paths.get(damage, "images/val/000001.png")).unlink()
    again = tiny(cache=cache)
    assert content(again) == whole
    assert yaml.safe_load(again.read_text())["path"] == str(again.parent)
    assert names_in(cache, ".unfinished-*") == []


def test_another_version_of_the_generator_gets_a_folder_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = tiny()
    shutil.copytree(resource_dir("datasets"), tmp_path / "datasets")
    with (tmp_path / "datasets" / "shapes.py").open("a") as source:
        source.write("# changed\n")
    monkeypatch.setattr(builtin_data, "resource_dir", lambda name: tmp_path / name)
    assert tiny() != before


# ----- the door


def test_importing_the_module_is_cheap() -> None:
    code = "import sys, yolo_stable.data.builtin; print({'numpy', 'cv2', 'torch', 'ultralytics'} & {*sys.modules})"
    environment = {**os.environ, "PYTHONPATH": str(Path(builtin_data.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_generator_is_also_a_script(tmp_path: Path) -> None:
    command = [sys.executable, str(resource_dir("datasets") / "shapes.py"), str(tmp_path / "out"), "--train", "2"]
    environment = {**os.environ, "PYTHONPATH": str(Path(builtin_data.__file__).parents[2])}
    done = subprocess.run([*command, "--task", "obb"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(make("shapes", task="obb", train=2, cache=tmp_path / "out"))


def test_the_script_refuses_what_make_refuses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert builtin_data.script("digits", [str(tmp_path / "out"), "--imgsz", "31"]) == 2
    assert "imgsz=31 is out of range" in capsys.readouterr().err


@pytest.mark.parametrize("name", BUILTIN)
def test_the_documentation_names_every_option_with_its_default_and_range(name: str) -> None:
    text = (resource_dir("datasets") / "README.md").read_text(encoding="utf-8")
    section = text.split(f"\n## `{name}`")[1].split("\n## ")[0]
    for option, rule in declaration(name)["options"].items():
        assert f"| `{option}` | {rule['default']} | {rule['min']} to {rule['max']} |" in section
