import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytestmark = pytest.mark.torch

from dataclasses import replace  # noqa: E402

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime as ort  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra.numpy import arrays  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from tiny_milco import TEXTS, cosine, dense, encode, tiny_milco  # noqa: E402

from polylex import models  # noqa: E402
from polylex.config import ModelConfig  # noqa: E402
from polylex.errors import BadInput, BadModel  # noqa: E402
from polylex.model import SparseModel, export  # noqa: E402
from polylex.model.calibration import SENTENCES, loudness, shares  # noqa: E402
from polylex.model.graph import EXTRA, Graph, quantized_rows  # noqa: E402
from polylex.model.tensors import write_tensors  # noqa: E402
from polylex.runtime.encoder import Encoder  # noqa: E402

BERT = {"model_type": "bert", "type_vocab_size": 2}


def variant(placement="encoder", family=None):
    """The tiny model with another echo, or in another family, where positions are counted otherwise."""
    model = tiny_milco()
    torch.manual_seed(1)
    config = replace(model.config, echo_placement=placement, encoder={**model.config.encoder, **(family or {})})
    made = SparseModel(config, model.tokens, model.vocab.pivot).eval()
    if made.source_head is not None:
        torch.nn.init.constant_(made.source_head.linear.bias, 0.3)
    return made


MODELS = {
    "released": tiny_milco,
    "bert": lambda: variant(family=BERT),
    "echo in the head": lambda: variant("head"),
    "no echo": lambda: variant("none"),
}


@pytest.mark.parametrize("name", MODELS)
def test_float32_gives_pytorch_s_weights_within_1e_4(name, tmp_path):
    model = MODELS[name]()
    encoder = Encoder(export(model, tmp_path / "out", quantize="float32"))
    assert encoder.vocab == model.vocab
    assert encoder.weights_id == model.weights_id
    ours, theirs = (dense(encode(e, TEXTS), len(model.vocab)) for e in (encoder, model))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
    assert (theirs[:, 2505:] > 0).any() == (name != "no echo")


def test_float32_gives_pytorch_s_windows_of_a_long_text(tmp_path):
    encoder = Encoder(export(tiny_milco(), tmp_path / "out", quantize="float32"))
    text = "Tesla net worth, 陌陌直播. " * 30
    ours, theirs = (dense(e.encode([text]), len(encoder.vocab)) for e in (encoder, tiny_milco()))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)


def test_int8_keeps_the_direction_of_every_vector(tmp_path):
    encoder = Encoder(export(tiny_milco(), tmp_path / "out"))
    ours, theirs = (dense(encode(e, TEXTS), len(encoder.vocab)) for e in (encoder, tiny_milco()))
    assert cosine(ours, theirs).min() > 0.998


def test_an_int8_vector_depends_on_nothing_but_the_text(tmp_path):
    encoder = Encoder(export(tiny_milco(), tmp_path / "out"))
    together = encode(encoder, TEXTS)
    for index, text in enumerate(TEXTS):
        terms, weights = together.row(index)
        alone_terms, alone_weights = encode(encoder, [text]).row(0)
        assert np.array_equal(terms, alone_terms) and np.array_equal(weights, alone_weights)


def test_export_takes_a_folder_too(tmp_path):
    folder = tiny_milco().save_pretrained(tmp_path / "torch")
    out = export(folder, tmp_path / "out", card="# Mine\n")
    assert ModelConfig.read(out) == ModelConfig.read(folder)
    assert (out / "README.md").read_text() == "# Mine\n"


def test_an_exported_folder_is_not_a_pytorch_folder_and_says_so(tmp_path):
    out = export(tiny_milco(), tmp_path / "out")
    with pytest.raises(BadModel, match=r"exported model.*polylex\.load"):
        SparseModel.from_pretrained(out)


@pytest.mark.parametrize(("quantize", "kind"), [("int8", np.int8), ("float32", np.float32)])
def test_the_decoder_lies_in_the_file_row_by_row_for_explanations(tmp_path, quantize, kind):
    out = export(tiny_milco(), tmp_path / "out", quantize=quantize)
    tensors = load_file(out / "model.safetensors")
    weight = tensors["decoder.weight"]
    assert weight.dtype == kind
    rows = weight * tensors["decoder.scale"][:, None] if quantize == "int8" else weight
    state = tiny_milco().state_dict()
    wanted = state["pivot_head.decoder.weight"].numpy()
    assert np.abs(rows - wanted).max() <= np.abs(wanted).max() / 127 / 2 * (quantize == "int8") * 1.001
    assert np.array_equal(tensors["decoder.bias"], state["pivot_head.decoder.bias"].numpy())


