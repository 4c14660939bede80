import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylex.errors import BadVectors, VocabMismatch
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

VOCAB = Vocab(["music", "city", "song"], ["<s>", "▁陌", "直"])


def vectors(*rows: dict[str, float]) -> SparseVectors:
    return SparseVectors.from_dicts(rows, VOCAB)


def test_from_dicts_sorts_terms_and_keeps_one_row_for_each_mapping():
    made = vectors({"m_直": 0.5, "e_music": 2.0}, {}, {"e_song": 1.0})
    assert made.indptr.tolist() == [0, 2, 2, 3]
    assert made.terms.tolist() == [0, 5, 2]  # music 0, 直 is the third source term: 3 + 2
    assert made.weights.tolist() == [2.0, 0.5, 1.0]


def test_decode_gives_the_heaviest_names_first_and_ties_by_id():
    made = vectors({"e_music": 1.0, "e_city": 3.0, "m_▁陌": 1.0})
    assert made.decode(VOCAB) == [[("e_city", 3.0), ("e_music", 1.0), ("m_▁陌", 1.0)]]
    assert made.decode(VOCAB, top_k=1) == [[("e_city", 3.0)]]


def test_dot_is_the_inner_product_over_both_views():
    queries = vectors({"e_music": 2.0, "m_直": 3.0})
    documents = vectors({"e_music": 0.5, "m_直": 2.0}, {"e_city": 9.0}, {})
    assert queries.dot(documents).tolist() == [[7.0, 0.0, 0.0]]  # 2 x 0.5 + 3 x 2


def test_take_repeats_and_reorders_rows():
    made = vectors({"e_music": 1.0}, {"e_city": 2.0}).take([1, 0, 1])
    assert made.terms.tolist() == [1, 0, 1]
    assert len(made) == 3


def test_concat_puts_rows_after_one_another_and_keeps_empty_ones():
    joined = SparseVectors.concat([vectors({"e_music": 1.0}), vectors({}, {"e_city": 2.0, "e_song": 1.0})])
    assert joined.indptr.tolist() == [0, 1, 1, 3]


def test_two_vocabularies_never_meet():
    other = Vocab(["music", "city", "tune"], ["<s>", "▁陌", "直"])
    foreign = SparseVectors.from_dicts([{"e_tune": 1.0}], other)
    with pytest.raises(VocabMismatch, match="mean different words"):
        vectors({"e_song": 1.0}).dot(foreign)
    with pytest.raises(VocabMismatch):
        SparseVectors.concat([vectors({"e_song": 1.0}), foreign])
    with pytest.raises(VocabMismatch):
        foreign.decode(VOCAB)


@pytest.mark.parametrize(
    ("indptr", "terms", "weights", "message"),
    [
        ([0, 2], [1, 1], [1.0, 1.0], "row 0: term ids must strictly increase"),
        ([0, 1, 3], [4, 2, 1], [1.0, 1.0, 1.0], "row 1: term ids must strictly increase"),
        ([0, 1], [1], [float("nan")], "row 0: weight nan of term 1"),
        ([0, 0, 1], [7], [0.0], "row 1: weight 0.0 of term 7"),
        ([0, 1], [1], [-1.0], "must be finite and > 0"),
        ([0, 1], [1], [float("inf")], "must be finite and > 0"),
        ([0, 2], [1], [1.0], "indptr must start at 0"),
        ([1, 1], [1], [1.0], "indptr must start at 0"),
        ([0, 2, 1], [1], [1.0], "indptr must start at 0"),
        ([], [], [], "indptr must start at 0"),
        ([0, 1], [1], [1.0, 2.0], "2 weights for 1 terms"),
        ([0, 1], [-1], [1.0], r"term ids must lie in \[0, 2\*\*32\), got -1..-1"),
        ([0, 1], [2**32], [1.0], "term ids must lie in"),
        ([0, 1], [1.5], [1.0], "terms must hold integers"),
        ([[0, 1]], [1], [1.0], "indptr must have one dimension"),
    ],
)
def test_arrays_that_break_the_contract_are_refused(indptr, terms, weights, message):
    with pytest.raises(BadVectors, match=message):
        SparseVectors(np.array(indptr), np.array(terms), np.array(weights), "v")


def test_a_row_may_start_below_the_end_of_the_row_before():
    made = SparseVectors(np.array([0, 2, 2, 3]), np.array([4, 9, 1]), np.ones(3), "v")
    assert made.row(2)[0].tolist() == [1]
    assert made.row(-1)[0].tolist() == [1]
    with pytest.raises(IndexError):
        made.row(3)


def test_an_unknown_term_name_is_refused_with_the_prefixes_in_the_message():
    with pytest.raises(BadVectors, match=r"'music'.*start with 'e_'"):
        vectors({"music": 1.0})


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([VOCAB.name(i) for i in range(6)]), st.floats(0.0078125, 100, width=32), max_size=6
        ),
        min_size=1,
        max_size=8,
    )
)
def test_dicts_survive_the_round_trip(rows):
    decoded = SparseVectors.from_dicts(rows, VOCAB).decode(VOCAB)
    assert [dict(row) for row in decoded] == rows


def test_vocab_names_and_ids_are_inverse_and_views_split_at_the_pivot_size():
    assert [VOCAB.id(VOCAB.name(i)) for i in range(6)] == list(range(6))
    assert [VOCAB.view(i) for i in (0, 2, 3, 5)] == ["pivot", "pivot", "source", "source"]
    assert VOCAB.names([0, 4]) == ["e_music", "m_▁陌"]
    with pytest.raises(BadVectors, match=r"term id 6 is not in \[0, 6\)"):
        VOCAB.name(6)


def test_the_fingerprint_depends_on_names_order_and_the_border_between_views():
    same = Vocab(["music", "city", "song"], ["<s>", "▁陌", "直"])
    assert same == VOCAB
    assert same.fingerprint == VOCAB.fingerprint
    others = [
        Vocab(["city", "music", "song"], ["<s>", "▁陌", "直"]),
        Vocab(["music", "city"], ["song", "<s>", "▁陌", "直"]),
        Vocab(["music", "city", "song"], ["<s>", "▁陌"]),
    ]
    assert len({v.fingerprint for v in [VOCAB, *others]}) == 4


def test_a_vocabulary_with_a_repeated_name_is_refused():
    with pytest.raises(BadVectors, match="source view names a term twice"):
        Vocab(["a"], ["b", "b"])
