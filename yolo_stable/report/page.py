"""Report page: one run or several in one file, nothing from the network, all text escaped.

Its policy allows its two scripts by their hashes, and no address: the browser fetches nothing, whatever a library or a name
tries.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .._shared.atomic_file import reason, write_whole
from .._shared.numbers import text
from ..errors import InvalidCallError
from ..pages import render
from .charts import anchor_of, page_data
from .figures import figures
from .incident import WORDS, ReportIncident
from .pictures import Pictures
from .run import Run, read_run
from .settings_table import changed, defaults_problem, differing, shown
from .timeline import KINDS
from .verdict import RunVerdict, verdict, verdict_of_many

_HERE = Path(__file__).parent
OPEN = 3
"""Incidents unfolded at first."""
LAYERS = 12
FILES = (
    "results.csv",
    "guard.jsonl",
    "summary.json",
    "args.yaml",
    "quarantine.txt",
    "weights/best.pt",
    "weights/last.pt",
    "weights/last_good.pt",
    "results.png",
    "confusion_matrix.png",
)
"""Files of a run that a page links to if they exist."""


def write_report(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    title: str | None = None,
    conclusion: str | None = None,
    verb: str = "report",
) -> Path:
    """Read runs and write their page.

    Args:
        runs: Folders of runs.
        out: The page; None: ``report.html`` in the run's folder, or for several runs in the working folder.
        title: Of the page; None: the names of the runs.
        conclusion: Its first sentence; None: the page's own verdict.
        verb: The command that makes the page.

    Returns:
        The path of the page.

    Raises:
        InvalidCallError: No run, a folder without a run, or a page that cannot be written.
    """
    if not runs:
        raise InvalidCallError("report: no run given. Give the folder of a run, such as runs/detect/train.")
    found = named_apart([read_run(Path(run)) for run in runs])
    out = Path(out) if out is not None else found[0].folder / "report.html" if len(found) == 1 else Path("report.html")
    if out.is_dir():
        out = out / "report.html"
    try:
        write_whole(out, page_of(found, out, title, conclusion, verb).encode("utf-8", errors="replace"))
    except OSError as error:
        raise InvalidCallError(
            f"report: {out} cannot be written: {reason(error)}. Give another place with --out."
        ) from error
    return out


def named_apart(runs: Sequence[Run]) -> list[Run]:
    """Put the folder in front of names that several runs have, and a number behind those still alike."""
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = text(f"{run.folder.resolve().parent.name}/{run.folder.resolve().name}", 120)
    for i, run in enumerate(runs):
        if any(other.name == run.name for other in runs[:i]):
            run.name = f"{run.name} ({i + 1})"
    return list(runs)


def page_of(
    runs: Sequence[Run], out: Path, title: str | None = None, conclusion: str | None = None, verb: str = "report"
) -> str:
    """Return the page of runs; arguments as for :func:`write_report`, with links relative to ``out``."""
    from markupsafe import Markup

    data, script = page_data(runs), _own("page.js")
    pictures = Pictures()
    shown_runs = [_shown(i, run, out, pictures) for i, run in enumerate(runs)]
    first: RunVerdict = verdict(runs[0]) if len(runs) == 1 else verdict_of_many(runs)
    first = first if conclusion is None else RunVerdict(first.tone, conclusion)
    return render(
        _HERE,
        "page.html.j2",
        verb=verb,
        subject=title or ", ".join(run.name for run in runs),
        verdict=first.text,
        tone=first.tone,
        next=first.next,
        runs=shown_runs,
        many=len(runs) > 1,
        charts=data["charts"],
        marks=len(data["marks"]),
        stepped=any(line["of"] == "step" for chart in data["charts"] for line in chart["lines"]),
        differing=differing(runs) if len(runs) > 1 else [],
        omitted=pictures.omitted,
        kinds=[kind for kind in KINDS if any(run.history.timeline.amounts.get(kind) for run in runs)],
        defaults_problem=defaults_problem(),
        policy=f"default-src 'none'; script-src 'sha256-{_plotly()[1]}' 'sha256-{_hash(script)}'; style-src 'unsafe-inline';"
        " img-src data: blob:; base-uri 'none'; form-action 'none'",
        plotly=Markup(_plotly()[0]),
        script=Markup(script),
        data=Markup(script_json(data)),
    )


def script_json(value: Any) -> str:
    r"""Return JSON that is safe between script tags: it neither ends them nor opens a comment.

    Examples:
        >>> script_json("</script><!--\u2028")
        '"\\u003c/script\\u003e\\u003c!--\\u2028"'
    """
    words = json.dumps(value, allow_nan=False, separators=(",", ":"))  # escapes all but ASCII
    return words.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _shown(i: int, run: Run, out: Path, pictures: Pictures) -> dict[str, Any]:
    """Return the template's values of a run."""
    rows, same = changed(run) if run.settings and not defaults_problem() else ([], 0)
    layers = sorted(run.history.layers.items(), key=lambda item: -item[1].total / item[1].lines)[:LAYERS]
    known = {found.number for found in run.incidents}
    return {
        "number": i + 1,
        "name": run.name,
        "folder": str(run.folder),
        "verdict": verdict(run),
        "figures": figures(run),
        "notices": run.notices,
        "timeline": [
            {
                "kind": entry.kind,
                "where": entry.where,
                "words": entry.words,
                "anchor": anchor_of(i, entry.about) if entry.about in known else "",
            }
            for entry in run.history.timeline.entries
        ],
        "incidents": [_incident(i, n, run, found, out, pictures) for n, found in enumerate(run.incidents)],
        "incidents_in_all": run.history.tally.incidents,
        "changed": rows,
        "unchanged": same,
        "has_settings": bool(run.settings),
        "guard": [(name, shown(value)) for name, value in run.guard.items()],
        "preset": run.preset,
        "environment": run.environment,
        "left_out": run.history.left_out,
        "layers": [
            (
                text(name),
                f"{100 * layer.total / layer.lines:.1f} %",
                f"{100 * layer.most:.1f} %",
                f"{layer.most_step:,}",
            )
            for name, layer in layers
        ],
        "files": [(name, _link(run.folder / name, out)) for name in FILES if (run.folder / name).is_file()],
    }


