"""A layer and its ReLU in one operation, where PyTorch has one: on CPUs with oneDNN.

Between two matrix products of 256 channels in bfloat16, a pass over memory for the ReLU and another for the bias cost
as much as the product itself; oneDNN applies both to what is still in the processor's registers.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def side_by_side(inputs: Sequence[Tensor]) -> Tensor:
    """... i, one or more -> ... and the sum of the i."""
    return inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=-1)


def plain_linear_relu(layer: nn.Linear, *inputs: Tensor) -> Tensor:
    """A hidden layer of inputs side by side, in the plainest way."""
    return layer(side_by_side(inputs)).relu_()


def linear_relu(layer: nn.Linear, *inputs: Tensor) -> Tensor:
    """n i, side by side -> n o: relu(layer(inputs)), differentiable, in the dtype of autocast where that is on."""
    device, dtype = inputs[0].device.type, inputs[0].dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    if device != "cpu" or not has_kernel(dtype):
        return plain_linear_relu(layer, *inputs)
    return LinearReLU.apply(layer.weight.to(dtype), layer.bias.to(dtype), *(x.to(dtype) for x in inputs))


def has_kernel(dtype: torch.dtype) -> bool:
    """Whether this CPU's PyTorch has the operation for matrices of `dtype`."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class LinearReLU(torch.autograd.Function):
    """weight o i, bias o, inputs n i side by side, all of one dtype -> n o.

    An input that needs no gradient, as the encoded point that joins a layer's input, costs nothing on the way back.
    """

    @staticmethod
    def forward(ctx, weight: Tensor, bias: Tensor, *inputs: Tensor) -> Tensor:
        x = side_by_side(inputs)
        # What torch.compile makes of a layer and its ReLU; the tests hold it to the plain one.
        y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu", [], "")
        ctx.sizes = [part.shape[-1] for part in inputs]
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_y: Tensor):
        x, weight, y = ctx.saved_tensors
        by_weight, by_bias, *by_input = ctx.needs_input_grad
        d_z = torch.ops.aten.threshold_backward(d_y, y, 0)
        d_inputs = [d_z @ columns if needed else None
                    for columns, needed in zip(weight.split(ctx.sizes, dim=1), by_input, strict=True)]  # fmt: skip
        return d_z.t() @ x if by_weight else None, d_z.sum(0) if by_bias else None, *d_inputs
