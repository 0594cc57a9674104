"""The verdict in one sentence, and the rows of the table."""

from __future__ import annotations

from validations import CONV, check, failing, validation

from yolo_stable.validate import BACKENDS, Errors, Status
from yolo_stable.validate.healing import Healing
from yolo_stable.validate.verdict import rows, verdict

WHAT = "Radeon of 2031 (cuda:0)"
OTHER = "linear/matmul-nt/contiguous/strict"


def test_a_pass_is_one_sentence_with_what_it_rests_on() -> None:
    skipped = check("attention/sdpa-flash/contiguous/strict", status=Status.SKIP)
    warned = check(OTHER, status=Status.WARN, reason="out: q 9.0e+01 is over 6.4e+01")
    assert verdict(validation()) == f"PASS: {WHAT} computes a YOLO training step correctly: 1 check passed, 41 s."
    assert verdict(validation(check(), warned, skipped)) == (
        f"PASS: {WHAT} computes a YOLO training step correctly: 2 checks passed, 1 with a warning, 41 s."
    )


def test_a_failure_names_the_first_check_and_what_heals_it() -> None:
    setting = BACKENDS["rocm"].heals[2]
    result = validation(failing(), check(OTHER), inject="zero-tail")
    healing = Healing(chosen=(setting,), heals={CONV: setting}, failing=1)
    assert verdict(result, healing) == (
        f"FAIL: {WHAT}, with the fault zero-tail, gets 1 of 2 checks wrong, first {CONV}: out: rms 1.0e-02 is over 5.0e-05."
        " 1 of 1 failing checks pass with export MIOPEN_DEBUG_CONV_WINOGRAD=0."
    )


def test_the_table_has_a_row_for_what_must_be_read_and_one_for_each_family_of_the_rest() -> None:
    result = validation(
        check(),
        check(OTHER, errors=Errors(rms=3e-7, q=None, maxrel=1e-6, nf=0)),
        check("exact/topk/contiguous/exact", status=Status.WARN, reason="odd", errors=None, precision_class=None),
        failing("norm/bn/view/strict", heal="export A=1"),
        check("attention/sdpa/contiguous/strict", status=Status.SKIP, reason="no such kernel here", errors=None),
    )
    found = [(row.status.value, row.name, row.rms, row.q, row.text, row.heal) for row in rows(result)]
    assert found == [
        ("fail", "norm/bn/view/strict", "1.0e-02", "1.0e+06", "out: rms 1.0e-02 is over 5.0e-05", "export A=1"),
        ("warn", "exact/topk/contiguous/exact", "", "", "odd", ""),
        ("skip", "attention: 1 check", "", "", "no such kernel here", ""),
        ("pass", "linear: 2 checks", "3.0e-07", "2.0e+00", "", ""),
    ]


def test_a_device_on_which_everything_fails_does_not_fill_the_screen() -> None:
    result = validation(*(failing(f"linear/conv{i}/contiguous/strict") for i in range(50)))
    found = rows(result, most=40)
    assert len(found) == 41
    assert found[-1].text == "10 more fail or warn; --json and --html have them all"
