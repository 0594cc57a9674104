from __future__ import annotations

import json
import pickle
from array import array

import pytest

from yolo_stable.errors import InvalidCallError
from yolo_stable.provenance import recipe as provenance
from yolo_stable.provenance.geometry import pieces
from yolo_stable.provenance.recipe import ROW_BITS, Provenance, Source, unknown

A = ("image", 0, 5, "a.jpg", 40, 20)
B = ("image", 1, 6, "b.jpg", 30, 30)
SIDE_BY_SIDE = ("mosaic", ((A, 0, 0, 0, 0, 20, 20), (B, 20, 0, 20, 0, 40, 20)))


def codes(*rows: tuple[int, int] | None) -> bytes:
    return array("q", [-1 if row is None else row[0] << ROW_BITS | row[1] for row in rows]).tobytes()


def made(recipe: tuple, *rows: tuple[int, int] | None) -> Provenance:
    return Provenance.of(recipe, codes(*rows), len(rows), (20, 40))


def test_sources_and_rows_are_worked_out_when_asked() -> None:
    image = made(SIDE_BY_SIDE, (1, 3), (0, 0), None, (1, 2))
    assert image.sources == (
        Source("a.jpg", 5, ((0, 0), (20, 0), (20, 20), (0, 20)), "image", (0,)),
        Source("b.jpg", 6, ((20, 20), (20, 0), (40, 0), (40, 20)), "mosaic", (3, 2)),
    )
    assert image.rows == ((1, 3), (0, 0), None, (1, 2))
    assert image.files() == ("a.jpg", "b.jpg")
    assert image.tile(1) == [20, 0, 40, 20]


def test_the_sources_at_a_pixel_come_with_the_topmost_last() -> None:
    image = made(("cutmix", A, B, 10, 0, 20, 20))
    assert [s.path for s in image.at(5, 5)] == ["a.jpg"]
    assert [s.path for s in image.at(10, 5)] == ["a.jpg", "b.jpg"]
    assert [s.path for s in image.at(19, 19)] == ["a.jpg", "b.jpg"]
    assert [s.path for s in image.at(20, 5)] == ["a.jpg"]
    assert image.at(40, 5) == ()


def test_a_file_that_is_nowhere_to_be_seen_is_left_out_unless_a_box_is_behind_it() -> None:
    hidden = ("mosaic", ((A, 0, 0, 0, 0, 20, 20), (B, 900, 0, 20, 0, 40, 20)))
    assert made(hidden, (0, 0)).files() == ("a.jpg",)
    behind = made(hidden, (1, 4))
    assert behind.files() == ("a.jpg", "b.jpg")
    assert behind.sources[1].region == ()
    assert behind.tile(1) is None


def test_the_sample_itself_always_stands_there() -> None:
    image = made(("warp", A, [1.0, 0, 500, 0, 1.0, 0, 0, 0, 1.0], 50, 50))
    assert [(s.path, s.region) for s in image.sources] == [("a.jpg", ())]


def test_a_file_used_twice_keeps_its_uses_apart() -> None:
    twice = ("mosaic", ((A, 0, 0, 0, 0, 20, 20), (("image", 1, 5, "a.jpg", 40, 20), 20, 0, 20, 0, 40, 20)))
    image = made(twice, (1, 0), (0, 0))
    assert image.rows == ((1, 0), (0, 0))
    assert image.files() == ("a.jpg",)


def test_where_is_not_known_after_an_unknown_transform_but_what_is() -> None:
    image = made(("unknown", SIDE_BY_SIDE), (1, 3))
    assert [(s.path, s.region) for s in image.sources] == [("a.jpg", None), ("b.jpg", None)]
    assert image.rows == ((1, 3),)
    assert (image.tile(0), image.at(1, 1)) == (None, ())


def test_rows_that_nobody_noted_are_none() -> None:
    assert Provenance.of(A, None, 2, (20, 40)).rows == (None, None)
    assert unknown().sources == ()


@pytest.mark.parametrize("asked_before", [False, True], ids=["as a recipe", "worked out"])
def test_it_is_the_same_after_pickling(asked_before: bool) -> None:
    image = made(SIDE_BY_SIDE, (1, 3), None)
    if asked_before:
        assert image.sources
    copied = pickle.loads(pickle.dumps(image))
    assert copied == image
    assert hash(copied) == hash(image)


def test_it_is_small_on_its_way_from_a_worker() -> None:
    assert len(pickle.dumps([made(SIDE_BY_SIDE, (1, 3), None)] * 1)) < 600


def test_json_brings_everything_back() -> None:
    warped = ("warp", ("mixup", SIDE_BY_SIDE, ("unknown", B)), [0.7, 0.2, 3, -0.1, 0.9, 1, 1e-4, 0, 1], 64, 64)
    image = made(warped, (1, 3), None, (0, 1))
    assert Provenance.from_json(image.to_json()) == image
    assert json.loads(image.to_json())["sources"][2]["region"] is None


GOOD = {
    "schema": 1,
    "size": [4, 4],
    "sources": [{"path": "a", "index": 0, "region": [[0, 0], [1, 0], [1, 1]], "how": "image", "rows": [0]}],
    "rows": [[0, 0], None],
}


def changed(**changes: object) -> str:
    return json.dumps({**GOOD, **changes})


def source(**changes: object) -> str:
    return changed(sources=[{**GOOD["sources"][0], **changes}])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", r"it is \[\]"),
        (changed(more=1), "not an object with"),
        (changed(schema=2), "its schema is 2"),
        (changed(schema=True), "its schema is True"),
        (changed(size=[4]), "size is"),
        (changed(size=[4, -1]), "size is"),
        (changed(sources={}), "sources is"),
        (changed(rows=[[1, 0]]), "there are 1 sources"),
        (changed(rows=[[0, -1]]), r"rows\[0\]"),
        (changed(rows=[[0, 1.5]]), r"rows\[0\]"),
        (source(path=1), "path 1"),
        (source(how="magic"), "how 'magic'"),
        (source(index="0"), "index '0'"),
        (source(region=[[0, 0, 0]]), "corner"),
        (source(region=[[0, float("nan")]]), "corner"),
        (source(region=[[0, 10**400]]), "corner"),
        (source(rows=[None]), "rows"),
    ],
)
def test_json_that_is_not_its_own_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidCallError, match=f"Not a provenance: .*{says}"):
        Provenance.from_json(text)


def test_the_good_json_is_read() -> None:
    assert Provenance.from_json(json.dumps(GOOD)).tile(0) == [0, 0, 1, 1]


def test_the_first_and_the_last_pixel_of_a_column_are_in_the_image() -> None:
    image = made(A)
    assert [[s.path for s in image.at(x, y)] for x, y in ((0, 0), (39, 19), (0, 20), (0, -1), (-1, 0))] == [
        ["a.jpg"],
        ["a.jpg"],
        [],
        [],
        [],
    ]


def test_one_of_nothing_has_no_size() -> None:
    assert (Provenance().size, Provenance().sources, unknown().size) == ((0, 0), (), (0, 0))


def test_a_recipe_is_worked_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(provenance, "pieces", lambda recipe: asked.append(recipe) or pieces(recipe))
    image = made(SIDE_BY_SIDE, (1, 3))
    for _ in range(3):
        assert (image.files(), image.rows) == (("a.jpg", "b.jpg"), ((1, 3),))
    assert len(asked) == 1