def test_the_graphs_hold_no_weights_of_their_own(tmp_path):
    out = export(tiny_milco(), tmp_path / "out")
    tensors = load_file(out / "model.safetensors")
    data = (out / "model.safetensors").read_bytes()
    seen = set()
    for name in ("encoder.onnx", "head.onnx"):
        graph = onnx.load(out / name, load_external_data=False).graph
        for tensor in graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                where = {entry.key: entry.value for entry in tensor.external_data}
                start, length = int(where["offset"]), int(where["length"])
                assert where["location"] == "model.safetensors"
                assert data[start : start + length] == tensors[tensor.name].tobytes()
                seen.add(tensor.name)
            else:
                assert np.prod(tensor.dims, dtype=int) * 8 <= 1 << 15
    assert seen == set(tensors)


def test_an_encoder_of_another_family_is_refused_before_anything_is_written(tmp_path):
    family = {"model_type": "distilbert", "dim": 48, "n_layers": 1, "n_heads": 4, "hidden_dim": 96}
    with pytest.raises(BadModel, match=r"'distilbert'; bert, camembert, roberta, xlm-roberta can be"):
        export(variant(family=family), tmp_path / "out")
    with pytest.raises(BadModel, match="hidden_act 'relu'"):
        export(variant(family={"hidden_act": "relu"}), tmp_path / "out")
    with pytest.raises(BadInput, match="quantize must be one of int8, float32, got 'int4'"):
        export(tiny_milco(), tmp_path / "out", quantize="int4")
    assert not (tmp_path / "out").exists()


# -- quantisation ----------------------------------------------------------------------------------


def test_a_row_s_largest_entry_stands_at_127():
    rows, scale = quantized_rows(np.array([[0.3, -2.54, 1.0], [0, 0, 0]], np.float32))
    assert rows.tolist() == [[15, -127, 50], [0, 0, 0]]
    np.testing.assert_allclose(scale, [0.02, 1])


@pytest.mark.parametrize("levels", [63, 127])
def test_a_matrix_that_was_quantised_keeps_its_rows_exactly(levels):
    rng = np.random.default_rng(0)
    grid = rng.integers(-levels, levels + 1, (50, 40)).astype(np.int8)
    grid[:, 0] = levels
    steps = rng.random(50).astype(np.float16).astype(np.float32) + np.float32(1e-3)
    rows, scale = quantized_rows(grid * steps[:, None])
    assert np.array_equal(rows, grid)
    np.testing.assert_allclose(scale, steps, rtol=1e-6)


@given(arrays(np.float32, (3, 5), elements=st.floats(-1e3, 1e3, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)))
@settings(max_examples=50, deadline=None)
def test_no_entry_moves_by_more_than_half_a_step(matrix):
    rows, scale = quantized_rows(matrix)
    assert (np.abs(rows * scale[:, None] - matrix) <= scale[:, None] * 0.5001).all()


def test_the_loudest_column_is_split_first():
    # 12 -> 6 6, then 8 -> 4 4, then 6 6 -> 4 4 4: each time the loudest share
    assert shares(np.array([12, 8, 1], np.float32), 1).tolist() == [2, 1, 1]
    assert shares(np.array([12, 8, 1], np.float32), 2).tolist() == [2, 2, 1]
    assert shares(np.array([12, 8, 1], np.float32), 3).tolist() == [3, 2, 1]


def product(x, weight, tmp_path, peaks):
    """x times weight transposed, as an int8 layer of a graph computes it."""
    graph = Graph("int8", {"layer": peaks} if peaks is not None else None)
    graph.op("Identity", graph.matmul("layer", "x", weight), output="y")
    references = write_tensors(tmp_path / "model.safetensors", graph.tensors)
    value = onnx.helper.make_tensor_value_info
    kind = onnx.TensorProto.FLOAT
    made = graph.build([value("x", kind, ["L", x.shape[1]])], [value("y", kind, ["L", len(weight)])], references)
    (tmp_path / "g.onnx").write_bytes(made.SerializeToString())
    return ort.InferenceSession(str(tmp_path / "g.onnx")).run(None, {"x": x})[0]


def test_splitting_a_loud_column_makes_an_int8_product_several_times_finer(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 64)).astype(np.float32)
    x[:, 5] *= 40
    weight = rng.standard_normal((30, 64)).astype(np.float32)
    weight[:, 5] /= 40
    exact = x @ weight.T
    plain = np.abs(product(x, weight, tmp_path, None) - exact).mean()
    split = np.abs(product(x, weight, tmp_path, np.abs(x).max(axis=0)) - exact).mean()
    assert split < plain / 3


