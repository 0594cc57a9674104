"""The judgement of an error by limits."""

from __future__ import annotations

import pytest

from yolo_stable.validate import Errors, Gate, Status

NAN, INF = float("nan"), float("inf")
GATE = Gate(rms=5e-6, rms_fail=5e-5, q=64, reason="an example", source="none")


def errors(rms: float = 0.0, q: float | None = 0.0, maxrel: float = 0.0, nf: int = 0) -> Errors:
    return Errors(rms=rms, q=q, maxrel=maxrel, nf=nf)


@pytest.mark.parametrize(
    ("found", "status", "why"),
    [
        (errors(rms=5e-6, q=64.0), Status.PASS, ""),
        (errors(rms=6e-6), Status.WARN, "rms 6.0e-06 is over 5.0e-06"),
        (errors(rms=6e-5), Status.FAIL, "rms 6.0e-05 is over 5.0e-05"),
        (errors(rms=6e-6, q=65.0), Status.FAIL, "rms 6.0e-06 is over 5.0e-06, q 6.5e+01 is over 6.4e+01"),
        (errors(q=None), Status.PASS, ""),
        (errors(rms=NAN), Status.FAIL, "rms nan is over 5.0e-05"),
        (errors(q=INF), Status.FAIL, "q inf is over 6.4e+01"),
        (errors(maxrel=1.0), Status.PASS, ""),
        (errors(nf=2), Status.FAIL, "2 elements are NaN or infinite where the reference is not, or the reverse"),
    ],
)
def test_limits_with_and_without_a_warning(found: Errors, status: Status, why: str) -> None:
    assert GATE.judge(found) == (status, why)


def test_exact_means_every_element() -> None:
    gate = Gate(exact=True, reason="an example", source="none")
    assert gate.judge(errors())[0] is Status.PASS
    assert gate.judge(errors(maxrel=1e-30))[0] is Status.FAIL
    assert gate.limits() == {"exact": True, "reason": "an example", "source": "none"}
