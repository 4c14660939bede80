"""Graph: an ONNX graph under construction, with float32 or row-wise int8 matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from polylex.model.calibration import shares

Quantize = Literal["int8", "float32"]
Array = NDArray[Any]

_MICROSOFT = "com.microsoft"
# Input columns that splitting loud ones may add to an int8 layer: 4 % of 384, and few leave little to gain.
EXTRA = 16
_TINY = 1e-12  # keeps a row of zeros from dividing by zero


def quantized_rows(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 rows [N, K] and their scales [N]: matrix[n] is about rows[n] * scale[n], symmetric.

    A row's largest entry stands at 127, or at 63 where the matrix lies on a grid of 7 bits, which is then kept.
    """
    for levels in (63, 127):
        scale = np.abs(matrix).max(axis=1) / np.float32(levels)
        scale[scale == 0] = 1
        steps = matrix / scale[:, None]
        rows = np.rint(steps)
        if levels == 127 or np.abs(steps - rows).max() < 1e-3:
            break
    return rows.astype(np.int8), scale.astype(np.float32)


class Graph:
    """Nodes in the order of their making, and the tensors they read.

    `tensors` are the large ones, for the shared file; constants are kept in the graph itself. Values are rank 2,
    [tokens, width], wherever not said otherwise.
    """

    def __init__(self, quantize: Quantize, loudness: Mapping[str, NDArray[np.float32]] | None = None) -> None:
        """`loudness` [K] by layer name: where known, loud input columns of int8 layers are split (see `matmul`)."""
        self.quantize = quantize
        self._loudness = loudness or {}
        self.tensors: dict[str, Array] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], TensorProto] = {}
        self._nodes: list[NodeProto] = []
        self._quantized: dict[str, tuple[str, str]] = {}

    def op(self, kind: str, *inputs: str, domain: str = "", output: str = "", **attributes: Any) -> str:  # noqa: ANN401
        """Add a node with one output; return the output's name."""
        output = output or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [output], domain=domain, **attributes))
        return output

    def contrib(self, kind: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401
        """Add one of ONNX Runtime's own operators."""
        return self.op(kind, *inputs, domain=_MICROSOFT, **attributes)

    def tensor(self, name: str, array: Array) -> str:
        """Name a tensor of the shared file."""
        self.tensors[name] = array
        return name

    def constant(self, array: Array) -> str:
        """Name a small tensor kept in the graph; equal ones are kept once."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return str(self._constants[key].name)

    def number(self, value: float) -> str:
        """Name a float32 scalar."""
        return self.constant(np.array(value, np.float32))

    # -- layers ------------------------------------------------------------------------------------

    def rows(self, name: str, table: NDArray[np.float32], ids: str) -> str:
        """Rows of an embedding table [N, D] at `ids` [L]: [L, D]."""
        if self.quantize == "float32":
            return self.op("Gather", self.tensor(f"{name}.weight", table), ids)
        quantized, scale = quantized_rows(table)
        values = self.op("Cast", self.op("Gather", self.tensor(f"{name}.weight", quantized), ids), to=TensorProto.FLOAT)
        return self.op("Mul", values, self.op("Gather", self.tensor(f"{name}.scale", scale[:, None]), ids))

    def matmul(self, name: str, x: str, weight: NDArray[np.float32]) -> str:
        """X [L, K] times the transpose of `weight` [N, K]: [L, N].

        int8: every token has its own scale (a token's result then depends on no other token), every output too. A
        column many times louder than the others would coarsen the whole token's scale, so it enters as several equal
        shares, each with a copy of the column's weights.
        The matrix lies in the file as [N, K], the order of PyTorch and of anyone who looks a row up.
        """
        if self.quantize == "float32":
            return self.op("Gemm", x, self.tensor(f"{name}.weight", weight), transB=1)
        rows, scale = quantized_rows(weight)
        counts = shares(self._loudness[name], EXTRA) if name in self._loudness else np.ones(weight.shape[1], np.int64)
        again = np.repeat(np.arange(len(counts)), counts - 1)
        quantized, steps = self._quantize(name, x, counts, again)
        y = self.contrib(
            "QGemm",
            quantized,
            self.number(1),
            self.constant(np.array(128, np.uint8)),
            self.tensor(f"{name}.weight", np.concatenate([rows, rows[:, again]], axis=1)),
            self.tensor(f"{name}.scale", scale),
            self.constant(np.zeros(len(scale), np.int8)),
            transB=1,
        )
        return self.op("Mul", y, steps)

    def linear(self, name: str, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        """Affine map x [L, K] -> [L, N]."""
        return self.op("Add", self.matmul(name, x, weight), self.tensor(f"{name}.bias", bias))

    def norm(self, name: str, x: str, weight: Array, bias: Array, eps: float) -> str:
        """LayerNorm over the last axis."""
        inputs = self.tensor(f"{name}.weight", weight), self.tensor(f"{name}.bias", bias)
        return self.op("LayerNormalization", x, *inputs, epsilon=eps)

    def _quantize(self, name: str, x: str, counts: NDArray[np.int64], again: NDArray[np.int64]) -> tuple[str, str]:
        """Inputs [L, K + extra] as uint8 around 128, and the step [L, 1] of each token; once for all that read `x`."""
        if x not in self._quantized:
            split = x
            if len(again):
                quiet = self.op("Mul", x, self.tensor(f"{name}.share", (1 / counts).astype(np.float32)))
                split = self.op("Concat", quiet, self.op("Gather", quiet, self.constant(again), axis=1), axis=1)
            largest = self.op("ReduceMax", self.op("Abs", split), axes=[-1], keepdims=1)
            steps = self.op("Max", self.op("Mul", largest, self.number(1 / 127)), self.number(_TINY))
            zero = self.constant(np.array(128, np.uint8))
            quantized = self.op("QuantizeLinear", self.op("Div", split, steps), self.number(1), zero)
            self._quantized[x] = quantized, steps
        return self._quantized[x]

    def build(
        self, inputs: list[ValueInfoProto], outputs: list[ValueInfoProto], references: Mapping[str, TensorProto]
    ) -> ModelProto:
        """The model; `references` are the tensors of the shared file, by name."""
        initializers = [*self._constants.values(), *(references[name] for name in self.tensors)]
        graph = helper.make_graph(self._nodes, "polylex", inputs, outputs, initializers)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="polylex")
