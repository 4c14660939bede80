"""What models are measured against: polylex.baselines and polylex.interop.peers."""

import json
import math

import numpy as np
import pytest

from polylex.baselines import Lexical, open_baseline
from polylex.collection import Collection
from polylex.errors import BadInput, BadModel
from polylex.evaluation import evaluate
from polylex.systems import open_system
from polylex.trec import Query

pytest.importorskip("bm25s")


def collection(documents, queries, judgments=None, language=""):
    return Collection(
        "toy",
        tuple(documents),
        tuple(documents.values()),
        (language,) * len(documents),
        tuple(Query(name, text, language) for name, text in queries.items()),
        judgments or {},
    )


CATS = collection({"a": "cat cat dog", "b": "cat", "c": "bird"}, {"q": "cat", "r": "dog bird", "s": "fish"})


def test_bm25_of_a_hand_worked_collection():
    outcome = Lexical().search(CATS, 10)
    mean = 5 / 3  # words a document; k1 0.9, b 0.4
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    cat = {
        name: idf * count / (count + 0.9 * (0.6 + 0.4 * length / mean))
        for name, count, length in [("a", 2, 3), ("b", 1, 1)]
    }
    assert outcome.run["q"] == [("a", pytest.approx(cat["a"])), ("b", pytest.approx(cat["b"]))]
    assert [name for name, _ in outcome.run["r"]] == ["c", "a"]  # the rarest words; "c" is the shorter text
    assert outcome.run["s"] == []
    assert (outcome.document_terms, outcome.query_terms) == (pytest.approx(4 / 3), pytest.approx(4 / 3))
    assert outcome.index_bytes > 0


def test_bm25_stems_in_the_language_of_each_text():
    pytest.importorskip("Stemmer")
    german = collection({"a": "Die Häuser", "b": "Das Haus", "c": "Ein Hund"}, {"q": "Hauses"}, language="de")
    assert {name for name, _ in Lexical().search(german, 10).run["q"]} == {"a", "b"}


# The known answers on whole collections are in benchmarks/known_answers.py. This is of their kind, small enough to be
# checked by hand: LIMIT (arXiv:2508.21038) asks who likes something, of people with lists of likes; two share each.
LIKES = {
    "Olinda": "Olinda likes quokkas, apples and chess.",
    "Bram": "Bram likes chess, rain and fjords.",
    "Ines": "Ines likes fjords, apples and maps.",
    "Otto": "Otto likes maps, rain and quokkas.",
}
ASKED = ["chess", "apples", "fjords", "maps", "rain", "quokkas"]


def test_bm25_answers_limit_where_a_single_vector_is_short_of_dimensions():
    asked = {thing: f"Who likes {thing}?" for thing in ASKED}
    judged = {thing: {name: 1 for name, text in LIKES.items() if thing in text} for thing in ASKED}
    limit = collection(LIKES, asked, judged, "en")
    assert all(len(found) == 2 for found in judged.values())
    run = Lexical().search(limit, 10).run
    assert evaluate(run, judged, ["R@2", "AP"]).mean() == {"R@2": 1.0, "AP": 1.0}


def test_words_stand_for_baselines(tmp_path):
    system = open_system("lexical=bm25")
    assert isinstance(system, Lexical) and system.name == "lexical"
    assert open_baseline("bm25").name == "bm25"
    assert open_baseline("polylex-mini") is None
    with pytest.raises(BadInput, match="no-such is no folder; a peer is measured from a local folder"):
        open_baseline("dense:no-such")


# -- models of sentence-transformers -----------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A dense and a sparse model of the same few words."""
    pytest.importorskip("torch")
    pytest.importorskip("sentence_transformers", minversion="6")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    root = tmp_path_factory.mktemp("peers")
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0, "cat": 1, "dog": 2, "bird": 3, "ask": 4}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(root / "tokenizer.json"))
    weights = np.array([[1, 1, 1], [3, 1, 1], [1, 2, 1], [1, 1, 4], [-5, 1, 1]], np.float32)
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)]).save(str(root / "dense"))
    return root


def test_dense_ranks_every_document_by_cosine(folders):
    from polylex.interop.peers import Dense

    outcome = Dense(folders / "dense").search(CATS, 2)
    # cat is (3, 1, 1) and dog (1, 2, 1); "cat cat dog" is their mean, thrice it (7, 4, 3)
    a, q = np.array([7, 4, 3]) / math.sqrt(74), np.array([3, 1, 1]) / math.sqrt(11)
    assert outcome.run["q"] == [("b", pytest.approx(1, abs=1e-6)), ("a", pytest.approx(float(q @ a), abs=1e-6))]
    assert outcome.document_terms is None and outcome.index_bytes == 3 * 3 * 4
    assert len(outcome.run["s"]) == 2  # everything has a place, whatever it says


