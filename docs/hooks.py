"""Hook of the site: files of the repository that are pages too, and links between them that work in both places.

A page in ``docs/`` and a file elsewhere link each other by relative paths, as one reads them in the repository. Here the files
in :data:`PAGES` become pages, :data:`FILES` are copied, and the links follow. What is not on the site stays as text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CHANGELOG.md": "project/changelog.md",
    "notebooks/README.md": "project/notebooks.md",
    "datasets/README.md": "project/datasets.md",
}
FILES = {"benchmarks/results/step.png": "images/step.png"}
ON_SITE = {**PAGES, **FILES}
LINK = re.compile(r"\[([^\[\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the files from outside of ``docs/``."""
    from mkdocs.structure.files import File

    for path, uri in ON_SITE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of a page into those of the site."""
    uri = page.file.src_uri
    source = next((path for path, of in PAGES.items() if of == uri), f"docs/{uri}")
    return rewritten(markdown, source, uri)


def on_page_content(html: str, **_: Any) -> str:
    """Turn what Sphinx calls roles in the docstrings, such as ``:func:`load_preset` ``, into plain code."""
    return re.sub(r":(?:class|func|meth|data|mod|attr):<code>~?(?:[\w.]*\.)?(\w+)</code>", r"<code>\1</code>", html)


def rewritten(markdown: str, source: str, uri: str) -> str:
    """Return a page with its links as they are on the site.

    Args:
        markdown: Text of the page.
        source: Where it lies in the repository.
        uri: Where it lies on the site.

    Examples:
        >>> rewritten("[why](docs/explanation/no-trace.md#x), [how](Makefile)", "README.md", "index.md")
        '[why](explanation/no-trace.md#x), how'
    """

    def follow(link: re.Match[str]) -> str:
        text, path, anchor = link.groups()
        target = os.path.normpath(os.path.join(os.path.dirname(source), path))
        place = ON_SITE.get(target, target.removeprefix("docs/") if target.startswith("docs/") else None)
        return f"[{text}]({os.path.relpath(place, os.path.dirname(uri) or '.')}{anchor or ''})" if place else text

    return LINK.sub(follow, markdown)
