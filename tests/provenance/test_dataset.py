from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from data_kinds import COUNT, KINDS, classes_in
from torch.utils.data import DataLoader, default_collate
from traced_data import ROWS, close_mosaic, dataset, generators, samples, seed
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_dataloader, seed_worker
from ultralytics.data.dataset import (
    ClassificationDataset,
    YOLOConcatDataset,
    YOLODataset,
)

from yolo_stable.provenance.dataset import parts_of, retrace, take, trace
from yolo_stable.provenance.quarantine import Quarantine
from yolo_stable.provenance.recipe import Provenance


def require_equal(traced: Any, plain: Any, name: str = "sample") -> None:
    assert type(traced) is type(plain), name
    if isinstance(plain, torch.Tensor):
        assert traced.dtype == plain.dtype, name
        assert traced.stride() == plain.stride(), name
        assert torch.equal(traced, plain), name
    elif isinstance(plain, np.ndarray):
        np.testing.assert_array_equal(traced, plain)
    elif isinstance(plain, dict):
        assert list(traced) == list(plain), name
        for key in plain:
            require_equal(traced[key], plain[key], key)
    elif isinstance(plain, (list, tuple)):
        assert len(traced) == len(plain), name
        for one, other in zip(traced, plain, strict=True):
            require_equal(one, other, name)
    else:
        assert traced == plain, name


@pytest.mark.parametrize("kind", KINDS)
def test_images_labels_and_random_numbers_are_those_of_the_untraced_data_set(kind: str, kinds: Any) -> None:
    plain, traced = kinds[kind](), kinds[kind]()
    trace(traced)
    origins: list[Provenance] = []
    for number in range(3):  # the images that are kept for mosaics go on from one to the next
        expected, generators_after = samples(plain, range(len(plain)), number)
        found, generators_traced = samples(traced, range(len(traced)), number)
        assert generators_traced == generators_after
        origins = require_equal_batches(traced, found, expected)
        assert len(origins) == len(found)
        for index, (sample, origin) in enumerate(zip(found, origins, strict=True)):
            assert origin.sources[0].index == index
            assert len(origin.rows) == len(sample.get("bboxes", ()))
            assert None not in origin.rows
            assert origin.size == tuple(sample["img"].shape[-2:])
            if "im_file" in sample:
                assert origin.files()[0] == str(sample["im_file"])
    if kind not in {"validation", "rectangles", "depth", "classify"}:
        assert any(len(origin.sources) > 3 for origin in origins)


def require_equal_batches(data: Any, found: list[Any], expected: list[Any]) -> list[Provenance]:
    """Compare in batches, as rectangles have a form for each batch. Returns the provenance of all."""
    origins = []
    for start in range(0, len(found), 4):
        batch = collate(data)(found[start : start + 4])
        origins += take(batch)
        require_equal(batch, collate(data)(expected[start : start + 4]))
    return origins


def collate(data: Any) -> Callable[[list[Any]], Any]:
    return getattr(data, "collate_fn", None) or default_collate


@pytest.mark.parametrize("kind", ["texts", "grounding"])
def test_rows_are_kept_where_texts_choose_among_the_labels(kind: str, kinds: Any) -> None:
    data: Any = kinds[kind]()
    trace(data)
    checked = 0
    for index in range(10):
        seed(index)
        sample = data[index]
        origin: Provenance = sample["provenance"]
        for cls, row in zip(sample["cls"].flatten().tolist(), origin.rows, strict=True):
            assert row is not None
            source = origin.sources[row[0]]
            label = data.labels[source.index]
            own = label["cls"][row[1], 0]
            words = data.data["names"][int(own)].split("/") if kind == "texts" else label["texts"][int(own)]
            assert sample["texts"][int(cls)] in words
            checked += 1
    assert checked > 10


