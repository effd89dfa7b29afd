"""Long tests run on one kind of installation by default, and on the other one with `slow`."""

import pytest

EMBEDDED_FIRST = pytest.mark.parametrize(
    "kind", ["embedded", pytest.param("cluster", marks=pytest.mark.slow)]
)
CLUSTER_FIRST = pytest.mark.parametrize(
    "kind", ["cluster", pytest.param("embedded", marks=pytest.mark.slow)]
)
