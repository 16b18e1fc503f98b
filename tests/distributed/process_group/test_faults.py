from __future__ import annotations

import json

import pytest

from sixfold.core import errors
from sixfold.distributed.process_group.faults import Fault, describe, explain_status


def across(error: BaseException, restarts: int = 0) -> errors.SixfoldError:
    """The error as it arrives in the launcher."""
    try:
        raise error
    except BaseException as raised:
        data = json.loads(json.dumps(describe(raised, rank=3, host="node7").to_plain()))
    return Fault.from_plain(data).exception(restarts)


def test_a_user_error_keeps_its_problems() -> None:
    arrived = across(errors.UserError(["one", "two"]))
    assert isinstance(arrived, errors.UserError)
    assert arrived.problems == ("one", "two")


def test_a_run_error_keeps_its_class_and_message() -> None:
    arrived = across(errors.NonFiniteLossError("step 3: loss is nan\nlr 1e9"))
    assert type(arrived) is errors.NonFiniteLossError
    assert str(arrived) == "step 3: loss is nan\nlr 1e9"


def test_only_classes_of_our_own_are_made_again() -> None:
    class PretendError(errors.RunError):
        pass

    assert type(across(PretendError("x"))) is errors.RunError
    forged = Fault(kind="run", rank=0, host="", cause="x", error="dataclass")
    assert type(forged.exception()) is errors.RunError
    needs_more = Fault(kind="run", rank=0, host="", cause="x", error="RankFailure")
    assert type(needs_more.exception()) is errors.RunError


def test_anything_else_is_told_with_its_traceback() -> None:
    arrived = across(ZeroDivisionError("a\nb"), restarts=2)
    assert isinstance(arrived, errors.RankRaisedError)
    assert arrived.failure.cause == "ZeroDivisionError: a"
    assert arrived.failure.log_tail[-2:] == ("ZeroDivisionError: a", "b")
    assert any("test_faults.py" in line for line in arrived.failure.log_tail)
    assert "rank 3 on node7 died (after 2 restarts)" in str(arrived)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_exceptions_that_are_no_errors_are_told_too(error: BaseException) -> None:
    arrived = across(error)
    assert isinstance(arrived, errors.RankRaisedError)
    assert arrived.failure.cause.startswith(type(error).__name__)


def test_the_loss_of_a_peer_is_curable_and_an_exception_is_not() -> None:
    assert describe(errors.PeerLostError(2), rank=0, host="").retryable
    assert not describe(ValueError(), rank=0, host="").retryable
    assert not describe(errors.UserError(""), rank=0, host="").retryable


def test_unknown_fields_of_a_newer_version_are_ignored() -> None:
    data = Fault(kind="lost", rank=0, host="h", cause="c").to_plain() | {"later": 1}
    assert Fault.from_plain(data).cause == "c"


def test_unknown_signals_have_numbers() -> None:
    assert explain_status(-200) == "killed by signal 200"
