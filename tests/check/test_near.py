"""Near duplicates: each kind of copy is found, and pictures of one layout are not; frames in thousands."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from check.compositions import COMPOSITIONS
from check.planted import LINES, Planted, encoded, picture
from PIL import Image, ImageFilter

from yolo_stable.check import check, near
from yolo_stable.check.finding import DataFinding
from yolo_stable.check.fingerprints import Fingerprints
from yolo_stable.check.likeness import likeness
from yolo_stable.check.limits import LIMITS
from yolo_stable.check.near import CROWD, find_near, near_duplicates
from yolo_stable.check.pixels import SIDE
from yolo_stable.check.scan import Scan

LIMIT = LIMITS["near-duplicate"]
PICTURES = 16


def photograph(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """Return clouds with details of several sizes, as photographs have them."""
    random = np.random.default_rng(seed)
    layers = []
    for cells, weight in ((5, 0.5), (12, 0.3), (30, 0.2)):
        coarse = random.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8)
        layers.append(weight * np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)))
    return Image.fromarray(sum(layers).astype(np.uint8))  # pyright: ignore[reportAttributeAccessIssue]


def jpeg(image: Image.Image, quality: int = 85) -> bytes:
    return encoded(np.asarray(image), "JPEG", quality=quality)


def captioned(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).copy()
    pixels[-20:] = 255
    pixels[-14:-6, 20:200:4] = 0
    return Image.fromarray(pixels)


def with_strip(image: Image.Image) -> Image.Image:
    """Return an image with a caption below it."""
    pixels = np.asarray(image)
    return Image.fromarray(np.concatenate([pixels, np.full((14, *pixels.shape[1:]), 255, np.uint8)]))


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 50, height // 50, width - width // 50, height - height // 50))


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "another focus": lambda image: jpeg(image.filter(ImageFilter.UnsharpMask(4, 150))),
    "a caption": lambda image: jpeg(captioned(image)),
    "a caption below": lambda image: jpeg(with_strip(image)),
    "another encoding": lambda image: jpeg(image, 25),
    "another size": lambda image: jpeg(image.resize((image.width // 3, image.height // 3))),
    "another shape": lambda image: jpeg(image.resize((416, 416))),
    "a crop by 2 %": lambda image: jpeg(cropped(image)),
    "a quarter turn": lambda image: jpeg(image.transpose(Image.Transpose.ROTATE_90)),
    "a mirror": lambda image: jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    "a blur": lambda image: jpeg(image.filter(ImageFilter.GaussianBlur(5))),
    "a crop and a turn": lambda image: jpeg(cropped(image).transpose(Image.Transpose.ROTATE_270)),
    "more light": lambda image: jpeg(Image.fromarray((np.asarray(image) * 0.8 + 40).astype(np.uint8))),
}


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    return [photograph(seed) for seed in range(PICTURES)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_copy_is_found_and_no_other_pair(tmp_path: Path, originals: list[Image.Image], kind: str) -> None:
    data = Planted(tmp_path)
    for number, image in enumerate(originals):
        data.add(f"{number}.png", encoded(np.asarray(image)))
        data.image("near-duplicate-across-splits", f"copy-{number}.jpg", KINDS[kind](image), split="val")
    data.write()
    near = [finding for finding in check(tmp_path).findings if finding.rule.id.startswith("near-duplicate")]
    assert {(finding.rule.id, finding.path, None) for finding in near} == data.expected
    pairs = {tuple(Path(other).stem for other in finding.others) for finding in near}
    assert pairs == {(str(number), f"copy-{number}") for number in range(PICTURES)}


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("kind", COMPOSITIONS)
def test_different_pictures_of_one_composition_are_not_named_and_a_copy_among_them_is(
    tmp_path: Path, kind: str, ending: str
) -> None:
    data = Planted(tmp_path)
    pictures = [COMPOSITIONS[kind](seed) for seed in range(12)]
    for number, image in enumerate(pictures):
        content = encoded(np.asarray(image)) if ending == "png" else jpeg(image, 90)
        data.add(f"{number}.{ending}", content, split="val" if number % 4 == 3 else "train")
    near = [f.message for f in check(data.write()).findings if f.rule.id.startswith("near")]
    assert near == []
    data.add("copy.jpg", jpeg(Image.fromarray((np.asarray(pictures[0]) * 0.8 + 20).astype(np.uint8)), 80), split="val")
    near = [f.others for f in check(data.write()).findings if f.rule.id.startswith("near")]
    named = [tuple(Path(path).stem for path in others) for others in near]
    assert named == [("0", "copy")] or (kind == "screens" and not named)  # screens differ no more than a copy does


@pytest.mark.parametrize("kind", COMPOSITIONS)
def test_pictures_of_one_composition_reach_the_likeness(tmp_path: Path, kind: str) -> None:
    """Else nothing of the above is tested."""
    small = [np.asarray(COMPOSITIONS[kind](seed).resize((32, 32), Image.Resampling.BOX)) for seed in range(12)]
    pictures = np.stack(small).transpose(0, 3, 1, 2)
    pairs = np.array([(a, b) for a in range(12) for b in range(a)])
    assert (likeness(pictures[pairs[:, 0]], pictures[pairs[:, 1]])[0] >= LIMIT).sum() >= 5


def test_what_differs_in_a_band_is_named_only_where_no_third_picture_is_alike(tmp_path: Path) -> None:
    data = Planted(tmp_path)
    scene = np.asarray(photograph(5))
    for number in range(2):
        stamped = scene.copy()
        stamped[-24:-4, 20 + 40 * number : 120 + 60 * number : 3] = 255
        data.add(f"{number}.png", encoded(stamped))
    data.add("other", split="val")
    named = [len(f.others) for f in check(data.write()).findings if f.rule.id == "near-duplicate"]
    assert named == [2]
    stamped = scene.copy()
    stamped[-24:-4, 200:300:3] = 0
    data.add("2.png", encoded(stamped))
    assert [f for f in check(data.write()).findings if f.rule.id == "near-duplicate"] == []


def scans_of(small: np.ndarray, tmp_path: Path) -> dict[str, Scan]:
    part = Scan([str(tmp_path / f"{number:05d}.png") for number in range(len(small))])
    part.small, part.keys = bytearray(small.astype(np.uint8).tobytes()), array("Q", [0]) * len(small)
    return {"train": part}


def found_in(scans: dict[str, Scan]) -> list[DataFinding]:
    return list(near_duplicates(find_near(scans, [], str, LIMIT), scans, LIMIT))


def test_flat_images_are_not_alike(tmp_path: Path) -> None:
    scans = scans_of(np.full((50, SIDE, SIDE), 90), tmp_path)
    assert found_in(scans) == []


def test_pictures_of_one_layout_are_told_apart_by_their_colours(tmp_path: Path) -> None:
    """A disc in the same place, grey alike; the colours are those of other things."""
    data = Planted(tmp_path)
    y, x = np.mgrid[:96, :96]
    disc = (x - 45) ** 2 + (y - 52) ** 2 < 30**2
    shade = np.broadcast_to((x // 2)[..., None], (96, 96, 3)).astype(np.uint8)
    for name, colour in (("red", (250, 90, 60)), ("blue", (40, 150, 250))):
        pixels = shade.copy()
        pixels[disc] = colour
        data.add(name, encoded(pixels))
    data.add("other", split="val")
    data.write()
    assert not [finding for finding in check(tmp_path).findings if finding.rule.id.startswith("near")]


def test_the_frames_of_a_video_are_one_finding_for_each_split(tmp_path: Path) -> None:
    data = Planted(tmp_path)
    scene, random = np.asarray(photograph(7, 96, 72)).astype(np.int16), np.random.default_rng(0)
    for number in range(3 * CROWD):
        frame = scene.copy()
        frame[20:30, number : number + 10] = 255  # something passes by
        noisy = (frame + random.integers(-3, 4, frame.shape)).clip(0, 255).astype(np.uint8)
        data.add(f"{number:03d}", encoded(noisy), split="val" if number % 3 == 2 else "train")
    data.write()
    near = [finding for finding in check(tmp_path).findings if finding.rule.id.startswith("near")]
    told = {finding.rule.id: (finding.message.split(" look like ")[0], len(finding.others)) for finding in near}
    assert told == {
        "near-duplicate": (f"{2 * CROWD - 1} images of train", 2 * CROWD),
        "near-duplicate-across-splits": (f"{CROWD} images of val", CROWD + 1),
    }


def test_thousands_of_equal_frames_take_seconds(tmp_path: Path) -> None:
    """Each is like each: two million pairs, of which a few for each frame are looked at."""
    data = Planted(tmp_path)
    first = data.add("00000.png", encoded(picture(3)))
    random = np.random.default_rng(0)
    for number in range(1, 2000):
        (first.parent / f"{number:05d}.png").hardlink_to(first)
    small = np.asarray(Image.fromarray(picture(3)).convert("L").resize((SIDE, SIDE)), dtype=np.int16)
    frames = np.clip(small + random.integers(-1, 2, (2000, SIDE, SIDE)), 0, 255)
    begun = time.process_time()
    (finding,) = found_in(scans_of(frames, first.parent))
    assert len(finding.others) == 2000
    assert time.process_time() - begun < 15


def test_a_file_that_is_listed_twice_is_no_copy(tmp_path: Path) -> None:
    data = Planted(tmp_path, train=["images/train", "images/train"])
    for number in range(3):
        data.add(f"{number}.jpg", jpeg(photograph(number)), labels=LINES)
        data.add(f"{number}.jpg", jpeg(photograph(number + 10)), labels=LINES, split="val")
    data.write()
    assert {finding.rule.id for finding in check(tmp_path).findings} == {"listed-again"}


def test_the_limit_is_the_users(tmp_path: Path) -> None:
    data = Planted(tmp_path)
    data.add("a.png", encoded(picture(1)))
    data.add("b.jpg", jpeg(Image.fromarray(picture(1)).resize((80, 56)), 60), split="val")
    path = data.write()
    for limit, count in ((0.9, 1), (1.01, 0)):
        findings = check(path, limits={"near-duplicate": limit}).findings
        assert sum(finding.rule.id.startswith("near-duplicate") for finding in findings) == count


def test_an_image_that_goes_while_it_is_compared_is_like_no_other() -> None:
    from yolo_stable.check.picture import COLOURS, small_colours

    gone = small_colours("no/such/file.png")
    assert (gone.shape, int(gone.max())) == ((3, COLOURS, COLOURS), 0)


def test_a_copy_that_is_turned_is_said_to_be_turned(tmp_path: Path) -> None:
    data = Planted(tmp_path)
    image = photograph(3)
    data.add("a.png", encoded(np.asarray(image)))
    data.add("b.jpg", jpeg(image))
    data.add("c.jpg", KINDS["a mirror"](image), split="val")
    found = {Path(f.path).name: f.message for f in check(data.write()).findings if f.rule.id.startswith("near")}
    assert found.keys() == {"b.jpg", "c.jpg"}
    assert [", turned or mirrored: likeness" in found[name] for name in ("b.jpg", "c.jpg")] == [False, True]


def test_a_crowd_is_shown_by_the_image_that_it_is_found_at(tmp_path: Path) -> None:
    data = Planted(tmp_path)
    first = data.add("00000.png", encoded(picture(3)))
    for number in range(1, CROWD + 4):
        (first.parent / f"{number:05d}.png").hardlink_to(first)
    small = np.asarray(Image.fromarray(picture(3)).convert("L").resize((SIDE, SIDE)), dtype=np.int16)
    (finding,) = found_in(scans_of(np.stack([small] * (CROWD + 4)), first.parent))
    assert finding.image == finding.path == str(first.parent / "00001.png")


def test_few_pictures_are_kept_however_many_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Planted(tmp_path)
    monkeypatch.setattr(near, "_KEPT", 3)
    paths = [str(data.add(f"{number}")) for number in range(8)]
    prints = Fingerprints(np.zeros((8, SIDE, SIDE), np.uint8))
    compare = near._Comparison(prints, lambda image: paths[image], str, LIMIT)
    ones, others = compare._pictures([(image, 0, 0) for image in range(1, 8)])
    assert (ones == ones[0]).all()
    assert not (others[0] == others[1]).all()
    assert compare._colours.cache_info().currsize == 3
