"""SPLADE models of other libraries as a Polylex encoder: polylex.model.splade."""

import json
import shutil

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.torch

import numpy as np  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tiny_milco import dense  # noqa: E402
from transformers import AutoConfig, AutoModelForMaskedLM  # noqa: E402

import polylex  # noqa: E402
from polylex.cli import program  # noqa: E402
from polylex.errors import BadModel  # noqa: E402
from polylex.model.splade import SpladeEncoder  # noqa: E402

WORDS = ["the", "cat", "sleeps", "on", "a", "red", "sofa", "who", "wrote", "odyssey", "paris", "is", "of", "##s", "?"]
NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TEXTS = [
    "Who wrote the Odyssey?",
    "Paris is the capital of France.",
    "cats",
    "",
    " ",
    "the cat sleeps on the red sofa. " * 9,
]
FAMILIES = {
    "bert": {"type_vocab_size": 2},
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32},
    "roberta": {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def masked_model(folder, family="bert"):
    """A seeded masked language model of a few words, as transformers saves it."""
    torch.manual_seed(3)
    shape = SMALL if family != "distilbert" else {}
    config = AutoConfig.for_model(
        family, vocab_size=len(NAMES) + 3, max_position_embeddings=26, **(shape | FAMILIES[family])
    )
    model = AutoModelForMaskedLM.from_config(config)
    for each in model.parameters():
        torch.nn.init.normal_(each, std=0.5)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    tokenizer = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=24)
    tokenizer.save_pretrained(folder)
    return folder


def sentence_transformers_folder(folder, family="bert", **pooling):
    """The same as a SparseEncoder of sentence-transformers."""
    masked_model(folder, family)
    (folder / "1_SpladePooling").mkdir()
    (folder / "1_SpladePooling" / "config.json").write_text(json.dumps(pooling))
    modules = [
        ("", "base.modules.transformer.Transformer"),
        ("1_SpladePooling", "sparse_encoder.modules.SpladePooling"),
    ]
    write_modules(folder, modules)
    settings = {"transformer_task": "fill-mask", "max_seq_length": 16}
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings))
    return folder


def write_modules(folder, modules):
    """modules.json and a prompt for queries."""
    rows = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.{kind}"}
        for index, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(rows))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"model_type": "SparseEncoder", "prompts": {"query": "who ", "document": ""}})
    )


def routed_folder(folder):
    """An inference-free model: a table for queries, a masked language model for documents."""
    folder.mkdir()
    body = masked_model(folder / "document_0_Transformer")
    (folder / "document_1_SpladePooling").mkdir()
    (folder / "document_1_SpladePooling" / "config.json").write_text('{"activation_function": "log1p_relu"}')
    table = folder / "query_0_SparseStaticEmbedding"
    table.mkdir()
    (table / "config.json").write_text('{"frozen": false}')
    save_file({"weight": torch.arange(len(NAMES)).float() / 10}, table / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(body / name, table / name)
    types = {
        "query_0_SparseStaticEmbedding": "sentence_transformers.sparse_encoder.modules.SparseStaticEmbedding",
        "document_0_Transformer": "sentence_transformers.base.modules.transformer.Transformer",
        "document_1_SpladePooling": "sentence_transformers.sparse_encoder.modules.SpladePooling",
    }
    structure = {"query": [next(iter(types))], "document": list(types)[1:]}
    (body / "sentence_bert_config.json").write_text('{"transformer_task": "fill-mask"}')
    (folder / "router_config.json").write_text(
        json.dumps({"types": types, "structure": structure, "parameters": {"default_route": "document"}})
    )
    write_modules(folder, [("", "base.modules.router.Router")])
    return folder


FOLDERS = {
    "bert": masked_model,
    "distilbert": lambda folder: masked_model(folder, "distilbert"),
    "roberta": lambda folder: masked_model(folder, "roberta"),
    "modules": lambda folder: sentence_transformers_folder(folder, pooling_strategy="max"),
    "sum": lambda folder: sentence_transformers_folder(folder, pooling_strategy="sum"),
    "log twice": lambda folder: sentence_transformers_folder(folder, activation_function="log1p_relu"),
    "router": routed_folder,
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("kind", ["query", "document"])
@pytest.mark.parametrize("name", FOLDERS)
def test_the_weights_are_those_of_sentence_transformers(name, kind, tmp_path):
    library = pytest.importorskip("sentence_transformers", minversion="6")
    folder = FOLDERS[name](tmp_path / "model")
    encoder, other = polylex.load(folder), library.SparseEncoder(str(folder))
    prompt = other.prompts[kind]
    texts = [text for text in TEXTS if text.strip() or not prompt]  # a blank text gets no prompt here, there it does
    theirs = (other.encode_query if kind == "query" else other.encode_document)(texts).to_dense().numpy()
    vectors = encoder.encode(texts, kind=kind, max_windows=1)
    np.testing.assert_allclose(dense(vectors, len(encoder.vocab))[:, : theirs.shape[1]], theirs, rtol=0, atol=1e-4)
    assert (theirs > 0).sum() > 20
    names = other.tokenizer.convert_ids_to_tokens(list(range(len(WORDS))))
    assert encoder.vocab.names(range(len(WORDS))) == [f"e_{name}" for name in names]


def test_max_pooling_of_hand_worked_scores(tmp_path, monkeypatch):
    scores = torch.tensor([[1.0, -1, 3], [0, -2, 7]])
    monkeypatch.setattr(SpladeEncoder, "_scores", lambda self, window: scores)
    for pooling, wanted in (
        ({"pooling_strategy": "max"}, {0: np.log(2), 2: np.log(8)}),
        ({"pooling_strategy": "sum"}, {0: np.log(2), 2: np.log(4) + np.log(8)}),
        ({"activation_function": "log1p_relu"}, {0: np.log1p(np.log(2)), 2: np.log1p(np.log(8))}),
    ):
        folder = tmp_path / "-".join(map(str, pooling.values()))
        terms, weights = SpladeEncoder(sentence_transformers_folder(folder, **pooling)).encode(["cat"]).row(0)
        assert terms.tolist() == list(wanted)
        np.testing.assert_allclose(weights, list(wanted.values()), rtol=1e-6)


def test_a_long_text_is_read_in_windows_and_has_the_terms_of_all(tmp_path):
    encoder = SpladeEncoder(masked_model(tmp_path / "model"))
    assert encoder.config.max_length == 24
    whole = dense(encoder.encode(TEXTS[-1:]), len(encoder.vocab))
    first = dense(encoder.encode(TEXTS[-1:], max_windows=1), len(encoder.vocab))
    assert len(encoder.windows(TEXTS[-1:])[0]) > 1
    assert set(np.flatnonzero(whole[0])) > set(np.flatnonzero(first[0]))


def test_prompts_lengths_and_names_come_from_the_folder(tmp_path):
    config = SpladeEncoder(sentence_transformers_folder(tmp_path / "mine")).config
    assert (config.name, config.query_prompt, config.document_prompt, config.max_length) == ("mine", "who ", "", 16)


def test_index_search_and_explanation_take_such_a_model(tmp_path):
    encoder = polylex.load(routed_folder(tmp_path / "model"))
    documents = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS[:3])]
    polylex.Retriever.build(tmp_path / "index", documents, encoder).close()
    with polylex.Retriever.open(tmp_path / "index") as retriever:  # finds the model by itself
        hit = retriever.search("who wrote the odyssey")[0]
        why = retriever.explain("who wrote the odyssey", hit.id)
    assert sum(match.product for match in why.matches) == pytest.approx(hit.score, rel=1e-5)
    assert {match.query_words[0].text for match in why.matches} <= {"who", "wrote", "the", "odyssey"}


