"""On which kind of installation a test that takes long runs first; on the other one at length."""

import pytest

EMBEDDED_FIRST = pytest.mark.parametrize(
    "kind", ["embedded", pytest.param("cluster", marks=pytest.mark.slow)]
)
CLUSTER_FIRST = pytest.mark.parametrize(
    "kind", ["cluster", pytest.param("embedded", marks=pytest.mark.slow)]
)
