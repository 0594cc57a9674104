"""Hundreds of injected faults, each with its truth, and what the run's own autopsy said about it.

    python -m benchmarks.autopsies [--rigs NAME ...] [--seeds 1] [--scale 0.5] [--replays 90] [--quick] [--json F]

Guarded trainers of every task, narrow ones, are fed batches as Ultralytics' loop feeds them: from the traced data set, mosaic
on. A file, a label row, a layer's forward or backward pass, a weight, a learning rate, a precision or the device is broken by
``yolo_stable.chaos``; a fault that did not fire, or that the guard found nothing wrong with, is counted and not judged. The
tables: the bars; truth against answer; every kind; and each miss with what was said instead. Then:

- costs at the size of a real network (``--model``), in steps of the same trainer, and the size of a bundle;
- bundles replayed in a fresh process, to the bit;
- damaged and hostile bundles.

``--quick`` takes a slice of all that in less than a minute. ``benchmarks.provenance`` measures the healthy run.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from yolo_stable.chaos import FileFault, LayerFault

from .autopsy_faults import Trial, trials_of
from .autopsy_hostile import hostile
from .autopsy_replays import by_command, fresh
from .autopsy_rig import Rig, clocked
from .autopsy_scores import Row, bar, bars, by_kind, confusion, misses, most, play
from .autopsy_settings import SETTINGS
from .contenders import quiet
from .record import keep, show

QUICK = ("detect", "classify")
SHOWN = (
    "rig",
    "kind",
    "where",
    "wrong",
    "cause",
    "said",
    "module",
    "true module",
    "op",
    "true op",
    "files",
    "why",
    "error",
)


def injected(names: list[str], seeds: int, scale: float, most_of_each: int | None, bundles: int, work: Path) -> Any:
    """Break everything in every rig.

    Args:
        names: Of the rigs.
        seeds: How many; each gives other places, files and batches.
        scale: Share of the places.
        most_of_each: Trials of a rig at most, spread over the kinds; None: all.
        bundles: How many are written, spread over everything.
        work: For data and bundles.

    Returns:
        The rows, and of each bundle its folder, its trial and its row.
    """
    rows: list[Row] = []
    written: list[tuple[Path, Trial, Row]] = []
    share = bundles / len(names)
    for name in names:
        rig, begun, own = Rig(name, work), time.perf_counter(), 0
        trials = [trial for seed in range(seeds) for trial in trials_of(rig, seed, scale)]
        if most_of_each is not None and len(trials) > most_of_each:
            trials = [trials[i * len(trials) // most_of_each] for i in range(most_of_each)]
        chosen = set(random.Random(name).sample(range(len(trials)), min(len(trials), round(share))))
        for number, trial in enumerate(trials):
            folder = work / "bundles" / f"{len(rows):05d}" if number in chosen else None
            row = play(rig, trial, folder, twice=number % 8 == 0)
            rows.append(row)
            if folder is not None and folder.is_dir():
                written.append((folder, trial, row))
            own += row["fired"] and row["rejected"]
        rig.close()
        print(f"{name}: {own} of {len(trials)} in {time.perf_counter() - begun:.0f} s", flush=True)
    return rows, written


def size_of(folder: Path) -> int:
    """Return the bytes of a bundle."""
    return sum(path.stat().st_size for path in folder.iterdir())


def at_real_size(model: str, imgsz: int, batch: int, faults: int, work: Path) -> list[Row]:
    """Measure autopsies, a bundle and its writing with a network of real size.

    Returns:
        Rows of the table of bars.
    """
    from yolo_stable.trainer import incident_service as looking_into

    rig = Rig("detect", work / "real", warm=5, imgsz=imgsz, batch=batch, model=model)
    own, took = looking_into.write_bundle, []

    def timed(*args: Any, **kwargs: Any) -> Path:
        begun = time.perf_counter()
        written = own(*args, **kwargs)
        took.append(time.perf_counter() - begun)
        return written

    files, plain = rig.files, []
    looking_into.write_bundle = timed
    try:
        for number in range(faults):
            kind, group = (("divide", "forward"), ("root", "backward"))[number % 2]
            names = [n for n, m in rig.model.named_modules() if isinstance(m, torch.nn.Conv2d) and "dfl" not in n]
            fault = LayerFault(kind, names[(2 * number + 1) * len(names) // (2 * faults)], marked=True)
            trial = Trial("detect", group, kind, number, "data", model=fault, file=FileFault(files[number], "mark"))
            plain.append(play(rig, trial, work / "real" / f"bundle-{number}"))
    finally:
        looking_into.write_bundle = own
    state = rig.trainer.guard.state.live()
    numbers = {part: sum(t.nbytes for n, t in state.items() if n.startswith(part)) for part in ("model/", "optimizer/")}
    raw = rig.draw(1)
    own_bytes = sum(v.nbytes for v in raw.values() if isinstance(v, torch.Tensor))
    in_model = own_bytes + 3 * raw["img"].nbytes  # float32 as the network gets it
    sizes = [size_of(path) for path in sorted((work / "real").glob("bundle-*"))]
    asked = [row for row in plain if row["fired"] and row["rejected"]]
    words = f"{Path(model).stem}, {imgsz} px, batch {batch}"
    return [
        most(f"operation only, {words} (step times)", [r["operation steps"] for r in asked], 4.0),
        most(f"with the image, {words} (step times)", [r["steps"] for r in asked], 8.0),
        most(
            f"bundle / (weights + optimizer + batch), {words}",
            [n / (sum(numbers.values()) + in_model) for n in sizes],
            1.05,
        ),
        most(
            f"the same, of a batch of bytes and with a floating-point image in it, {words}",
            [n / (sum(numbers.values()) + own_bytes) for n in sizes],
            1.1,
        ),
        most(f"seconds to write a bundle, {words}", took, 1.0),
        {"what": f"seconds of a step, {words}", "of": len(rig.times), "median": rig.step_seconds},
    ]


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rigs", nargs="+", metavar="NAME", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--scale", type=float, default=0.5, help="share of the places at which each kind is put")
    parser.add_argument("--replays", type=int, default=90, help="bundles that are written and replayed")
    parser.add_argument(
        "--model", default="yolo11n.yaml", help="network of real size for the costs; 'none': not measured"
    )
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rigs = [name for name in options.rigs if name in QUICK] or options.rigs[:1]
        options.seeds, options.scale, options.replays, options.model = 1, 0.25, 6, "none"
    return options


def within(value: Any, folder: Path) -> Any:
    """Return a value of a row with its files as they are called within the folder, which is another one each time."""
    if isinstance(value, list):
        return [within(entry, folder) for entry in value]
    return value.replace(f"{folder}/", "") if isinstance(value, str) else value


def main() -> None:
    """Inject, replay, damage, and print the tables."""
    options = parsed()
    torch.set_num_threads(1)
    quiet()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the process that replays
    with tempfile.TemporaryDirectory() as folder, clocked():
        work = Path(folder)
        rows, written = injected(
            options.rigs, options.seeds, options.scale, 16 if options.quick else None, options.replays, work
        )
        table = bars(rows)
        replays = fresh(written, work)
        for what, members in (
            ("replay in a fresh process, bitwise", [r for r in replays if not (r["once"] or r["told by its labels"])]),
            ("labels that no loss can use are told again", [r for r in replays if r["told by its labels"]]),
            ("a fault that happened once is said so", [r for r in replays if r["once"]]),
        ):
            table.append(bar(what, sum(r["met"] for r in members), len(members), 1.0))
        from_data = [w for w in written if w[1].model is None]
        if from_data:
            said = by_command(from_data[0][0])
            table.append(bar("replay by the command line, bitwise", bool(said.get("bitwise")), 1, 1.0))
            (work / "hostile").mkdir()
            damaged = hostile(from_data[0][0], work / "hostile", slow=not options.quick)
            table.append(
                bar(
                    "hostile bundles: one line, nothing run",
                    sum(r["met"] for r in damaged),
                    len(damaged),
                    1.0,
                )
            )
        else:
            damaged = []
        if options.model != "none":
            table += at_real_size(options.model, options.imgsz, options.batch, 4, work)
    wrong = [{key: within(row[key], work) for key in ("group", "seed", *SHOWN) if key in row} for row in misses(rows)]
    for row in wrong:
        print(
            f"{row['rig']} | {row['kind']} | {', '.join(row['wrong'])} | {row['cause']} -> {row['said']} | {row['why']}"
        )
    unfired = Counter(f"{r['kind']} ({r['rig']})" for r in rows if not r["fired"])
    quietly = Counter(r["kind"] for r in rows if r["fired"] and not r["rejected"])
    print(f"not fired: {dict(unfired)}\nfired, and the guard found nothing wrong: {dict(quietly)}")
    for row in replays:
        if not row["met"]:
            print(f"replay: {row['rig']} | {row['kind']} | {row['error'] or row['why']}")
    for row in damaged:
        if not row["met"]:
            print(f"hostile: {row['damage']} | {row['outcome']} | {row['line'][:120]} | {row['events'][:2]}")
    show("each kind", by_kind(rows))
    show("truth (rows) and answer (columns)", confusion(rows))
    shown = ("what", "right", "of", "share", "median", "p90", "bar", "met")
    show("the bars", [{key: row.get(key, "") for key in shown} for row in table])
    kept = [
        *({"table": "bars", **row} for row in table),
        *({"table": "confusion", **row} for row in confusion(rows)),
        *({"table": "kinds", **row} for row in by_kind(rows)),
        *({"table": "misses", **row} for row in wrong),
        *({"table": "replays", **row} for row in replays),
        *(
            {"table": "hostile", **{k: row[k] for k in ("damage", "wanted", "outcome", "seconds", "met")}}
            for row in damaged
        ),
    ]
    settings = {k: v for k, v in vars(options).items() if k != "json"}
    settings |= {"not fired": dict(unfired), "not rejected": dict(quietly)}
    if options.json or not options.quick:  # a slice does not take the place of the kept results
        print(keep("autopsies", kept, settings, options.json))


if __name__ == "__main__":
    main()