def test_a_query_that_is_looked_up_counts_each_token_once(tmp_path):
    encoder = polylex.load(routed_folder(tmp_path / "model"))
    seen = []
    vectors = encoder.encode(["cat cat on"], kind="query", on_text=seen.append, prune=polylex.Pruning(top_k=3))
    # "who " stands before every query; ids: the 5, cat 6, on 8, who 12, weighing a tenth of them
    assert vectors.decode(encoder.vocab) == [
        [("e_who", pytest.approx(1.2)), ("e_on", pytest.approx(0.8)), ("e_cat", pytest.approx(0.6))]
    ]
    assert seen == [1]
    assert encoder.term_spans("cat cat on", [6], kind="query") == {6: [(0, 3), (4, 7)]}


def test_equal_weights_have_equal_identities_and_a_table_counts(tmp_path):
    plain = SpladeEncoder(masked_model(tmp_path / "a")).weights_id
    assert plain == SpladeEncoder(sentence_transformers_folder(tmp_path / "b")).weights_id
    assert plain != SpladeEncoder(routed_folder(tmp_path / "c")).weights_id


def test_the_command_line_takes_such_a_folder(tmp_path):
    folder = str(masked_model(tmp_path / "model"))
    told = CliRunner().invoke(program, ["encode", "--model", folder, "--text", "who wrote the odyssey", "--json"])
    assert told.exit_code == 0, told.output
    assert all(name.startswith("e_") for name in json.loads(told.output)["vector"])
    told = CliRunner().invoke(program, ["info", folder, "--json"])
    assert json.loads(told.output)["terms"] == {"English": len(NAMES) + 3, "of the text": 0}


def test_a_folder_that_is_not_splade_is_refused_by_what_it_holds(tmp_path):
    folder = sentence_transformers_folder(tmp_path / "dense")
    write_modules(folder, [("", "base.modules.Transformer"), ("1_Pooling", "sentence_transformer.modules.Pooling")])
    with pytest.raises(BadModel, match="holds Transformer and Pooling, not Transformer and SpladePooling"):
        polylex.load(folder)
    (folder / "modules.json").write_text("{}")
    with pytest.raises(BadModel, match=r"modules\.json holds dict, expected list"):
        polylex.load(folder)
    folder = sentence_transformers_folder(tmp_path / "mean", pooling_strategy="mean")
    with pytest.raises(BadModel, match="asks for 'mean' of 'relu'; this release knows max and sum"):
        polylex.load(folder)
    folder = masked_model(tmp_path / "bare")
    config = json.loads((folder / "config.json").read_text()) | {"architectures": ["BertModel"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadModel, match="is BertModel, not a masked language model"):
        polylex.load(folder)
    folder = routed_folder(tmp_path / "routed")
    router = json.loads((folder / "router_config.json").read_text())
    router["structure"]["query"] = router["structure"]["document"]
    (folder / "router_config.json").write_text(json.dumps(router))
    with pytest.raises(BadModel, match="routes queries through Transformer and SpladePooling; only a table"):
        polylex.load(folder)


def test_weights_that_are_not_there_are_named(tmp_path):
    folder = masked_model(tmp_path / "model")
    from safetensors.torch import load_file

    tensors = {name: each for name, each in load_file(folder / "model.safetensors").items() if "transform" not in name}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadModel, match=r"lacks \d+ weights of a masked language model, such as cls\.predictions"):
        polylex.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadModel, match="cannot be read as a masked language model"):
        polylex.load(folder)