def test_the_second_of_joined_data_sets_counts_on(boxes: Path) -> None:
    joined: Any = YOLOConcatDataset([dataset(boxes), dataset(boxes, mosaic=0.0)])
    trace(joined)
    assert [start for _, start in parts_of(joined)] == [0, COUNT]
    assert joined[COUNT + 3]["provenance"].sources[0].index == COUNT + 3


def test_tracing_twice_is_tracing_once(boxes: Path) -> None:
    data = dataset(boxes)
    trace(data)
    before = dict(vars(data))
    trace(data)
    assert {k: id(v) for k, v in vars(data).items()} == {k: id(v) for k, v in before.items()}
    seed(0)
    assert len(data[0]["provenance"].rows) == len(samples(data, range(1), 0)[0][0]["cls"])


def test_what_is_built_when_mosaics_end_is_traced(boxes: Path) -> None:
    plain, traced = dataset(boxes), dataset(boxes)
    trace(traced)
    for data in (plain, traced):
        samples(data, range(4), 0)
        close_mosaic(data)
    expected, _ = samples(plain, range(COUNT), 1)
    found, _ = samples(traced, range(COUNT), 1)
    origins = [sample.pop("provenance") for sample in found]
    for one, other in zip(found, expected, strict=True):
        require_equal(one, other)
    assert {len(origin.sources) for origin in origins} == {1}
    assert all(origin.sources[0].region for origin in origins)


def test_a_copy_builds_its_own_transforms_when_mosaics_end(boxes: Path) -> None:
    plain, traced = dataset(boxes), dataset(boxes)
    trace(traced)
    before = traced.transforms
    copies = copy.copy(plain), copy.copy(traced)
    for data in copies:
        data.augment = False  # what is built depends on the data set
        close_mosaic(data)
    expected, found = (samples(data, range(COUNT), 1)[0] for data in copies)
    for one, other in zip(found, expected, strict=True):
        origin = one.pop("provenance")
        require_equal(one, other)
        assert [source.path for source in origin.sources] == [one["im_file"]]
    assert traced.transforms is before, "the data set that was copied keeps its mosaics"
    assert len(traced[0]["provenance"].sources) > 1


def test_what_somebody_builds_in_place_of_ultralytics_is_traced(boxes: Path) -> None:
    data, built = dataset(boxes), []
    inner = data.build_transforms
    data.build_transforms = lambda hyp: built.append(hyp) or inner(hyp)
    trace(data)
    close_mosaic(data)
    assert len(built) == 1
    assert data[3]["provenance"].files() == (data.im_files[3],)


def test_transforms_that_somebody_else_put_in_are_traced_again(boxes: Path) -> None:
    data = dataset(boxes)
    trace(data)
    data.transforms = dataset(boxes, mosaic=0.0).transforms
    batch = data.collate_fn([data[0], data[1]])  # not followed: what was read is known, and not where it is
    assert [(o.files(), o.sources[0].region) for o in take(batch)] == [((data.im_files[n],), None) for n in (0, 1)]
    retrace(data)
    assert data[0]["provenance"].sources[0].region


def test_a_stranger_is_left_as_it_is() -> None:
    class Numbers(torch.utils.data.Dataset):
        def __getitem__(self, index: int) -> dict[str, int]:
            return {"x": index}

        def __len__(self) -> int:
            return 3

    data = Numbers()
    trace(data, Quarantine(3))
    assert (data[1], vars(data)) == ({"x": 1}, {})
    assert take(default_collate([data[0], data[1]])) == ()
    assert take([1, 2]) == ()


def test_another_wrapper_around_reading_keeps_its_place(boxes: Path) -> None:
    data, seen = dataset(boxes), []
    inner = data.get_image_and_label

    def reading(index: int) -> dict[str, Any]:
        seen.append(index)
        return inner(index)

    data.get_image_and_label = reading
    trace(data)
    assert data[5]["provenance"].sources[0].index == 5
    assert seen[0] == 5


# ---- loaders ---------------------------------------------------------------------------------------------------------------


