"""Page frame: head, navigation, verdict and foot around the content of a verb's template."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .. import __version__

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Policy of a page without a script: the browser fetches nothing and runs nothing, whatever a name in it tries."""
_HERE = Path(__file__).parent


def render(
    templates: Path,
    name: str,
    *,
    verb: str,
    subject: str,
    verdict: str,
    tone: str,
    policy: str = POLICY,
    filters: Mapping[str, Callable[[Any], Any]] | None = None,
    **content: Any,
) -> str:
    """Return a page.

    Args:
        templates: Folder of the verb's template and its ``page.css``.
        name: Of the template, which extends ``base.html.j2``.
        verb: The verb that makes the page, such as ``check``.
        subject: The topic of the page.
        verdict: The first sentence of the page.
        tone: Of the verdict: ``good``, ``mind`` or ``bad``.
        policy: What the browser may load and run.
        filters: Further filters of the template.
        **content: Further values of the template.
    """
    pages, made = _pages(templates), time.strftime("%Y-%m-%d %H:%M")
    pages.filters.update(filters or {})
    return pages.get_template(name).render(
        verb=verb, subject=subject, verdict=verdict, tone=tone, policy=policy, made=made, version=__version__, **content
    )  # fmt: skip


def breaks(words: Any) -> Any:
    """Return text as HTML: names may break after a comma or a slash, numbers never.

    Examples:
        >>> str(breaks("stock,lr0=0.01 of <b>/c: 1,200 steps"))
        'stock,<wbr>lr0=0.01 of &lt;b&gt;/<wbr>c: 1,200 steps'
        >>> str(breaks("rms 5.0e-06"))
        'rms <span class="n">5.0e-06</span>'
    """
    from markupsafe import Markup, escape

    html = re.sub(r"(?:(?<!\d)[,/]|[,/](?!\d))(?=\S)", r"\g<0><wbr>", str(escape(words)))
    return Markup(re.sub(r"\d[\d.]*e-\d+", r'<span class="n">\g<0></span>', html))


@functools.cache
def _pages(templates: Path) -> Any:
    """Return the environment of a folder, which compiles each template once."""
    import jinja2

    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader([templates, _HERE]), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    pages.filters["breaks"] = breaks
    return pages
