import numpy as np
import pytest

from polylex.errors import BadInput, VocabMismatch
from polylex.explanation import best_tokens, explain, word_around
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

VOCAB = Vocab(["marry", "age", "law"], ["Ehe", "the"])


class PointingReader:
    """Looks words up in a table, so that the expected spans are obvious."""

    def __init__(self):
        self.vocab = VOCAB
        self.words = {("query", 0): "heiraten", ("query", 1): "alt", ("document", 0): "mariage"}

    def term_spans(self, text, terms, *, kind):
        found = {}
        for term in terms:
            word = self.words.get((kind, term))
            start = text.find(word) if word else -1
            found[term] = [(start, start + 3)] if start >= 0 else []  # three letters: a piece of the word
        return found


def pair(text: str, **weights: float) -> tuple[str, SparseVectors]:
    return text, SparseVectors.from_dicts([weights], VOCAB)


QUERY = pair("Wie alt zum heiraten?", e_marry=2.0, e_age=1.0, e_law=0.5)
DOCUMENT = pair("le mariage", e_marry=1.5, e_age=2.0, m_Ehe=1.0)


def test_an_explanation_lists_shared_terms_by_product_and_sums_to_the_score():
    why = explain(PointingReader(), QUERY, DOCUMENT, document_id="fr-16")
    assert [(m.term, m.query_weight, m.document_weight, m.product) for m in why.matches] == [
        ("e_marry", 2.0, 1.5, 3.0),
        ("e_age", 1.0, 2.0, 2.0),
    ]
    assert why.score == 5.0
    assert [m.share for m in why.matches] == [0.6, 0.4]
    assert why.document_id == "fr-16"


def test_each_match_points_at_whole_words_on_both_sides():
    marry, age = explain(PointingReader(), QUERY, DOCUMENT).matches
    assert [(s.start, s.end, s.text) for s in marry.query_words] == [(12, 20, "heiraten")]
    assert [(s.start, s.end, s.text) for s in marry.document_words] == [(3, 10, "mariage")]
    assert age.document_words == ()  # no single word says it


def test_a_limit_shortens_the_list_but_not_the_score():
    why = explain(PointingReader(), QUERY, DOCUMENT, limit=1)
    assert len(why.matches) == 1
    assert why.score == 5.0


def test_texts_that_share_nothing_have_score_zero_and_no_match():
    why = explain(PointingReader(), pair("a", e_law=1.0), DOCUMENT)
    assert (why.score, why.matches) == (0.0, ())


def test_to_dict_is_plain_data():
    table = explain(PointingReader(), QUERY, DOCUMENT).to_dict()
    assert table["matches"][0]["query_words"] == ({"start": 12, "end": 20, "text": "heiraten"},)


def test_vectors_of_another_model_or_several_rows_are_refused():
    foreign = SparseVectors.from_dicts([{"e_marry": 1.0}], Vocab(["marry"], []))
    with pytest.raises(VocabMismatch):
        explain(PointingReader(), QUERY, ("x", foreign))
    with pytest.raises(BadInput, match="one row on each side, got 1 and 2"):
        explain(PointingReader(), QUERY, ("x", SparseVectors.empty(VOCAB.fingerprint, rows=2)))


@pytest.mark.parametrize(
    ("text", "piece", "word"),
    [
        ("Die Menschenrechte gelten.", (8, 14), "Menschenrechte"),
        ("Die Menschenrechte gelten.", (3, 8), "Menschenrechte"),  # a token that starts with the space before
        ("l'État, c'est", (2, 4), "l'État"),
        ("結婚する権利", (0, 2), "結婚"),  # no spaces: the token is the word
        ("การสมรส", (0, 3), "การ"),
        ("ที่", (0, 1), "ที"),  # a vowel sign stays with its consonant
        ("विवाह करने", (0, 2), "विवाह"),
        ("می\u200cخواهم خانه", (0, 2), "می\u200cخواهم"),
        ("a  b", (1, 3), ""),  # nothing but space
        ("2,5 km", (0, 1), "2"),
    ],
)
def test_a_piece_grows_to_its_word(text, piece, word):
    start, end = word_around(text, *piece)
    assert text[start:end] == word


def test_the_best_token_is_the_first_maximum_over_all_windows():
    first = np.array([[1.0, 5.0], [3.0, 5.0]], np.float32)
    second = np.array([[3.0, 6.0]], np.float32)
    assert best_tokens([first, second]) == [(0, 1), (1, 0)]
