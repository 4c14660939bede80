"""PyTorch model -> a folder that runs without PyTorch: two small ONNX graphs over one safetensors file.

    config.json, tokenizer.json   the same as in the PyTorch folder
    encoder.onnx                  ids int64 [L] -> hidden float32 [L, De], the decoder's input,
                                                   echo float32 [L], source weight of every token, whether it may
                                                   speak or not (zeros for echo_placement "none")
    head.onnx                     hidden float32 [T, De] -> peaks float32 [V], raw maxima over the T tokens, before
                                                            relu and log
    model.safetensors             the tensors of both graphs, which refer to it by offset. `decoder.weight` [V, De]
                                  (with `decoder.scale` [V] when int8) and `decoder.bias` [V] serve explanations.

The graphs have no batch dimension and no padding: a text's vector depends on nothing but the text.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto, helper, numpy_helper

from polylex.errors import BadInput, BadModel
from polylex.model.calibration import loudness
from polylex.model.card import ONNX, model_card
from polylex.model.encoder import first_position
from polylex.model.folder import replaced
from polylex.model.graph import Graph, Quantize
from polylex.model.model import SparseModel
from polylex.model.tensors import FILE, write_tensors
from polylex.model.weights import identity, write_small_files

FAMILIES = ("bert", "camembert", "roberta", "xlm-roberta")
_MODES = ("int8", "float32")

State = dict[str, NDArray[np.float32]]


def export(
    model: SparseModel | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    quantize: Quantize = "int8",
    card: str | None = None,
) -> Path:
    """Write the folder that `polylex.load` opens, whole or not at all; return its path.

    model     a SparseModel, or what SparseModel.from_pretrained reads
    quantize  "int8": a quarter of the size and about half of the time, vectors at a cosine of about 0.998 to the float
              ones; "float32": the same vectors as PyTorch, within 1e-4
    card      text of README.md

    Raises BadModel for an encoder that is not of the BERT family.
    """
    if quantize not in _MODES:
        raise BadInput(f"quantize must be one of {', '.join(_MODES)}, got {quantize!r}")
    if not isinstance(model, SparseModel):
        model = SparseModel.from_pretrained(model)
    _require_family(model)
    state = {name: tensor.detach().float().cpu().numpy() for name, tensor in model.state_dict().items()}
    encoder, head = _encoder(model, state, quantize), _head(state, quantize)
    config = replace(model.config, weights_id=identity(model))
    width, terms = config.pivot_width, config.pivot_size
    target = Path(out)
    with replaced(target) as fresh:
        references = write_tensors(fresh / FILE, encoder.tensors | head.tensors)
        ids, hidden = _value("ids", "L", kind=TensorProto.INT64), _value("hidden", "L", width)
        graph = encoder.build([ids], [hidden, _value("echo", "L")], references)
        (fresh / "encoder.onnx").write_bytes(graph.SerializeToString())
        graph = head.build([_value("hidden", "T", width)], [_value("peaks", terms)], references)
        (fresh / "head.onnx").write_bytes(graph.SerializeToString())
        write_small_files(model, config, fresh)
        (fresh / "README.md").write_text(card or model_card(config, files=ONNX), encoding="utf-8")
    return target


def _require_family(model: SparseModel) -> None:
    config = model.encoder.transformer.config
    if config.model_type not in FAMILIES:
        raise BadModel(f"cannot export an encoder of type {config.model_type!r}; {', '.join(FAMILIES)} can be")
    for setting, value in (("hidden_act", "gelu"), ("position_embedding_type", "absolute")):
        if getattr(config, setting, value) != value:
            raise BadModel(
                f"cannot export an encoder with {setting} {getattr(config, setting)!r}; only {value!r} can be"
            )


def _value(name: str, *shape: int | str, kind: int = TensorProto.FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))


def _encoder(model: SparseModel, state: State, quantize: Quantize) -> Graph:
    """Ids -> hidden, echo."""
    graph = Graph(quantize, loudness(model) if quantize == "int8" else None)
    body = model.encoder.transformer.config
    prefix, eps, heads = "encoder.transformer.", body.layer_norm_eps, body.num_attention_heads
    x = _embeddings(graph, state, f"{prefix}embeddings.", eps, first_position(model.config.encoder))
    for layer in range(body.num_hidden_layers):
        x = _layer(graph, state, f"{prefix}encoder.layer.{layer}.", heads, eps, x)
    y = _dense_gelu(graph, state, "connector.linear", x)
    y = _dense_gelu(graph, state, "pivot_head.dense", y)
    hidden = _norm(graph, state, "pivot_head.norm", y, model.config.pivot_norm_eps)
    graph.op("Identity", hidden, output="hidden")
    _echo(graph, state, model.config.echo_placement, x, hidden)
    return graph


def _head(state: State, quantize: Quantize) -> Graph:
    """Hidden -> peaks. The bias does not depend on the token, so it is added after the maximum."""
    graph = Graph(quantize)
    scores = graph.matmul("decoder", "hidden", state["pivot_head.decoder.weight"])
    best = graph.op("ReduceMax", scores, axes=[0], keepdims=0)
    graph.op("Add", best, graph.tensor("decoder.bias", state["pivot_head.decoder.bias"]), output="peaks")
    return graph


def _embeddings(graph: Graph, state: State, prefix: str, eps: float, first: int) -> str:
    """Word + position + token type 0, normalised."""
    positions = state[f"{prefix}position_embeddings.weight"] + state[f"{prefix}token_type_embeddings.weight"][0]
    length = graph.op("Shape", "ids")
    start = graph.constant(np.array([0], np.int64))
    chosen = graph.op("Slice", graph.tensor("positions", positions[first:]), start, length, start)
    words = graph.rows("words", state[f"{prefix}word_embeddings.weight"], "ids")
    return _norm(graph, state, f"{prefix}LayerNorm", graph.op("Add", words, chosen), eps)


def _layer(graph: Graph, state: State, prefix: str, heads: int, eps: float, x: str) -> str:
    """One transformer block, normalised after each half (Vaswani et al. 2017): [L, Dm] -> [L, Dm]."""
    names = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
    axis = graph.constant(np.array([0], np.int64))
    parts = [graph.op("Unsqueeze", graph.matmul(name, x, state[f"{name}.weight"]), axis) for name in names]
    biases = np.concatenate([state[f"{name}.bias"] for name in names])
    bias = graph.tensor(f"{prefix}attention.self.bias", biases)
    y = graph.op("Squeeze", graph.contrib("MultiHeadAttention", *parts, bias, num_heads=heads), axis)
    y = _linear(graph, state, f"{prefix}attention.output.dense", y)
    x = _norm(graph, state, f"{prefix}attention.output.LayerNorm", graph.op("Add", x, y), eps)
    y = _dense_gelu(graph, state, f"{prefix}intermediate.dense", x)
    y = _linear(graph, state, f"{prefix}output.dense", y)
    return _norm(graph, state, f"{prefix}output.LayerNorm", graph.op("Add", x, y), eps)


def _echo(graph: Graph, state: State, placement: str, states: str, hidden: str) -> None:
    """Output `echo` [L]."""
    if placement == "none":
        shape = graph.op("Shape", "ids")
        graph.op("ConstantOfShape", shape, output="echo", value=numpy_helper.from_array(np.zeros(1, np.float32)))
        return
    x = states if placement == "encoder" else hidden
    weight = graph.tensor("echo.weight", state["source_head.linear.weight"].T)
    bias = graph.tensor("echo.bias", state["source_head.linear.bias"])
    scores = graph.op("Relu", graph.op("Add", graph.op("MatMul", x, weight), bias))
    if "source_head.scale" in state:
        scores = graph.op("Mul", scores, graph.tensor("echo.scale", state["source_head.scale"]))
    graph.op("Squeeze", scores, graph.constant(np.array([-1], np.int64)), output="echo")


def _linear(graph: Graph, state: State, name: str, x: str) -> str:
    return graph.linear(name, x, state[f"{name}.weight"], state[f"{name}.bias"])


def _dense_gelu(graph: Graph, state: State, name: str, x: str) -> str:
    """Exact (erf) GELU of an affine map."""
    bias = graph.tensor(f"{name}.bias", state[f"{name}.bias"])
    return graph.contrib("BiasGelu", graph.matmul(name, x, state[f"{name}.weight"]), bias)


def _norm(graph: Graph, state: State, name: str, x: str, eps: float) -> str:
    return graph.norm(name, x, state[f"{name}.weight"], state[f"{name}.bias"], eps)
