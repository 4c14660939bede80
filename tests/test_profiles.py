from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylex.errors import BadInput, BadVectors, Unfit
from polylex.fit import Fit
from polylex.names import TermNames, escape, unescape
from polylex.profiles import PROFILES, Profile, profile
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

VOCAB = Vocab([f"p{number}" for number in range(40_000)], ["s.a", "s%b", "s c", "x" * 120])
SOURCE = 40_000  # id of "m_s.a"


def vectors(*rows: dict[int, float]) -> SparseVectors:
    pairs = [(np.array(sorted(row), "u4"), np.array([row[term] for term in sorted(row)], "f4")) for row in rows]
    return SparseVectors.from_rows(pairs, VOCAB.fingerprint)


def fit(name: str, *rows: dict[int, float], ids=None, **options) -> Fit:
    found = Fit(PROFILES[name], VOCAB, **options)
    found.add(ids or [f"d{row}" for row in range(len(rows))], vectors(*rows))
    return found


def kinds(found: Fit) -> list[str]:
    return [finding.kind for finding in found.findings if finding.kind != "pruned"]


def test_every_limit_of_a_profile_says_where_it_was_read():
    usual = {field.name: field.default for field in fields(Profile)}
    for each in PROFILES.values():
        limits = {name for name in usual if getattr(each, name) != usual[name]} - {"name", "terms", "sources"}
        assert limits == set(each.sources), each.name


def test_an_unknown_profile_is_refused_with_the_nearest_name():
    with pytest.raises(BadInput, match="did you mean 'elasticsearch'"):
        profile("elasticsearh")


def test_lucene_keeps_nine_significant_bits_and_cuts_the_rest_off():
    weights = np.array([1.0, 1.5, 1 + 2**-8, 1 + 2**-9, 1.2345678, 0.1], "f4")
    kept = PROFILES["elasticsearch"].rounded(weights).tolist()
    assert kept[:4] == [1.0, 1.5, 1 + 2**-8, 1.0]  # in binary 1.00000001 has nine digits, 1.000000001 has ten
    assert kept[4] == 1 + 60 / 256  # 0.2345678 * 256 = 60.05
    assert kept[5] == 409 / 4096  # 0.1 = 1.6 / 16, and 0.6 * 256 = 153.6: (256 + 153) / 256 / 16


def test_anserini_rounds_to_hundredths_and_loses_what_is_below_half_of_one():
    kept = PROFILES["anserini"].rounded(np.array([1.234, 0.006, 0.004], "f4")).tolist()
    assert kept == pytest.approx([1.23, 0.01, 0])


def test_one_byte_has_255_steps_up_to_the_ceiling():
    kept = PROFILES["opensearch-sparse"].rounded(np.array([9.0, 3.0, 1.0, 0.005], "f4")).tolist()
    assert kept == pytest.approx([3.0, 3.0, 85 * 3 / 255, 0])  # 0.005 is 0.425 of a step


@given(st.lists(st.floats(2**-100, 2**100, width=32), min_size=1))
def test_no_profile_makes_a_weight_worse_than_it_says(weights):
    given_weights = np.array(weights, "f4")
    assert PROFILES["qdrant"].rounded(given_weights).tolist() == given_weights.tolist()
    kept = PROFILES["opensearch"].rounded(given_weights).astype("f8")
    assert ((kept <= given_weights) & (kept > given_weights * (1 - 2**-8))).all()


def test_ids_beyond_the_dimensions_are_folded_onto_others_and_that_is_harmful():
    found = fit("opensearch-sparse", {5: 1.0, 32_768 + 5: 1.0}, {32_768 + 9: 2.0})
    assert not found.fits
    first = found.findings[0]
    assert (first.kind, first.count, first.examples) == ("folded", 2, ("e_p32773", "e_p32777"))
    assert "1 others are hit" in first.text and "--map" in first.advice
    with pytest.raises(Unfit, match="modulo 32,768"):
        found.require()


def test_ids_below_the_dimensions_are_not_folded():
    assert fit("opensearch-sparse", {32_767: 0.0 + 3.0}).fits


def test_documents_with_too_many_terms_are_refused_by_name():
    row = {term: 1.0 for term in range(1001)}
    assert fit("pgvector", row).fits
    found = fit("pgvector-hnsw", {1: 1.0}, row)
    assert [(f.kind, f.count, f.examples) for f in found.findings] == [("refused", 1, ("d1",))]
    assert fit("opensearch", row).fits and fit("opensearch", row, queries=True).fits
    assert not fit("opensearch", {term: 1.0 for term in range(1025)}, queries=True).fits


def test_long_ids_and_long_names_are_refused():
    assert not fit("elasticsearch", {1: 1.0}, ids=["é" * 257]).fits  # 514 bytes
    assert fit("elasticsearch", {1: 1.0}, ids=["é" * 256]).fits
    assert [f.kind for f in fit("seismic", {SOURCE + 3: 1.0}).findings] == ["refused"]


def test_dots_are_renamed_weights_are_rounded_and_both_are_told():
    found = fit("opensearch", {SOURCE: 0.1, 1: 1.0})
    assert found.fits and kinds(found) == ["renamed", "rounded"]
    assert found.findings[0].examples == ("m_s.a as m_s%2Ea",)
    assert found.findings[1].count == 1


def test_weights_that_are_cut_or_lost_are_counted():
    found = fit("opensearch-sparse", {1: 4.0, 2: 0.001, 3: 3.0})
    assert {f.kind: f.count for f in found.findings if f.kind in ("cut", "lost")} == {"cut": 1, "lost": 1}


def test_an_exact_engine_finds_nothing():
    assert fit("milvus", {1: 0.1, SOURCE: 7.0}).findings == []


def test_names_need_a_vocabulary():
    with pytest.raises(BadVectors, match="calls terms by name"):
        Fit(PROFILES["anserini"], None)


@given(st.text(), st.text(max_size=4))
def test_escaped_names_come_back_and_have_no_forbidden_character(name, forbids):
    forbids = "".join(sign for sign in forbids if sign not in "%0123456789ABCDEF")
    try:
        name.encode()
    except UnicodeEncodeError:
        return
    escaped = escape(name, forbids)
    assert unescape(escaped) == name
    assert not set(escaped) & set(forbids)


def test_names_are_those_of_the_vocabulary_there_and_back():
    names = TermNames(VOCAB, forbids=". ")
    assert names.of(np.array([7, SOURCE, SOURCE + 1, SOURCE + 2], "u4")) == ["e_p7", "m_s%2Ea", "m_s%25b", "m_s%20c"]
    assert [names.id(name) for name in names.all[-4:]] == [SOURCE, SOURCE + 1, SOURCE + 2, SOURCE + 3]
    with pytest.raises(BadVectors, match="no term"):
        names.id("e_nothing")
    with pytest.raises(BadVectors, match="no UTF-8"):
        names.id("e_%FF")