def batches(loader: Any) -> list[tuple[tuple[Provenance, ...], dict[str, Any]]]:
    return [(take(batch), batch) for batch in loader]


def require_true_batches(found: list[Any], data: Any) -> None:
    for origins, batch in found:
        assert len(origins) == len(batch["img"])
        rows = [row for origin in origins for row in origin.rows]
        sources = [origin.sources[row[0]] for origin in origins for row in origin.rows]
        assert len(rows) == len(batch["cls"]) > 0
        for cls, row, source in zip(batch["cls"].flatten().tolist(), rows, sources, strict=True):
            assert divmod(int(cls), ROWS) == (int(Path(source.path).stem), row[1])
        assert [origin.files()[0] for origin in origins] == [str(path) for path in batch["im_file"]]
        assert "provenance" not in batch


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_batches_of_ultralytics_loader_know_their_files(workers: int, boxes: Path) -> None:
    data = dataset(boxes)
    trace(data)
    loader = build_dataloader(data, 8, workers)
    found = batches(loader)
    loader.close()
    assert len(found) == 3
    require_true_batches(found, data)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_workers_are_forked_or_spawned_and_see_what_is_left_out_while_they_run(method: str, boxes: Path) -> None:
    data, ward = dataset(boxes), Quarantine(COUNT)
    trace(data, ward)
    loader = DataLoader(
        data, 8, num_workers=1, collate_fn=data.collate_fn, worker_init_fn=seed_worker,
        multiprocessing_context=method, persistent_workers=True, prefetch_factor=1,
    )  # fmt: skip
    first = batches(loader)
    require_true_batches(first, data)
    assert {s.index for origins, _ in first for o in origins for s in o.sources} == set(range(COUNT))
    gone = set(range(0, COUNT, 3))
    ward.leave_out(data.im_files[index] for index in gone)
    second = batches(loader)
    require_true_batches(second, data)
    assert {s.index for origins, _ in second for o in origins for s in o.sources} == set(range(COUNT)) - gone
    loader._iterator._shutdown_workers()  # type: ignore[union-attr]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_classification_batches_know_their_files(workers: int, folders: Path) -> None:
    data = classes_in(folders)
    trace(data)
    images: Any = data
    for batch in DataLoader(images, 8, num_workers=workers, multiprocessing_context="fork" if workers else None):
        origins = take(batch)
        assert set(batch) == {"img", "cls"}
        for origin, cls in zip(origins, batch["cls"].tolist(), strict=True):
            assert f"class{cls}" in origin.files()[0]
            assert origin.tile(0) == [0, 0, 32, 32]
            assert origin.files()[0] == data.samples[origin.sources[0].index][0]


class OwnClasses(ClassificationDataset):
    """Somebody's own classification data set."""


def test_a_traced_classification_data_set_is_still_of_its_class(folders: Path) -> None:
    args: Any = get_cfg(overrides={"imgsz": 32, "task": "classify"})
    data = OwnClasses(str(folders), args)
    trace(data)
    copied = pickle.loads(pickle.dumps(data))
    assert isinstance(copied, OwnClasses)
    assert copied[4]["provenance"] == data[4]["provenance"]
    trace(copied)
    assert type(copied).__mro__.count(OwnClasses) == 1


@pytest.mark.parametrize("kind", ["detect", "segment", "texts", "joined"])
def test_a_traced_data_set_can_be_copied_and_pickled(kind: str, kinds: Any) -> None:
    data = kinds[kind]()
    trace(data, Quarantine(len(data)))
    expected, _ = samples(copy.deepcopy(data), range(4), 5)
    found, _ = samples(pickle.loads(pickle.dumps(data)), range(4), 5)
    for one, other in zip(found, expected, strict=True):
        require_equal(one, other)


