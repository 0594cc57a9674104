"""Images: what `make lint` cannot see of the Dockerfiles. hadolint looks at their form there; nothing is built in the tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docker"
FILES = sorted(FOLDER.glob("Dockerfile.*"))


def instructions(file: Path) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their words, each on one line and without comments."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert [file.suffix for file in FILES] == [".cpu", ".cuda", ".rocm"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix)
def test_it_runs_as_somebody_who_is_not_root_and_was_tried_so(file: Path) -> None:
    words = instructions(file)
    (user,) = (rest for word, rest in words if word == "USER")
    assert int(user) > 0
    beyond = words[words.index(("USER", user)) :]
    assert any(word == "RUN" and "yolo-stable --help" in rest for word, rest in beyond), "smoke test"
    assert ("ENTRYPOINT", '["yolo-stable"]') in beyond


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix)
def test_it_keeps_no_cache_and_no_copy_of_the_checkout(file: Path) -> None:
    words = instructions(file)
    installs = [rest for word, rest in words if word == "RUN" and "pip install" in rest]
    assert installs
    assert all("--no-cache-dir" in rest for rest in installs)
    assert any("--mount=type=bind,target=/checkout" in rest and "/checkout[demo]" in rest for rest in installs)
    assert not {word for word, _ in words} & {"COPY", "ADD"}
    assert all("rm -rf /var/lib/apt/lists" in rest for word, rest in words if word == "RUN" and "apt-get" in rest)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.suffix)
def test_its_base_is_named_by_a_tag_and_its_comment_by_its_own_name(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    (default,) = re.findall(r"^ARG (?:BASE|PYTHON)=(\S+)$", text, re.MULTILINE)
    (base,) = (rest for word, rest in instructions(file) if word == "FROM")
    tag = re.sub(r"\$\{\w+\}", default, base).partition(":")[2]
    assert tag not in {"", "latest"}
    assert f"-f docker/{file.name} -t yolo-stable:{file.suffix[1:]} ." in text
