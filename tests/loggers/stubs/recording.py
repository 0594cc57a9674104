"""Recording: what the stubs of the logger libraries were called for, a line of JSON for each call."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any


def record(call: str, /, **given: Any) -> None:
    """Append a call to the file that the environment names."""
    with open(os.environ["RECORDED"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"call": call, **given}, default=lambda value: getattr(value, "said", str(value))) + "\n")


class Recording:
    """Takes any call that Ultralytics makes, by its name."""

    library = ""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: record(f"{self.library}.{name}", args=[str(one)[:100] for one in args])
