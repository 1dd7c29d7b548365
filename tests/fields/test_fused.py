"""A layer and its ReLU in one operation, against two."""

import pytest
import torch
from torch import nn

from infonerf.fields import fused
from infonerf.system.devices import autocast_to

CPU = torch.device("cpu")


def case(n, n_in, n_out, dtype=torch.float32):
    generator = torch.Generator().manual_seed(n_in)
    layer = nn.Linear(n_in, n_out, dtype=dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-0.2, 0.2, generator=generator)
    x = torch.randn(n, n_in, generator=generator, dtype=dtype).requires_grad_()
    return layer, x, torch.randn(n, n_out, generator=generator, dtype=dtype)


def values_and_gradients(function, layer, x, d_y, dtype=None):
    with autocast_to(dtype, CPU):
        y = function(layer, x)
    return y, *torch.autograd.grad(y, (x, *layer.parameters()), d_y.to(y.dtype))


def plain(layer, x):
    return layer(x).clamp_min(0)


SIZES = [(1, 1, 1), (5, 63, 16), (40, 319, 33), (0, 8, 8)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_values_and_gradients(size, dtype, tolerance):
    ours, theirs = (values_and_gradients(function, *case(*size, dtype)) for function in (fused.linear_relu, plain))
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", SIZES[:3], ids=str)
def test_autocast(size):
    """Outputs in bfloat16 and gradients in float32, as near to those of float32 as bfloat16 is."""
    ours = values_and_gradients(fused.linear_relu, *case(*size), torch.bfloat16)
    exact = values_and_gradients(plain, *case(*size))
    assert [tensor.dtype for tensor in ours] == [torch.bfloat16, *[torch.float32] * 3]
    for one, other in zip(ours, exact, strict=True):
        assert float((one - other).detach().norm()) <= 0.01 * float(other.detach().norm())


def test_which_inputs_have_gradients():
    layer, x, d_y = case(7, 5, 4)
    layer.weight.requires_grad_(False)
    fused.linear_relu(layer, x.detach()).backward(d_y)
    assert layer.weight.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.where(plain(layer, x) > 0, d_y, 0).sum(0))


def cuda_linear_relu(layer, *inputs):
    """As on CUDA; the CPU has the operation, too."""
    dtype = layer.weight.dtype if not torch.is_autocast_enabled("cpu") else torch.get_autocast_dtype("cpu")
    parts = [tensor.to(dtype) for tensor in (layer.weight, layer.bias, *inputs)]
    return fused.LinearReLU.apply(fused.cuda_kernel, fused.CUDA_MULTIPLE, *parts)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_cuda_kernel(size, dtype, tolerance):
    """With columns of 0 where there are not a multiple of 8; the weight's gradient has no gaps, as fused Adam asks."""
    ours, theirs = (values_and_gradients(function, *case(*size, dtype)) for function in (cuda_linear_relu, plain))
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    assert ours[2].is_contiguous()


@pytest.mark.parametrize("function", [fused.linear_relu, cuda_linear_relu])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("constant", [[0], [1], [0, 2], []], ids=str)
def test_inputs_side_by_side(dtype, tolerance, constant, function):
    """Those that are constant get no gradient; all others that of the whole input's columns."""
    layer, x, d_y = case(11, 12, 5, dtype)
    parts = [part.clone() for part in x.detach().split([3, 5, 4], dim=1)]
    wanted = [part.requires_grad_() for i, part in enumerate(parts) if i not in constant]
    y = function(layer, *parts)
    whole = plain(layer, x)
    torch.testing.assert_close(y, whole, rtol=tolerance, atol=tolerance)
    ours = torch.autograd.grad(y, (*wanted, *layer.parameters()), d_y)
    d_x, *theirs = torch.autograd.grad(whole, (x, *layer.parameters()), d_y)
    columns = [part for i, part in enumerate(d_x.split([3, 5, 4], dim=1)) if i not in constant]
    torch.testing.assert_close(ours, (*columns, *theirs), rtol=tolerance, atol=tolerance)


def test_nothing_is_fused_where_there_is_no_kernel(monkeypatch):
    assert not fused.has_kernel(torch.float64)
    layer, x, _ = case(7, 5, 4)
    assert (type(fused.linear_relu(layer, x).grad_fn).__name__ == "LinearReLUBackward") == has_onednn()
    monkeypatch.setattr(fused, "has_kernel", lambda dtype: False)
    assert type(fused.linear_relu(layer, x).grad_fn).__name__ == "ReluBackward0"
    assert torch.equal(fused.linear_relu(layer, x), plain(layer, x))


def has_onednn():
    return torch.backends.mkldnn.is_available()
