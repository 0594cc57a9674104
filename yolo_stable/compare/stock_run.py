"""Stock run: one run with Ultralytics' own trainer and the arguments of a guarded one.

``python -m yolo_stable.compare.stock_run`` takes the words of ``yolo-stable train``, with presets; it ignores guard settings.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .._shared.atomic_file import write_whole
from .._shared.text import one_line
from ..augment import named
from ..errors import YoloStableError
from ..train.call import TrainCall
from .outcome import DONE, STOCK_END


def main(words: Sequence[str]) -> int:
    """Train as the words say, and return the exit code."""
    try:
        folder = run(parse(words))
    except YoloStableError as error:
        print(f"yolo-stable: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    # A killed trainer has no such file.
    write_whole(folder / STOCK_END, (json.dumps({"schema": 1, "status": DONE}) + "\n").encode())
    return 0


def parse(words: Sequence[str]) -> TrainCall:
    """Parse the words, which may contain ``--preset NAME`` and ``--import MODULE``.

    Examples:
        >>> parse(["data.yaml", "model=yolo11n.yaml", "--preset", "guarded"]).preset
        'guarded'
    """
    words = list(words)
    options: dict[str, list[str]] = {"--preset": [], "--import": []}
    for option, values in options.items():
        while option in words:
            place = words.index(option)
            values.append(words[place + 1])
            del words[place : place + 2]
    preset = options["--preset"][-1] if options["--preset"] else None
    return TrainCall.parse(words[0], words[1:], preset, options["--import"])


def run(call: TrainCall) -> Path:
    """Train with Ultralytics' own trainer, and return the run's folder.

    Raises:
        InvalidCallError: The model cannot be used.
    """
    from ..incidents.own_layers import make_known
    from ..presets.run_plan import separate
    from ..train.checks import check_arguments
    from ..train.model import load_model

    settings = dict(call.settings)
    if isinstance(settings.get("augmentations"), str):
        settings["augmentations"] = named(settings["augmentations"])
    make_known(call.imports, "train: --import")
    model, name = load_model(call)
    _, arguments = separate({**settings, "preset": call.preset, "model": name})
    del arguments["model"]
    check_arguments({key: value for key, value in arguments.items() if key != "augmentations"})
    data = call.resolve_data(model.task)
    model.train(data=data, **arguments)
    return Path(model.trainer.save_dir)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
