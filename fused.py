"""A layer and its ReLU in one operation, where PyTorch has one: on CPUs with oneDNN.

Between two matrix products of 256 channels in bfloat16, a pass over memory for the ReLU and another for the bias cost
as much as the product itself; oneDNN applies both to what is still in the processor's registers.
"""

import torch
from torch import Tensor, nn


def linear_relu(layer: nn.Linear, x: Tensor) -> Tensor:
    """n i -> n o: relu(layer(x)), differentiable, in the dtype of autocast where that is on."""
    dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    if x.device.type != "cpu" or not has_kernel(dtype):
        return layer(x).relu_()
    return LinearReLU.apply(x.to(dtype), layer.weight.to(dtype), layer.bias.to(dtype))


def has_kernel(dtype: torch.dtype) -> bool:
    """Whether this CPU's PyTorch has the operation for matrices of `dtype`."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class LinearReLU(torch.autograd.Function):
    """x n i, weight o i, bias o, all of one dtype -> n o."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        # What torch.compile makes of a layer and its ReLU; the tests hold it to the plain one.
        y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu", [], "")
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_y: Tensor):
        x, weight, y = ctx.saved_tensors
        d_z = torch.ops.aten.threshold_backward(d_y, y, 0)
        d_x = d_z @ weight if ctx.needs_input_grad[0] else None
        d_weight = d_z.t() @ x if ctx.needs_input_grad[1] else None
        return d_x, d_weight, d_z.sum(0) if ctx.needs_input_grad[2] else None