# ---- quarantine ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["detect", "rectangles", "segment, apart", "masks", "joined", "classify", "depth"])
def test_an_empty_quarantine_changes_nothing(kind: str, kinds: Any) -> None:
    plain, traced = kinds[kind](), kinds[kind]()
    trace(traced, Quarantine(len(traced)))
    expected, after = samples(plain, range(len(plain)), 2)
    found, traced_after = samples(traced, range(len(traced)), 2)
    assert traced_after == after
    for one, other in zip(found, expected, strict=True):
        require_equal({k: v for k, v in one.items() if k != "provenance"}, other)


@pytest.mark.parametrize("kind", KINDS)
def test_images_in_quarantine_are_drawn_by_nobody_and_others_take_their_place(kind: str, kinds: Any) -> None:
    data = kinds[kind]()
    ward = Quarantine(len(data))
    trace(data, ward)
    samples(data, range(len(data)), 1)  # some of them are kept for mosaics by now
    gone = {1, 2, len(data) - 1}
    paths = {index: path for part, start in parts_of(data) for index, path in enumerate(_paths(part), start)}
    came = ward.leave_out(paths[index] for index in sorted(gone))
    gone = {index for index, path in paths.items() if path in came.taken}
    assert len(gone) >= 3
    twin = copy.deepcopy(data)
    found, _ = samples(data, range(len(data)), 3)
    again, _ = samples(twin, range(len(data)), 3)
    origins = require_equal_batches(data, found, [{k: v for k, v in s.items() if k != "provenance"} for s in again])
    repeated = [o for start in range(0, len(again), 4) for o in take(collate(data)(again[start : start + 4]))]
    assert {s.index for origin in origins for s in origin.sources}.isdisjoint(gone)
    assert origins == repeated
    for index, origin in enumerate(origins):
        first = origin.sources[0].index
        assert (first == index) == (index not in gone)


def _paths(part: Any) -> list[str]:
    return [s[0] for s in part.samples] if isinstance(part, ClassificationDataset) else [str(p) for p in part.im_files]


def test_an_image_that_is_left_out_draws_no_random_number(boxes: Path) -> None:
    data, ward = dataset(boxes, mosaic=0.0), Quarantine(COUNT)
    trace(data, ward)
    _, after = samples(data, range(6), 4)
    ward.leave_out([data.im_files[2]])
    drawn, after_without = samples(data, range(6), 4)
    assert after_without == after
    assert drawn[2]["provenance"].sources[0].index == 3
    seed(9)
    assert generators()


def test_in_rectangles_another_of_the_same_batch_comes_and_of_another_batch_in_its_form(boxes: Path) -> None:
    data, ward = dataset(boxes, rect=True, batch=4), Quarantine(COUNT)
    trace(data, ward)
    shapes = [tuple(data[index]["img"].shape[-2:]) for index in range(COUNT)]
    assert len(set(shapes)) > 1
    first = next(index for index in range(4, COUNT, 4) if shapes[index] != shapes[(index + 4) % COUNT])
    ward.leave_out([data.im_files[3], *data.im_files[first : first + 4]])
    assert data[3]["provenance"].sources[0].index == 0
    assert data[first]["provenance"].sources[0].index == (first + 4) % COUNT
    assert [tuple(data[index]["img"].shape[-2:]) for index in range(COUNT)] == shapes


def test_a_quarantine_may_come_later(boxes: Path) -> None:
    data, ward = dataset(boxes), Quarantine(COUNT)
    trace(data)
    trace(data, ward)
    assert (ward.blame(data.im_files[4]), ward.blame(data.im_files[4])) == (False, True)
    assert data[4]["provenance"].sources[0].index == 5


def test_what_the_trainer_plots_has_no_key_more(boxes: Path) -> None:
    data = dataset(boxes)
    trace(data)
    batch = data.collate_fn([data[0], data[1]])
    keys = set(YOLODataset.collate_fn([dataset(boxes)[0]]))
    assert set(batch) == keys | {"provenance"}
    assert len(take(batch)) == 2
    assert set(batch) == keys
    assert take(batch) == ()
    assert SimpleNamespace(**batch).img.shape[0] == 2
