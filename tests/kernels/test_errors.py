"""Arguments that are refused, with a sentence that says what to do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from otgan import kernels

X, Y, H = torch.zeros(4, 2), torch.eye(2), torch.zeros(2)
OPERATIONS = {
    "assign": kernels.assign,
    "top_k": lambda x, y, h: kernels.top_k(x, y, h, 1),
    "soft_moments": lambda x, y, h: kernels.soft_moments(x, y, h, 0.1),
    "soft_counts": lambda x, y, h: kernels.soft_counts(x, y, h, 0.1),
    "slack": kernels.slack,
}


def with_entry(tensor, value):
    out = tensor.clone()
    out.view(-1)[0] = value
    return out


BAD = {
    "nan in h": (X, Y, with_entry(H, math.nan), ValueError, "NaN or \\+inf"),
    "inf in h": (X, Y, with_entry(H, math.inf), ValueError, "NaN or \\+inf"),
    "all -inf": (X, Y, H - math.inf, ValueError, "keep one finite height"),
    "nan in x": (with_entry(X, math.nan), Y, H, ValueError, "x holds NaN"),
    "inf in x": (with_entry(X, math.inf), Y, H, ValueError, "x holds NaN or infinite"),
    "-inf in y": (X, with_entry(Y, -math.inf), H, ValueError, "y holds NaN or infinite"),
    "no target": (X, Y[:0], H[:0], ValueError, "at least one target"),
    "other dimension": (torch.zeros(4, 3), Y, H, ValueError, "dimension 3 but y has dimension 2"),
    "other length": (X, Y, torch.zeros(3), ValueError, "one number per target, 2; got 3"),
    "flat x": (torch.zeros(4), Y, H, ValueError, "\\[:, None\\]"),
    "other dtype": (X.double(), Y, H, TypeError, "Convert one"),
    "integers": (X, Y.long(), H, TypeError, "to\\(torch.float32\\)"),
    "half": (X.half(), Y.half(), H.half(), TypeError, "half precision"),
    "bfloat16": (X.bfloat16(), Y.bfloat16(), H.bfloat16(), TypeError, "half precision"),
    "array": (np.zeros((4, 2)), Y, H, TypeError, "torch.as_tensor"),
    "sparse": (X.to_sparse(), Y, H, TypeError, "to_dense"),
    "other device": (X.to("meta"), Y, H, ValueError, "CPU or CUDA"),
    "overflow": (X + 1e30, Y * 1e30, H, ValueError, "overflow"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_refused(operation, case):
    x, y, h, error, sentence = BAD[case]
    with pytest.raises(error, match=sentence):
        OPERATIONS[operation](x, y, h)


def test_no_sample():
    x = X[:0]
    assert kernels.assign(x, Y, H).index.shape == (0,) and kernels.assign(x, Y, H).index.dtype == torch.int64
    assert kernels.top_k(x, Y, H, 2).value.shape == (0, 2)
    assert kernels.soft_moments(x, Y, H, 1.0).mean.shape == (0, 2)
    assert kernels.slack(x, Y, H).tolist() == [math.inf] * 2
    with pytest.raises(ValueError, match="at least one sample"):
        kernels.soft_counts(x, Y, H, 1.0)


@pytest.mark.parametrize(
    ("eps", "error"),
    [(0.0, ValueError), (-1, ValueError), (math.nan, ValueError), (math.inf, ValueError), ("a", TypeError)],
)
def test_eps(eps, error):
    for operation in (kernels.soft_moments, kernels.soft_counts):
        with pytest.raises(error, match="eps must be"):
            operation(X, Y, H, eps)


@pytest.mark.parametrize(("k", "error"), [(0, ValueError), (3, ValueError), (1.0, TypeError), (True, TypeError)])
def test_k(k, error):
    with pytest.raises(error, match="k must be"):
        kernels.top_k(X, Y, H, k)
    with pytest.raises(ValueError, match="1 of the 2 targets have h = -inf"):
        kernels.top_k(X, Y, with_entry(H, -math.inf), 2)


@pytest.mark.parametrize(
    "weights", [torch.tensor([-1.0, 2.0]), torch.tensor([math.nan, 1.0]), torch.zeros(2), torch.ones(3)]
)
def test_weights(weights):
    for operation in (kernels.soft_moments, kernels.soft_counts):
        with pytest.raises(ValueError):
            operation(X, Y, H, 0.1, weights)


def test_inputs_are_detached_and_untouched():
    x, y, h = (t.clone().requires_grad_() for t in (X, Y + 50, H + 50))
    before = [t.detach().clone() for t in (x, y, h)]
    for operation in OPERATIONS.values():
        result = operation(x, y, h)
        for part in result if isinstance(result, tuple) else (result,):
            assert not part.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before, (x, y, h), strict=True))


def test_autocast_and_matmul_precision_do_not_matter():
    g = torch.Generator().manual_seed(0)
    x, y, h = torch.randn(50, 64, generator=g), torch.randn(70, 64, generator=g), torch.randn(70, generator=g)
    expected = kernels.soft_moments(x, y, h, 0.5)
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = kernels.soft_moments(x, y, h, 0.5)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(precision)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
