import numpy as np
import pytest

import polylex
from polylex.errors import BadInput, DocumentNotFound, DuplicateId, IndexExists, ModelMismatch, VocabMismatch
from polylex.index import Index
from polylex.prune import Pruning
from polylex.retriever import CHUNK, Progress, Retriever
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

DOCUMENTS = [
    {"id": "de", "text": "Männer und Frauen haben das Recht zu heiraten und eine Familie zu gründen."},
    {"id": "fr", "text": "Toute personne a droit à l'éducation. L'éducation doit être gratuite.", "year": 1948},
    {"id": "es", "title": "Trabajo", "text": "Toda persona tiene derecho al trabajo y a un salario igual."},
]


class WordEncoder:
    """Counts words: term i is word i of the vocabulary. What it should find is plain to see."""

    name, weights_id = "words", "w1"

    def __init__(self):
        self.vocab = Vocab(["cat", "dog", "bird"], [])
        self.calls = 0

    def encode(self, texts, *, kind="document"):
        self.calls += len(texts)
        rows = []
        for text in texts:
            words = text.lower().split()
            rows.append({f"e_{w}": float(words.count(w)) for w in self.vocab.pivot if w in words})
        return SparseVectors.from_dicts(rows, self.vocab)


@pytest.fixture
def words():
    return WordEncoder()


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    with Retriever.build(tmp_path_factory.mktemp("index") / "index", DOCUMENTS) as built:
        yield built


def test_a_query_in_one_language_finds_the_document_in_another(retriever):
    assert retriever.search("Who may marry?")[0].id == "de"
    assert retriever.search("Is school free of charge?", k=1)[0].fields["year"] == 1948
    assert [hits[0].id for hits in retriever.search_batch(["right to education", "equal pay for work"])] == ["fr", "es"]


def test_an_explanation_adds_up_to_the_score_of_the_hit(retriever):
    query = "Who may marry?"
    hit = retriever.search(query)[0]
    why = retriever.explain(query, hit.id)
    assert why.score == pytest.approx(hit.score, rel=1e-6)
    assert sum(match.product for match in why.matches) == pytest.approx(why.score)
    assert {"heiraten", "Familie"} & {word.text for match in why.matches[:3] for word in match.document_words}
    assert "marry" in {word.text for match in why.matches[:3] for word in match.query_words}


def test_an_explanation_speaks_of_the_text_that_was_encoded_title_included(retriever):
    why = retriever.explain("Arbeit", "es")
    assert why.document.startswith("Trabajo Toda persona")
    for match in why.matches:
        assert all(why.document[w.start : w.end] == w.text for w in match.document_words)


def test_an_unknown_document_cannot_be_explained(retriever):
    with pytest.raises(DocumentNotFound, match="nobody"):
        retriever.explain("a", "nobody")


def test_the_index_knows_its_model(retriever):
    with Retriever.open(retriever.index.path) as again:
        assert again.encoder.name == "polylex-mini"
        assert again.search("Who may marry?")[0].id == "de"


def test_any_object_that_encodes_is_an_encoder(words, tmp_path):
    documents = [{"id": "1", "text": "dog dog"}, {"id": "2", "text": "cat dog"}, {"id": "3", "text": "bird"}]
    with Retriever.build(tmp_path / "index", documents, words) as built:
        assert [(hit.id, hit.score) for hit in built.search("Dog")] == [("1", 2.0), ("2", 1.0)]
        with pytest.raises(BadInput, match="WordEncoder has no term_spans"):
            built.explain("dog", "1")


def test_documents_are_pruned_as_asked(words, tmp_path):
    documents = [{"id": "1", "text": "dog dog cat"}]
    with Retriever.build(tmp_path / "index", documents, words, prune=Pruning(top_k=1)) as built:
        assert built.search("cat") == []
        assert built.index.info().settings["pruning"].startswith("Pruning(top_k=1")


