"""Attention from products is the attention of torch."""

import pytest
import torch
from torch.nn import functional as F

from lora_core.inference.attention import Unfused


@pytest.mark.parametrize("length", [1, 15, 16, 37])
def test_rows_after_a_text_change_nothing(length: int) -> None:
    torch.manual_seed(0)
    attend = Unfused()
    for rows in (48, length):  # a buffer that is larger than needed the second time
        q, k, v = torch.randn(3, 4, rows, 8)
        expected = F.scaled_dot_product_attention(q[:, :length], k[:, :length], v[:, :length])
        torch.testing.assert_close(attend(q, k, v, length), expected, rtol=1e-5, atol=1e-6)
