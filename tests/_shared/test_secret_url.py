"""What a secret address shows of itself, and where it has gone to."""

from __future__ import annotations

import copy
import pickle

import pytest

from yolo_stable._shared.secret_url import SecretURL

SLACK = "https://hooks.slack.com/services/T0/B0/kEy"


@pytest.mark.parametrize(
    ("address", "shown", "host"),
    [
        (SLACK, "https://hooks.slack.com/***", "hooks.slack.com"),
        ("http://127.0.0.1:8080/kEy?token=kEy#kEy", "http://127.0.0.1:8080/***", "127.0.0.1"),
        ("https://Host", "https://Host/***", "host"),
        ("https://[::1]:8080/kEy", "https://[::1]:8080/***", "::1"),
    ],
)
def test_it_shows_its_host_alone(address: str, shown: str, host: str) -> None:
    url = SecretURL(address)
    assert (str(url), f"{url}", url.host) == (shown, shown, host)
    assert "kEy" not in repr([url])
    assert url.address == address


def test_what_was_written_is_known_again_and_is_no_address_to_post_to() -> None:
    url = SecretURL(SLACK)
    assert not url.masked
    assert SecretURL(str(url)).masked
    assert str(SecretURL(str(url))) == str(url)


def test_an_error_is_shown_without_it() -> None:
    url = SecretURL("https://host/a/kEy?token=kEy2")
    said = "no https://host/a/kEy?token=kEy2: /a/kEy, token=kEy2 on host"
    assert url.hidden(said) == "no ***: ***, *** on host"
    assert SecretURL("https://host/").hidden("and/or") == "and/or", "there is nothing to hide"


def test_a_copy_is_equal() -> None:
    url = SecretURL(SLACK)
    assert {copy.deepcopy(url), pickle.loads(pickle.dumps(url)), SecretURL(SLACK)} == {url}
    assert url != SecretURL("https://hooks.slack.com/other")
    assert url != SLACK
