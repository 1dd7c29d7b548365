"""A layer and its ReLU in one operation, where PyTorch has one: on CPUs with oneDNN, and on CUDA.

Between two matrix products of 256 channels in bfloat16, a pass over memory for the ReLU and another for the bias cost
as much as the product itself; oneDNN and cuBLAS apply both to what is still in the processor's registers.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

CUDA_MULTIPLE = 8  # columns: with other numbers of them, cuBLAS does not use the tensor cores as it could

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]  # x n i, weight o i, bias o -> relu(x weight^T + bias), n o


def side_by_side(inputs: Sequence[Tensor]) -> Tensor:
    """... i, one or more -> ... and the sum of the i."""
    return inputs[0] if len(inputs) == 1 else torch.cat(inputs, dim=-1)


def plain_linear_relu(layer: nn.Linear, *inputs: Tensor) -> Tensor:
    """A hidden layer of inputs side by side, in the plainest way."""
    return layer(side_by_side(inputs)).relu_()


def linear_relu(layer: nn.Linear, *inputs: Tensor) -> Tensor:
    """n i, side by side -> n o: relu(layer(inputs)), differentiable, in the dtype of autocast where that is on, else in
    that of the layer's weights."""
    device, dtype = inputs[0].device.type, layer.weight.dtype
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    if device == "cuda":
        kernel, multiple = cuda_kernel, CUDA_MULTIPLE
    elif device == "cpu" and has_kernel(dtype):
        kernel, multiple = onednn_kernel, 1
    else:
        return plain_linear_relu(layer, *(x.to(dtype) for x in inputs))
    weight, bias = layer.weight.to(dtype), layer.bias.to(dtype)
    return LinearReLU.apply(kernel, multiple, weight, bias, *(x.to(dtype) for x in inputs))


def has_kernel(dtype: torch.dtype) -> bool:
    """Whether this CPU's PyTorch has the operation for matrices of `dtype`."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def onednn_kernel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    # What torch.compile makes of a layer and its ReLU; the tests hold it to the plain one.
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu", [], "")


def cuda_kernel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch._addmm_activation(bias, x, weight.t())


def with_columns(x: Tensor, multiple: int) -> Tensor:
    """n i -> the same with columns of 0 after it, to a multiple of them."""
    missing = -x.shape[-1] % multiple
    return functional.pad(x, (0, missing)) if missing else x


class LinearReLU(torch.autograd.Function):
    """weight o i, bias o, inputs n i side by side, all of one dtype -> n o.

    An input that needs no gradient, as the encoded point that joins a layer's input, costs nothing on the way back.
    multiple: each input, and its columns of the weight, are filled with columns of 0 to a multiple of so many.
    """

    @staticmethod
    def forward(ctx, kernel: Kernel, multiple: int, weight: Tensor, bias: Tensor, *inputs: Tensor) -> Tensor:
        ctx.sizes = [part.shape[-1] for part in inputs]
        x = side_by_side([with_columns(part, multiple) for part in inputs])
        if x.shape[-1] != weight.shape[-1]:
            weight = side_by_side([with_columns(part, multiple) for part in weight.split(ctx.sizes, dim=1)])
        ctx.multiple = multiple
        y = kernel(x, weight, bias)
        ctx.save_for_backward(x, weight, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_y: Tensor):
        x, weight, y = ctx.saved_tensors
        by_weight, by_bias, *by_input = ctx.needs_input_grad[2:]
        d_z = torch.ops.aten.threshold_backward(d_y, y, 0)
        padded = [size + -size % ctx.multiple for size in ctx.sizes]
        parts = zip(weight.split(padded, dim=1), ctx.sizes, by_input, strict=True)
        d_inputs = [(d_z @ columns)[:, :size] if needed else None for columns, size, needed in parts]
        d_weight = without_columns(d_z.t() @ x, ctx.sizes, padded) if by_weight else None
        return None, None, d_weight, d_z.sum(0) if by_bias else None, *d_inputs


def without_columns(d_weight: Tensor, sizes: Sequence[int], padded: Sequence[int]) -> Tensor:
    """The gradient of a weight, whose columns come in padded parts, as that of the unpadded parts, without gaps, as
    fused Adam takes no other."""
    if list(sizes) == list(padded):
        return d_weight
    return torch.cat([part[:, :size] for part, size in zip(d_weight.split(padded, dim=1), sizes, strict=True)], dim=1)