def test_a_prompt_stands_before_queries_only(folders):
    plain = open_system(f"dense:{folders / 'dense'}").search(CATS, 3).run["q"]
    asked = open_system(f"mine=dense:{folders / 'dense'}+query=ask ").search(CATS, 3).run["q"]
    # "ask cat" is the mean of (-5, 1, 1) and (3, 1, 1), (-1, 1, 1): 0 to "cat cat dog", -1 to cat, 4 to bird (1, 1, 4)
    assert plain[0][0] == "b" and asked[0][0] == "c"


def test_vectors_are_kept_for_the_next_run(folders, tmp_path):
    spec = f"dense:{folders / 'dense'}"
    first, second = (open_system(spec, cache=tmp_path / "cache").search(CATS, 3) for _ in range(2))
    assert (first.encoded, second.encoded, first.run == second.run) == (6, 0, True)


def sparse_folder(path, **files):
    path.mkdir()
    for name, table in files.items():
        (path / f"{name}.json").write_text(json.dumps(table))
    return path


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"config": {"format": "polylex-model"}}, "a Polylex model"),
        ({"config": {"architectures": ["BertForMaskedLM"]}}, "a masked language model, as SPLADE models are saved"),
        ({"config_sentence_transformers": {"model_type": "SparseEncoder"}}, "a SparseEncoder"),
        ({"config_sentence_transformers": {"model_type": "CrossEncoder"}}, "a CrossEncoder"),
        ({"modules": [{"type": "x.Transformer"}, {"type": "x.SpladePooling"}]}, r"a sparse encoder \(SpladePooling\)"),
        (
            {"modules": [{"type": "x.Router"}], "router_config": {"types": {"q": "x.SparseStaticEmbedding"}}},
            r"a sparse encoder \(SparseStaticEmbedding\)",
        ),
    ],
)
def test_a_sparse_model_is_not_scored_as_a_dense_one(folders, tmp_path, files, named):
    folder = sparse_folder(tmp_path / "model", **files)
    with pytest.raises(BadModel, match=f"holds {named}, not a dense bi-encoder"):
        open_system(f"dense:{folder}")


def test_vectors_that_are_mostly_zero_are_refused_whatever_the_folder_says(folders):
    from polylex.interop.peers import Dense, refuse_sparse

    class Disguised(Dense):
        @property
        def _model(self):
            class Model:
                similarity_fn_name = "dot"

                def encode_query(self, texts, **_):
                    return np.eye(5, dtype=np.float32)[: len(texts)]

                encode_document = encode_query

            return Model()

    with pytest.raises(BadModel, match="zero to 80%: it is sparse"):
        Disguised(folders / "dense").search(CATS, 3)
    refuse_sparse(np.array([[0, 1], [2, 3]], np.float32), "here")


def test_a_folder_that_no_library_can_open_is_named(folders, tmp_path):
    folder = sparse_folder(tmp_path / "model", config={"architectures": ["BertModel"]})
    with pytest.raises(BadModel, match="cannot be opened by sentence-transformers"):
        open_system(f"dense:{folder}").search(CATS, 3)
    with pytest.raises(BadModel, match="cannot be opened as a SparseEncoder"):
        open_system(f"sparse-encoder:{folder}")


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_any_sparse_encoder_is_a_system(folders, tmp_path):
    import torch
    from sentence_transformers import SentenceTransformer, SparseEncoder
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    torch.manual_seed(0)
    body = list(SentenceTransformer(str(folders / "dense"), local_files_only=True))
    model = SparseEncoder(modules=[*body, SparseAutoEncoder(input_dim=3, hidden_dim=12, k=4)])
    model.save(str(tmp_path / "csr"))
    system = open_system(f"sparse-encoder:{tmp_path / 'csr'}")
    run = system.search(CATS, 3).run["q"]
    wanted = model.similarity(model.encode(["cat"]), model.encode(list(CATS.texts)))[0]
    found = dict(run)
    assert found == {
        name: pytest.approx(score, rel=1e-5) for name, score in zip(CATS.ids, wanted.tolist(), strict=True) if score > 0
    }
    assert system.encoder.vocab.name(3) == "e_3"
