from __future__ import annotations

import logging

import pytest

torch = pytest.importorskip("torch")

from training.descriptor.config import Precision  # noqa: E402
from training.descriptor.trainer import usable_precision  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("capability", "device", "asked", "expected"),
    [
        ("AVX2", "cpu", "bf16", "fp32"),
        ("DEFAULT", "cpu", "fp16", "fp32"),
        ("AVX512", "cpu", "bf16", "bf16"),
        ("AVX2", "cpu", "fp32", "fp32"),
        ("AVX2", "cuda", "bf16", "bf16"),
    ],
)
def test_half_precision_is_used_where_the_hardware_has_it(
    capability: str,
    device: str,
    asked: Precision,
    expected: Precision,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with caplog.at_level(logging.WARNING):
        assert usable_precision(asked, torch.device(device)) == expected
    assert bool(caplog.records) == (asked != expected)