def _incident(i: int, n: int, run: Run, found: ReportIncident, out: Path, pictures: Pictures) -> dict[str, Any]:
    folder = run.folder / "incidents" / found.folder if found.folder else None
    there = folder is not None and folder.is_dir()
    links = []
    if folder is not None and there:
        links = [
            (name, _link(folder / name, out)) for name in ("incident.json", "preview.jpg") if (folder / name).is_file()
        ]
    return {
        "anchor": anchor_of(i, found.number),
        "number": found.number,
        "kind": WORDS[found.kind],
        "headline": found.headline,
        "place": found.place,
        "rows": found.rows(),
        "next": found.next,
        "guilty": found.guilty,
        "files": [path for path in found.files if path not in found.guilty],
        "more_files": found.files_in_all - len(found.files),
        "folder": f"incidents/{found.folder}" if found.folder else "",
        "gone": bool(found.folder) and not there,
        "links": links,
        "picture": pictures.take(folder / "preview.jpg") if folder is not None else "",
        "open": n < OPEN,
        "in_curves": found.step is not None or bool(found.epoch),
    }


def _link(path: Path, out: Path) -> str:
    """Return the relative address of a file, with a leading dot: a name may look like a scheme."""
    try:
        way = os.path.relpath(path.resolve(), out.resolve().parent)
    except ValueError:  # on another drive
        return path.resolve().as_uri()
    return "./" + quote(os.fsencode(way.replace(os.sep, "/")))


@functools.cache
def _plotly() -> tuple[str, str]:
    """Return the script of the package plotly, and its hash."""
    content = pkgutil.get_data("plotly", "package_data/plotly.min.js")
    assert content is not None, "plotly has no plotly.min.js"
    script = content.decode("utf-8").replace("\r\n", "\n")  # as a browser reads it
    assert "</script" not in script.lower()
    return script, _hash(script)


@functools.cache
def _own(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
