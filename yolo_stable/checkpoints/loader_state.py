"""Loader state: its generator, the images kept for mosaics, the generators of the augmentation library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

GENERATOR = "data/generator"


def save_order(loader: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what determines the next epoch's data, beside the global random number generators.

    It is exact for a loader without workers. Workers are ahead of the loop, each with generators of its own.

    Args:
        loader: Ultralytics' training loader, between two epochs.
    """
    tensors = {} if loader.generator is None else {GENERATOR: loader.generator.get_state()}
    buffer = getattr(loader.dataset, "buffer", None)
    plain = {
        "images": len(loader.dataset),
        "running": loader.iterator is not None,
        "buffer": [int(index) for index in buffer] if isinstance(buffer, list) else [],
        "augmentation": [_state_of(pipeline) for pipeline in _pipelines(loader.dataset)],
    }
    return tensors, plain


def restore_order(loader: Any, tensors: dict[str, Tensor], plain: dict[str, Any], *, generators: bool = True) -> None:
    """Restore the loader; images kept for mosaics are read again. Other data begin anew.

    Args:
        loader: A new loader of the same data, or the same one after its ``reset()``.
        tensors: As from :func:`save_order`; may hold others.
        plain: As from :func:`save_order`.
        generators: False on another rank than the one that saved: there the loader and its augmentations keep the generators
            of their own, or all ranks would draw the same.
    """
    dataset = loader.dataset
    if len(dataset) != plain["images"]:
        return
    if plain["running"] and loader.iterator is None and loader.num_workers == 0:
        loader.iterator = loader._get_iterator()
        # PyTorch's sampler draws a permutation that it throws away when it is asked for more than an epoch. Behind an epoch
        # it has that draw still before it. Both this and the new iterator draw from the generator: before that is set.
        for _ in range(len(loader)):
            next(loader.iterator._sampler_iter)
    if generators and GENERATOR in tensors and loader.generator is not None:
        loader.generator.set_state(tensors[GENERATOR])
    if isinstance(getattr(dataset, "buffer", None), list) and not dataset.buffer:
        for index in plain["buffer"]:
            with contextlib.suppress(FileNotFoundError):  # an image may be gone since; others take its place
                dataset.load_image(index)
    pipelines = list(_pipelines(dataset))
    if generators and len(pipelines) == len(plain["augmentation"]):
        for pipeline, state in zip(pipelines, plain["augmentation"], strict=True):
            _set(pipeline, state)


def restore_behind_reset(
    loader: Any, tensors: dict[str, Tensor], plain: dict[str, Any], *, generators: bool = True
) -> None:
    """Restore once more after the next ``reset()`` of the loader, which the saved run had passed.

    The loop resets it when mosaics end. A resumed run passes that place again: in the run that is continued, neither a new
    iterator nor new augmentations were made then.
    """

    def reset() -> None:
        del loader.reset
        loader.reset()
        restore_order(loader, tensors, plain, generators=generators)

    loader.reset = reset


def _pipelines(dataset: Any) -> Iterator[Any]:
    """Yield pipelines and transforms of Albumentations; each has its own random number generators."""
    queue, seen = [getattr(dataset, "transforms", None)], set()
    while queue:
        part = queue.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        if hasattr(part, "py_random") and hasattr(part, "random_generator"):
            yield part
        inner = getattr(part, "transforms", None)
        queue += list(inner) if isinstance(inner, (list, tuple)) else []
        queue += [getattr(part, name, None) for name in ("pre_transform", "transform")]


def _state_of(pipeline: Any) -> dict[str, Any] | None:
    if getattr(pipeline, "seed", None) is None:
        return None  # not used yet; Ultralytics seeds it with the first image
    version, numbers, gauss = pipeline.py_random.getstate()
    return {
        "seed": int(pipeline.seed),
        "python": [version, list(numbers), gauss],
        "numpy": pipeline.random_generator.bit_generator.state,
    }


def _set(pipeline: Any, state: dict[str, Any] | None) -> None:
    if state is None:
        return
    if (
        pipeline.seed != state["seed"]
    ):  # Ultralytics looks at the seed, too; parts get theirs with the whole, which is first
        pipeline.set_random_seed(state["seed"])
    version, numbers, gauss = state["python"]
    pipeline.py_random.setstate((version, tuple(numbers), gauss))
    pipeline.random_generator.bit_generator.state = state["numpy"]
