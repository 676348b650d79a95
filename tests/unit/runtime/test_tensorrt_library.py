"""Which flavour of TensorRT is taken, and what it says when it fails, with modules that only look like it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from engine.errors import BackendUnavailable, EngineError
from engine.runtime.tensorrt_library import ErrorLog, TensorRt, import_tensorrt

CAPABILITIES = SimpleNamespace(SM89=1, SM120=2, SM75=3, NONE=0)


def module(version: str) -> Any:
    return SimpleNamespace(__version__=version, ComputeCapability=CAPABILITIES)


def test_the_flavour_for_data_centres_is_taken_first_unless_another_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", module("11"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module("1.7"))
    assert (import_tensorrt().flavour, import_tensorrt().version) == ("tensorrt", "11")
    assert import_tensorrt("tensorrt_rtx").version == "1.7"
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert import_tensorrt().flavour == "tensorrt_rtx"


def test_without_tensorrt_the_packages_to_install_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendUnavailable, match=r"vsc-engine\[gpu\].* or .*vsc-engine\[tensorrt-rtx\]"):
        import_tensorrt()
    with pytest.raises(BackendUnavailable, match=r"tensorrt: .*import of tensorrt halted") as refusal:
        import_tensorrt("tensorrt")
    assert "tensorrt-rtx" not in str(refusal.value)


def test_targets_are_listed_in_order_and_only_where_there_is_a_choice() -> None:
    assert TensorRt("tensorrt_rtx", module("1.7")).compute_capabilities == ("7.5", "8.9", "12.0")
    assert TensorRt("tensorrt", module("11")).compute_capabilities == ()


class Logger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)


def test_the_last_error_is_one_line_and_warnings_are_none() -> None:
    log = ErrorLog(SimpleNamespace(ILogger=Logger))
    assert log.last == "no reason given"
    log.logger.log(Logger.Severity.ERROR, "first\n  second")
    log.logger.log(Logger.Severity.WARNING, "beware")
    assert log.last == "first second"


@pytest.mark.parametrize("fails", [lambda _: None, lambda: 1])
def test_a_constructor_that_fails_says_what_tensorrt_said(fails: Any) -> None:
    log = ErrorLog(SimpleNamespace(ILogger=Logger))
    assert log.call(lambda logger: logger is log.logger, doing="start") is True
    log.logger.log(Logger.Severity.INTERNAL_ERROR, "no driver")
    with pytest.raises(EngineError, match="TensorRT does not start: no driver"):
        log.call(fails, doing="start")
