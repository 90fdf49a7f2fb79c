"""Weights in half precision, in a graph that stays a plain float graph to whoever reads it."""

import numpy as np
import onnx
import torch
from onnx import numpy_helper

# Smaller tensors are not worth a node of their own.
SMALLEST_HALF = 16


def round_parameters(module: torch.nn.Module) -> None:
    """Round every parameter to the nearest float16, in place.

    # Raises
    ValueError: a parameter lies outside float16's range.
    """
    for name, parameter in module.named_parameters():
        rounded = parameter.data.half().float()
        if not rounded.isfinite().all():
            raise ValueError(f"parameter {name} does not fit float16")
        parameter.data = rounded


def store_half(graph: onnx.GraphProto) -> None:
    """Store every float initialiser that float16 holds exactly as float16 with a Cast behind it."""
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size <= SMALLEST_HALF or not np.array_equal(half.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half, name + ".f16"))
        casts.append(onnx.helper.make_node("Cast", [name + ".f16"], [name], name + ".cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