def test_a_token_s_int8_product_does_not_depend_on_other_tokens(tmp_path):
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((3, 16)).astype(np.float32), rng.standard_normal((4, 16)).astype(np.float32)
    x[1] *= 1000
    x[2] = 0
    together = product(x, weight, tmp_path, None)
    assert np.array_equal(together[:1], product(x[:1], weight, tmp_path, None))
    assert not together[2].any()


def test_loudness_is_the_largest_magnitude_of_each_input_column():
    model = tiny_milco()
    peaks = loudness(model)
    assert peaks["connector.linear"].shape == (48,) and peaks["pivot_head.decoder"].shape == (32,)
    states = []
    for window in (w for ws in model.windows(SENTENCES, max_windows=1) for w in ws):
        from polylex.model.tokens import TokenBatch

        with torch.no_grad():
            states.append(model.encoder(TokenBatch.of([window], model.encoder.pad))[0].abs().numpy().max(axis=0))
    np.testing.assert_allclose(peaks["connector.linear"], np.max(states, axis=0), rtol=1e-5)


# -- the bundled model -----------------------------------------------------------------------------

SPOKEN = {
    "ar": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "el": "Ποιος έγραψε την Οδύσσεια;",
    "en": "How do vaccines protect children against measles?",
    "es": "¿Quién puede casarse sin permiso?",
    "fi": "Kuinka kauan kahvi säilyy pakastimessa?",
    "hi": "भारत की राजधानी क्या है?",
    "id": "Bagaimana cara memasang pencetak di Linux?",
    "ja": "富士山の高さは何メートルですか。",
    "ko": "서울에서 부산까지 얼마나 걸리나요?",
    "ru": "Когда был построен первый паровоз?",
    "sw": "Watu wote wamezaliwa huru.",
    "th": "กรุงเทพมหานครก่อตั้งเมื่อใด",
    "tr": "İstanbul'da hava nasıl olacak?",
    "vi": "Ai là người phát minh ra điện thoại?",
    "zh": "有谁知道陌陌直播的音乐怎么导入手机里",
}


def dequantised(folder):
    """The PyTorch model whose weights are those of an exported int8 folder, undone step by step."""
    config, tensors = ModelConfig.read(folder), load_file(folder / "model.safetensors")
    encoder = Encoder(folder)
    model = SparseModel(config, encoder.tokens, encoder.vocab.pivot).eval()
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    ours = {"pivot_head.decoder": "decoder", "source_head.linear": "echo"}
    body = "encoder.transformer.embeddings."
    for name, wanted in state.items():
        layer, _, kind = name.rpartition(".")
        source = ours.get(layer, layer)
        if name == "source_head.scale":
            value = tensors["echo.scale"]
        elif layer == f"{body}word_embeddings":
            value = tensors["words.weight"] * tensors["words.scale"]
        elif layer == f"{body}position_embeddings":
            value = tensors["positions"]
        elif layer == f"{body}token_type_embeddings":
            value = np.zeros_like(wanted)  # the export adds type 0 to the positions
        elif kind == "bias" and ".attention.self." in layer:
            part = ("query", "key", "value").index(layer.rpartition(".")[2])
            value = np.split(tensors[f"{layer.rpartition('.')[0]}.bias"], 3)[part]
        elif f"{source}.scale" in tensors and kind == "weight" and source != "echo":
            value = tensors[f"{source}.weight"][:, : wanted.shape[1]] * tensors[f"{source}.scale"][:, None]
        else:
            value = tensors[f"{source}.{kind}"].reshape(wanted.shape)
        state[name] = np.asarray(value, np.float32).reshape(wanted.shape)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return model


def test_the_bundled_model_agrees_with_pytorch_in_sixteen_languages(encoder):
    model = dequantised(encoder.folder)
    texts = list(SPOKEN.values())
    ours, theirs = (dense(e.encode_query(texts), len(encoder.vocab)) for e in (encoder, model))
    agreement = dict(zip(SPOKEN, cosine(ours, theirs).round(4).tolist(), strict=True))
    assert min(agreement.values()) > 0.99, agreement
    assert sum(agreement.values()) / len(agreement) > 0.996, agreement


def test_the_bundled_model_grounds_a_text_in_english_and_keeps_its_own_words(encoder):
    names = [name for name, _ in encoder.encode_query([SPOKEN["zh"]]).decode(encoder.vocab, top_k=10)[0]]
    assert "e_music" in names and "m_陌" in names


def test_the_bundled_model_stays_under_80_million_bytes():
    assert sum(path.stat().st_size for path in models.locate().iterdir()) < 80_000_000
    assert EXTRA <= 16
