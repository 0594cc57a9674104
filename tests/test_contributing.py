"""What newcomers are told to type works: make targets, test files, benchmarks and tools that are named are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_the_guide_is_one_page_and_names_what_is_there() -> None:
    assert len(GUIDE.splitlines()) <= 60
    assert set(re.findall(r"^    make ([a-z-]+)", GUIDE, re.MULTILINE)) <= TARGETS
    for path in re.findall(r"(?:tests|benchmarks)/[\w/]+\.py", GUIDE):
        assert (ROOT / path).is_file(), path
    for module in re.findall(r"-m (benchmarks\.\w+)", GUIDE):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


def test_the_workflow_calls_make_over_the_versions_that_are_promised() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))["jobs"]
    called = {step["run"] for job in jobs.values() for step in job["steps"] if "run" in step}
    assert called == {"make test", "make demo"}
    promised = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert promised
    first, beyond = map(int, promised.groups())
    assert jobs["test"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(first, beyond)]


def test_hooks_are_the_tools_of_make_lint() -> None:
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    for hook in HOOKS:
        tool = Path(hook["entry"].split()[0]).name
        assert f"$(BIN)/{tool}" in lint, f"{hook['id']} runs {tool}, which make lint does not"


@pytest.mark.parametrize("form", FORMS, ids=[form.stem for form in FORMS])
def test_a_form_asks_for_something_that_must_be_there(form: Path) -> None:
    asked = yaml.safe_load(form.read_text(encoding="utf-8"))
    if form.stem != "config":
        assert {"name", "description", "body"} <= set(asked)
        assert any(field.get("validations", {}).get("required") for field in asked["body"])
