from __future__ import annotations

import pytest

from tests.training_runs import one_torch_thread

one_thread = pytest.fixture(scope="package", autouse=True)(one_torch_thread)