def test_an_interrupted_build_goes_on_where_it_stopped(words, tmp_path):
    documents = [{"id": str(n), "text": "dog" if n % 2 else "cat"} for n in range(3 * CHUNK + 7)]

    def failing():
        yield from documents[: 2 * CHUNK + 5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Retriever.build(tmp_path / "index", failing(), words)
    assert not (tmp_path / "index").exists()
    assert words.calls == 2 * CHUNK
    seen: list[Progress] = []
    with Retriever.build(tmp_path / "index", documents, words, on_progress=seen.append) as built:
        assert len(built.index) == len(documents)
        assert seen[:2] == [Progress(2 * CHUNK, resumed=2 * CHUNK), Progress(3 * CHUNK, resumed=2 * CHUNK)]
        assert words.calls == len(documents)  # nothing was encoded twice
        rows, _ = built.index.top(words.encode(["cat"]), k=len(documents))
        assert np.array_equal(rows[0][rows[0] >= 0], np.arange(0, len(documents), 2))


def test_an_interrupted_build_refuses_to_go_on_with_another_input(words, tmp_path):
    def failing():
        yield from ({"id": str(n), "text": "dog"} for n in range(CHUNK))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Retriever.build(tmp_path / "index", failing(), words)
    other = ({"id": f"x{n}", "text": "cat"} for n in range(CHUNK + 1))
    with pytest.raises(BadInput, match=f"stopped after document '{CHUNK - 1}', the input now has 'x{CHUNK - 1}' there"):
        Retriever.build(tmp_path / "index", other, words)


def test_an_index_is_never_overwritten_unasked_and_stays_when_the_new_build_fails(words, tmp_path):
    Retriever.build(tmp_path / "index", [{"id": "old", "text": "dog"}], words).close()
    with pytest.raises(IndexExists):
        Retriever.build(tmp_path / "index", [{"id": "new", "text": "dog"}], words)
    twice = [{"id": "new", "text": "dog"}, {"id": "new", "text": "cat"}]
    with pytest.raises(DuplicateId, match="new"):
        Retriever.build(tmp_path / "index", twice, words, overwrite=True)
    with Retriever.open(tmp_path / "index", words) as kept:
        assert kept.search("dog")[0].id == "old"


@pytest.mark.parametrize("document", [{"id": "1"}, {"text": "dog"}, {"id": "1", "text": "  "}, "dog"])
def test_a_document_that_cannot_be_used_stops_the_build_and_leaves_nothing(words, tmp_path, document):
    with pytest.raises(BadInput):
        Retriever.build(tmp_path / "index", [{"id": "0", "text": "cat"}, document], words)
    assert not (tmp_path / "index").exists()


def test_a_query_model_with_other_terms_or_other_weights_is_refused(words, tmp_path):
    Retriever.build(tmp_path / "index", [{"id": "1", "text": "dog"}], words).close()
    other = WordEncoder()
    other.weights_id = "w2"
    with pytest.raises(ModelMismatch, match=r"was made with words \(w1\), the query model is words \(w2\)"):
        Retriever.open(tmp_path / "index", other)
    other.vocab = Vocab(["cat", "dog", "fish"], [])
    with pytest.raises(VocabMismatch):
        Retriever.open(tmp_path / "index", other)


def test_a_blank_query_finds_nothing(retriever):
    assert retriever.search("   ") == []


def test_opening_and_searching_never_imports_torch(retriever):
    import subprocess
    import sys

    code = (
        "import sys, polylex\n"
        f"with polylex.Retriever.open({str(retriever.index.path)!r}) as opened:\n"
        "    opened.explain('marry', opened.search('marry')[0].id)\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_building_an_empty_collection_gives_an_empty_index(words, tmp_path):
    with Retriever.build(tmp_path / "index", [], words) as built:
        assert built.search("dog") == []
    assert len(Index.open(tmp_path / "index")) == 0


def test_the_package_docstring_tells_the_truth(tmp_path):
    with polylex.Retriever.build(tmp_path / "my-index", DOCUMENTS) as built:
        assert [hit.fields["text"] for hit in built.search("¿Quién puede casarse?", k=1)] == [DOCUMENTS[0]["text"]]
