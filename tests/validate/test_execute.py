"""One case on a machine: what raises has failed, and what a device just does not have is skipped with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from yolo_stable.validate import BACKENDS, KernelFault, Status
from yolo_stable.validate import simulated as devices
from yolo_stable.validate.battery import find_case
from yolo_stable.validate.execute import Executor, lacks_type
from yolo_stable.validate.simulated import SimulatedDevice

REFUSES = KernelFault(
    name="refuses", kind="refuses", family="linear", operations=("convolution",), change="refuse", caught_by=("linear/",)
)  # fmt: skip
REFUSALS = [
    ("float16", "\"slow_conv2d_cpu\" not implemented for 'Half'"),
    ("bfloat16", "\"addmm_cuda\" not implemented for 'BFloat16'"),
    ("bfloat16", "BFloat16 is not supported on MPS"),
    ("bfloat16", "MPS BFloat16 is only supported on MacOS 14 or newer"),
    ("float16", "Required aspect fp16 is not supported on the device"),
    ("bfloat16", "mkldnn_matmul: mkldnn_matmul bf16 path needs the cpu support avx512bw, avx512vl and avx512dq"),
]


def refusing(monkeypatch: pytest.MonkeyPatch, message: str) -> SimulatedDevice:
    """Return a device whose convolutions raise."""

    def refuse(call: Any, fault: Any) -> Any:
        raise RuntimeError(message)

    monkeypatch.setitem(devices.CHANGES, "refuse", refuse)
    return SimulatedDevice(BACKENDS["cpu"], REFUSES)


@pytest.mark.parametrize(("precision", "message"), REFUSALS, ids=[message[:40] for _, message in REFUSALS])
def test_a_type_that_the_device_does_not_have_is_skipped_with_what_it_said(
    monkeypatch: pytest.MonkeyPatch, precision: str, message: str
) -> None:
    machine = refusing(monkeypatch, message)
    result = Executor(machine).run(find_case(f"linear/conv3x3-8-16/contiguous/{precision}"))
    assert machine.fired > 0
    assert (result.status, result.reason) == (Status.SKIP, f"no {precision} here: {message}")


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("strict", "\"slow_conv2d_cpu\" not implemented for 'Half'"),
        ("bfloat16", "\"slow_conv2d_cpu\" not implemented for 'Half'"),
        ("bfloat16", "MIOPEN_STATUS_INTERNAL_ERROR in a bfloat16 kernel"),
        ("float16", "no kernel image is available for execution on the device"),
    ],
)
def test_any_other_refusal_is_a_failure(monkeypatch: pytest.MonkeyPatch, precision: str, message: str) -> None:
    assert not lacks_type(precision, message)
    result = Executor(refusing(monkeypatch, message)).run(find_case(f"linear/conv3x3-8-16/contiguous/{precision}"))
    assert (result.status, result.reason) == (Status.FAIL, f"RuntimeError: {message}")


def test_a_kernel_of_attention_that_is_not_there_is_skipped() -> None:
    result = Executor(SimulatedDevice(BACKENDS["cpu"], None)).run(find_case("attention/sdpa-cudnn/contiguous/strict"))
    assert (result.status, result.reason) == (Status.SKIP, "no cudnn kernel for these inputs here")


def test_a_case_of_the_configured_precision_is_skipped_where_nothing_is_reduced() -> None:
    result = Executor(SimulatedDevice(BACKENDS["cpu"], None)).run(find_case("linear/bmm/contiguous/configured"))
    assert (result.status, result.reason) == (Status.SKIP, "nothing reduces float32 here: the same as strict")
