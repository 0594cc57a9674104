"""The line of JSON that each kind of receiver gets."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from yolo_stable.alerts.alert import LONGEST, Alert

HALT: dict[str, Any] = {"event": "halt", "run": "/runs/a", "epoch": 2, "step": 7, "counts": {"applied": 7}}


def of(text: str, **changes: Any) -> Alert:
    return Alert(**{**HALT, "text": text, **changes})


@pytest.mark.parametrize("host", ["hooks.slack.com", "slack.com", "hooks.slack-gov.com"])
def test_slack_reads_text_in_which_nothing_is_a_link_or_a_mention(host: str) -> None:
    assert json.loads(of("<!channel> a & b").line(host)) == {"text": "&lt;!channel&gt; a &amp; b"}


@pytest.mark.parametrize("host", ["discord.com", "canary.discord.com", "discordapp.com"])
def test_discord_reads_content_that_calls_nobody(host: str) -> None:
    assert json.loads(of("@everyone").line(host)) == {"content": "@everyone", "allowed_mentions": {"parse": []}}


@pytest.mark.parametrize("host", ["127.0.0.1", "notslack.com", "slack.com.example.org", "discord.example.org"])
def test_any_other_gets_all_of_it(host: str) -> None:
    assert json.loads(of("Halted.").line(host)) == {"schema": 1, "text": "Halted.", **HALT}
    assert json.loads(of("Over.", event="end", status="done").line(host))["status"] == "done"


@pytest.mark.parametrize("host", ["hooks.slack.com", "discord.com", "other"])
def test_it_is_one_line_of_strict_json_and_not_too_long(host: str) -> None:
    line = of("two\nlines " + "x" * 5000, counts={"odd": math.nan}).line(host)
    assert "\n" not in line
    said = json.loads(line, parse_constant=pytest.fail)
    text = said.get("text", said.get("content"))
    assert (len(text), text[-3:]) == (LONGEST, "...")
