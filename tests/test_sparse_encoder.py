"""A Polylex model inside sentence-transformers: polylex.interop.sentence_transformers."""

import copy
import json
import pickle
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers", minversion="6")
pytestmark = [
    pytest.mark.torch,
    # PyTorch says so of any sparse tensor.
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled"),
]

import numpy as np  # noqa: E402
from sentence_transformers import SparseEncoder  # noqa: E402
from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator  # noqa: E402
from tiny_milco import TEXTS, dense, tiny_milco  # noqa: E402

from polylex import Index, Pruning  # noqa: E402
from polylex.errors import BadInput  # noqa: E402
from polylex.evaluation import evaluate  # noqa: E402
from polylex.interop.sentence_transformers import PolylexModule, sparse_encoder  # noqa: E402
from polylex.model import SparseModel  # noqa: E402

LONG = "Tesla net worth, 陌陌直播. " * 30


def ours(vectors, model):
    return dense(vectors, len(model.vocab))


def variant(**changes):
    """The tiny model with other settings and the same weights."""
    model = tiny_milco()
    made = SparseModel(replace(model.config, **changes), model.tokens, model.vocab.pivot).eval()
    made.load_state_dict({name: each for name, each in model.state_dict().items() if name in made.state_dict()})
    return made


def same(tensor, vectors, model):
    found = tensor.to_dense().numpy()
    np.testing.assert_allclose(found, ours(vectors, model)[:, : found.shape[1]], rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_vectors_are_those_of_the_model_also_of_long_and_blank_texts(batch_size):
    model, texts = tiny_milco(), [*TEXTS, LONG, "", " "]
    found = sparse_encoder(model).encode(texts, batch_size=batch_size)
    assert found.is_sparse and found.shape == (len(texts), len(model.vocab))
    same(found, model.encode(texts), model)


@pytest.mark.parametrize("placement", ["none", "encoder"])
def test_a_model_without_a_source_view_has_the_pivot_s_width(placement):
    model = variant(echo_placement=placement, empty_speaks=False)
    found = sparse_encoder(model)
    assert found.get_embedding_dimension() == (len(model.vocab) if placement == "encoder" else model.config.pivot_size)
    same(found.encode([*TEXTS, ""]), model.encode([*TEXTS, ""]), model)


def test_prompts_stand_where_ours_do():
    model = variant(query_prompt="query: ", document_prompt="passage: ")
    found = sparse_encoder(model)
    same(found.encode_query(TEXTS), model.encode_query(TEXTS), model)
    same(found.encode_document(TEXTS), model.encode_document(TEXTS), model)
    same(found.encode(TEXTS), model.encode(TEXTS), model)  # of which nothing is said: a document, on both sides
    same(found.encode([*TEXTS, " "], prompt="query: "), model.encode_query([*TEXTS, " "]), model)
    assert not torch.equal(found.encode_query(TEXTS[:1]).to_dense(), found.encode_document(TEXTS[:1]).to_dense())


def test_the_output_has_the_form_that_was_asked_for():
    found = sparse_encoder(tiny_milco())
    width = found.get_embedding_dimension()
    assert found.encode("Tesla").shape == (width,)
    assert not found.encode(TEXTS, convert_to_sparse_tensor=False).is_sparse
    rows = found.encode(TEXTS, convert_to_tensor=False, save_to_cpu=True, device="cpu")
    assert isinstance(rows, list) and [row.shape for row in rows] == [(width,)] * len(TEXTS)


def test_max_active_dims_keeps_the_heaviest_terms_as_pruning_does():
    model = tiny_milco()
    found = sparse_encoder(model, max_active_dims=7)
    same(found.encode(TEXTS), Pruning(top_k=7)(model.encode(TEXTS)), model)
    assert found.encode(TEXTS, max_active_dims=3)[0].coalesce().values().numel() == 3


def test_decode_names_terms_of_both_views_heaviest_first():
    model = tiny_milco()
    found = sparse_encoder(model)
    decoded = found.decode(found.encode(TEXTS), top_k=5)
    wanted = model.encode(TEXTS).decode(model.vocab, top_k=5)
    assert [[name for name, _ in row] for row in decoded] == [[name for name, _ in row] for row in wanted]
    assert {name[:2] for row in decoded for name, _ in row} == {"e_", "m_"}
    names = found.tokenizer
    assert names.convert_tokens_to_ids(names.convert_ids_to_tokens([0, 3, len(names) - 1])) == [0, 3, len(names) - 1]
    assert names.get_vocab()[names.convert_ids_to_tokens(7)] == 7


def test_similarity_is_the_score_and_intersection_its_parts():
    model = tiny_milco()
    found = sparse_encoder(model)
    query, documents = found.encode_query(TEXTS[0]), found.encode_document(TEXTS)
    scores = model.encode_query(TEXTS[:1]).dot(model.encode_document(TEXTS))[0]
    np.testing.assert_allclose(found.similarity(query, documents)[0].numpy(), scores, rtol=1e-5)
    parts = found.intersection(query, documents)
    np.testing.assert_allclose(parts.to_dense().sum(dim=1).numpy(), scores, rtol=1e-5)
    assert found.sparsity(documents)["active_dims"] == pytest.approx(model.encode(TEXTS).nnz / len(TEXTS))


def test_one_window_truncates_and_the_setting_survives_saving(tmp_path):
    model = tiny_milco()
    found = sparse_encoder(model, max_windows=1)
    found.max_seq_length = 16
    wanted = model.encode([LONG], max_length=16, max_windows=1)
    same(found.encode([LONG]), wanted, model)
    found.save_pretrained(str(tmp_path / "saved"))
    again = SparseEncoder(str(tmp_path / "saved"), trust_remote_code=True)
    assert again.max_seq_length == 16
    same(again.encode([LONG]), wanted, model)
    short = {"text": {"max_length": 8}}
    same(again.encode([LONG], processing_kwargs=short), model.encode([LONG], max_length=8, max_windows=1), model)


def test_a_saved_model_is_a_sparse_encoder_that_runs_no_code_but_ours(tmp_path):
    model = variant(query_prompt="query: ")
    folder = str(model.save_pretrained(tmp_path / "model"))
    assert not list((tmp_path / "model").glob("*.py"))
    with pytest.raises(ValueError, match="trust_remote_code"):  # what sentence-transformers 6 says to any foreign class
        SparseEncoder(folder)
    for found in (SparseEncoder(folder, trust_remote_code=True), sparse_encoder(folder)):
        assert isinstance(found[0], PolylexModule) and found.similarity_fn_name == "dot"
        same(found.encode_query(TEXTS), model.encode_query(TEXTS), model)


def test_what_sentence_transformers_saves_is_a_polylex_model(tmp_path):
    model = tiny_milco()
    sparse_encoder(model).save_pretrained(str(tmp_path / "saved"))
    again = SparseModel.from_pretrained(tmp_path / "saved")
    assert again.weights_id == model.weights_id
    assert json.loads((tmp_path / "saved" / "config.json").read_text("utf-8"))["format"] == "polylex-model"
    assert "sentence-transformers" in (tmp_path / "saved" / "README.md").read_text("utf-8")


def test_the_dtype_asked_for_is_the_one_of_the_weights(tmp_path):
    folder = str(tiny_milco().save_pretrained(tmp_path / "model"))
    found = SparseEncoder(folder, trust_remote_code=True, model_kwargs={"dtype": "bfloat16"})
    assert found.dtype == torch.bfloat16
    assert found.encode(TEXTS[:2]).dtype == torch.float32
    for options in ({"model_kwargs": {"attn_implementation": "eager"}}, {"backend": "onnx"}):
        with pytest.raises(BadInput, match=r"no model_kwargs but dtype and no backend but torch.*polylex\.load"):
            SparseEncoder(folder, trust_remote_code=True, **options)
    with pytest.raises(BadInput, match="no dtype 'float31'"):
        SparseEncoder(folder, trust_remote_code=True, model_kwargs={"dtype": "float31"})


def test_what_is_no_text_is_refused():
    with pytest.raises(BadInput, match=r"reads strings, got \('a', 'b'\)"):
        sparse_encoder(tiny_milco()).encode([("a", "b")])


def test_it_goes_to_other_processes_whole():
    found = sparse_encoder(tiny_milco())
    again = pickle.loads(pickle.dumps(found))
    assert torch.equal(again.encode(TEXTS).to_dense(), found.encode(TEXTS).to_dense())


def test_its_evaluator_finds_our_ndcg(tmp_path):
    model = tiny_milco()
    documents = {f"d{index}": text for index, text in enumerate(TEXTS)}
    queries = {f"q{index}": text for index, text in enumerate(TEXTS[::2])}
    judgments = {
        f"q{i}": {f"d{(2 * i + 1) % len(TEXTS)}": 1, f"d{(3 * i) % len(TEXTS)}": 1} for i in range(len(queries))
    }
    run = SparseInformationRetrievalEvaluator(
        queries, documents, {query: set(found) for query, found in judgments.items()}, name="toy", write_csv=False
    )(sparse_encoder(model))
    vectors = model.encode(list(documents.values()))
    with Index.build(tmp_path / "index", vectors, list(documents), vocab=model.vocab) as index:
        hits = index.search(model.encode_query(list(queries.values())), 10)
    ranked = {query: [(hit.id, hit.score) for hit in found] for query, found in zip(queries, hits, strict=True)}
    mean = evaluate(ranked, judgments, ["nDCG@10"]).mean()["nDCG@10"]
    assert 0 < mean < 1
    assert run["toy_dot_ndcg@10"] == pytest.approx(mean, abs=1e-6)
    assert run["toy_corpus_active_dims"] == pytest.approx(vectors.nnz / len(vectors))


def test_its_training_loop_changes_the_weights_and_goes_on_from_a_checkpoint(tmp_path):
    datasets = pytest.importorskip("datasets")
    pytest.importorskip("accelerate")
    from sentence_transformers.sparse_encoder import SparseEncoderTrainer, SparseEncoderTrainingArguments, losses

    model = copy.deepcopy(tiny_milco())
    found = sparse_encoder(model)
    rows = {"query": TEXTS[:8], "positive": TEXTS[4:12], "negative": [text * 20 for text in TEXTS[:8]]}
    loss = losses.SpladeLoss(
        found,
        losses.SparseMultipleNegativesRankingLoss(found),
        document_regularizer_weight=1e-4,
        query_regularizer_weight=1e-4,
    )
    trainer = SparseEncoderTrainer(
        model=found,
        args=SparseEncoderTrainingArguments(
            output_dir=str(tmp_path / "run"),
            max_steps=3,
            save_steps=2,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=datasets.Dataset.from_dict(rows),
        loss=loss,
    )
    before = {name: each.clone() for name, each in model.state_dict().items()}
    trainer.train()
    moved = {name for name, each in model.state_dict().items() if not torch.equal(each, before[name])}
    assert {"connector.linear.weight", "pivot_head.decoder.bias", "source_head.scale"} <= moved
    trainer.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert SparseModel.from_pretrained(tmp_path / "run" / "checkpoint-3").weights_id == model.weights_id
