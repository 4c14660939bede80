"""A Polylex model inside MTEB: polylex.interop.mteb. Local data only; the hub is never asked."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mteb", minversion="2")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta"),
]

import mteb  # noqa: E402
import numpy as np  # noqa: E402
from mteb.models import SearchEncoderWrapper  # noqa: E402
from mteb.models.models_protocols import EncoderProtocol, SearchProtocol  # noqa: E402
from tiny_milco import TEXTS, tiny_milco  # noqa: E402

from polylex.collection import Collection  # noqa: E402
from polylex.errors import BadInput  # noqa: E402
from polylex.evaluation import evaluate  # noqa: E402
from polylex.interop.mteb import (  # noqa: E402
    InvertedIndex,
    PolylexModel,
    local_task,
    model_meta,
    release_meta,
    search_model,
)
from polylex.interop.sentence_transformers import sparse_encoder  # noqa: E402
from polylex.systems import Sparse  # noqa: E402
from polylex.trec import Query  # noqa: E402


@pytest.fixture
def collection():
    texts = tuple(text for text in TEXTS if text.strip() == text)  # MTEB strips its texts
    names = tuple(f"d{row}" for row in range(len(texts)))
    queries = tuple(Query(f"q{row}", text) for row, text in enumerate(texts[:6]))
    judgments = {f"q{row}": {names[(5 * row + 1) % 8]: 1, names[(3 * row + 2) % 8]: 2} for row in range(5)}
    return Collection("toy", names, texts, ("",) * len(texts), queries, judgments)


def ndcg(model, task):
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]["ndcg_at_10"]


def test_mteb_s_own_evaluation_gives_our_ndcg(collection):
    outcome = Sparse(tiny_milco()).search(collection, 100)
    ours = evaluate(outcome.run, collection.judgments, ["nDCG@10"]).mean()["nDCG@10"]
    assert 0.1 < ours < 0.9
    assert ndcg(search_model(tiny_milco()), local_task(collection)) == pytest.approx(ours, abs=1e-5)


def test_the_index_serves_any_sparse_encoder(collection):
    wrapped = mteb.models.SparseEncoderWrapper(sparse_encoder(tiny_milco()))
    plain = ndcg(wrapped, local_task(collection))
    assert ndcg(SearchEncoderWrapper(wrapped, index_backend=InvertedIndex()), local_task(collection)) == plain


def sparse(rows):
    return torch.tensor(rows, dtype=torch.float32).to_sparse()


def test_hits_are_inner_products_best_first_and_only_where_a_term_is_shared():
    index = InvertedIndex()
    index.add_documents(sparse([[1, 0, 2, 0], [0, 0, 1, 0]]), ["a", "b"])
    index.add_documents(sparse([[0, 3, 0, 0], [0, 0, 0, 0]]), ["c", "d"])
    # 2*1 + 1*2 = 4 and 1*1; 3*.5 beside; no term but that of nobody
    queries = sparse([[2, 0, 1, 0], [0, 0.5, 0, 0], [0, 0, 0, 9]])
    assert index.search(queries, 10) == ([[4.0, 1.0], [1.5], []], [[0, 1], [2], []])
    assert index.search(queries, 1) == ([[4.0], [1.5], []], [[0], [2], []])


def test_reranking_ranks_the_candidates_only_and_counts_places_in_their_list():
    index = InvertedIndex()
    index.add_documents(sparse([[1, 0], [2, 0], [3, 3]]), ["a", "b", "c"])
    scores, places = index.search(
        sparse([[1, 0], [0, 1]]), 2, top_ranked={"q": ["c", "a", "b"], "r": ["a"]}, query_idx_to_id={0: "q", 1: "r"}
    )
    assert (scores, places) == ([[3.0, 2.0], [0.0]], [[0, 2], [0]])


def test_dense_vectors_are_refused_on_every_way_in():
    index = InvertedIndex()
    with pytest.raises(BadInput, match="expected a sparse COO tensor, got dense vectors"):
        index.add_documents(torch.ones(2, 3), ["a", "b"])
    with pytest.raises(BadInput, match=r"a weight is -1\.0"):
        index.add_documents(sparse([[1, -1]]), ["a"])
    with pytest.raises(BadInput, match="the index is empty"):
        index.search(sparse([[1.0]]), 1)
    model = PolylexModel(tiny_milco(), model_meta(tiny_milco()))
    with pytest.raises(BadInput, match="got dense vectors"):
        model.similarity(torch.ones(1, 3), torch.ones(1, 3))


def test_a_task_that_compares_dense_vectors_is_refused():
    model = search_model(tiny_milco())
    task = mteb.get_task("STSBenchmark")
    with pytest.raises(BadInput, match="STSBenchmark is a STS task, which compares dense vectors"):
        model.encode([{"text": TEXTS}], task_metadata=task.metadata, hf_split="test", hf_subset="default")


def test_similarity_is_the_inner_product():
    model = PolylexModel(tiny_milco(), model_meta(tiny_milco()))
    assert isinstance(model, EncoderProtocol) and isinstance(search_model(tiny_milco()), SearchProtocol)
    task = mteb.get_task("SciFact").metadata
    vectors = model.encode([{"text": TEXTS[:4]}, {"text": TEXTS[4:6]}], task_metadata=task)
    wanted = tiny_milco().encode(TEXTS[:6])
    np.testing.assert_allclose(model.similarity(vectors, vectors).numpy(), wanted.dot(wanted), rtol=1e-5)
    np.testing.assert_allclose(
        model.similarity_pairwise(vectors, vectors).numpy(), wanted.dot(wanted).diagonal(), rtol=1e-5
    )


def test_the_release_model_s_meta_says_what_it_is_and_loads_it():
    meta = release_meta()
    assert (meta.name, meta.model_type, meta.similarity_fn_name) == ("polylex/polylex-mini", ["sparse"], "dot")
    assert meta.license == "apache-2.0" and meta.open_weights and meta.max_tokens == 512
    assert len(meta.revision) == 64 and meta.n_parameters > 10_000_000
    loaded = meta.load_model()
    assert isinstance(loaded, SearchProtocol) and loaded.mteb_model_meta.revision == meta.revision
    with pytest.raises(BadInput, match="encodes on the CPU, got device 'cuda'"):
        meta.load_model(device="cuda")
