"""One safetensors file that NumPy and ONNX graphs share: the graphs point into it by offset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

FILE = "model.safetensors"
_DTYPES = {"float32": "F32", "int8": "I8", "uint8": "U8"}
# The tensors start on a page; those whose size is a multiple of a cache line come first, so that all of them, and in
# practice every matrix, stay aligned. (Safetensors allows no gaps between tensors.)
_PAGE, _LINE = 4096, 64


def write_tensors(path: Path, tensors: Mapping[str, NDArray[Any]]) -> dict[str, TensorProto]:
    """Write `tensors` (float32, int8, uint8); return, by name, ONNX tensors that refer to their bytes in the file."""
    order = sorted(tensors, key=lambda name: (tensors[name].nbytes % _LINE != 0, -tensors[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "np"}}
    start = 0
    for name in order:
        array = tensors[name]
        end = start + array.nbytes
        header[name] = {"dtype": _DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-(len(text) + 8) % _PAGE)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(np.ascontiguousarray(tensors[name]).tobytes())
    base = 8 + len(text)
    return {name: _reference(name, tensors[name], base + header[name]["data_offsets"][0]) for name in order}


def _reference(name: str, array: NDArray[Any], offset: int) -> TensorProto:
    tensor = TensorProto(
        name=name,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", FILE), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
