"""Queries, judgments and runs on disk, and the collections made of them."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylex.collection import read_beir
from polylex.errors import BadInput, BadRecord, DuplicateRecord
from polylex.trec import Query, read_judgments, read_run, write_judgments, write_run


def put(path, *lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


# -- judgments ---------------------------------------------------------------------------------------


def test_both_layouts_of_qrels_hold_the_same(tmp_path):
    expected = {"q1": {"d1": 1, "d2": 0}, "q2": {"d1": 2}}
    trec = put(tmp_path / "a.qrels", "q1 0 d1 1", "q1 0  d2\t0", "", "q2 Q0 d1 2")
    beir = put(tmp_path / "b.tsv", "query-id\tcorpus-id\tscore", "q1\td1\t1", "q1\td2\t0", "q2\td1\t2")
    plain = put(tmp_path / "c.tsv", "q1\td1\t1", "q1\td2\t0", "q2\td1\t2")
    assert read_judgments(trec) == read_judgments(beir) == read_judgments(plain) == expected


def test_ids_with_spaces_live_in_tab_separated_qrels(tmp_path):
    path = put(tmp_path / "q.tsv", "query-id\tcorpus-id\tscore", "q 1\tdoc one\t1")
    assert read_judgments(path) == {"q 1": {"doc one": 1}}


def test_a_negative_grade_counts_as_not_relevant(tmp_path):
    assert read_judgments(put(tmp_path / "q", "q1 0 d1 -2")) == {"q1": {"d1": 0}}


def test_packed_qrels_read_as_well(tmp_path):
    path = tmp_path / "q.tsv.gz"
    path.write_bytes(gzip.compress(b"q1 0 d1 1\n"))
    assert read_judgments(path) == {"q1": {"d1": 1}}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("q1 0 d2", "4 columns .* this line has 3"),
        ("q1 0 d2 1 x", "4 columns .* this line has 5"),
        ("q1 0 d2 yes", "whole number, got 'yes'"),
        ("q1 0 d2 0.5", "whole number, got '0.5'"),
        ("q1 0 d1 1", "'d1' was judged before for query 'q1'"),
        ("q9 0 d1 1", "no query 'q9'"),
        ("q1 0 d9 1", "no document 'd9'"),
    ],
)
def test_a_judgment_that_cannot_be_used_is_named_by_file_and_line(tmp_path, line, reason):
    path = put(tmp_path / "bad.qrels", "q1 0 d1 1", "", line)
    with pytest.raises(BadRecord, match=rf"bad\.qrels:3: .*{reason}") as caught:
        read_judgments(path, queries={"q1"}, documents={"d1", "d2"})
    assert caught.value.line == 3


def test_six_columns_are_no_qrels(tmp_path):
    with pytest.raises(BadRecord, match=r":1: qrels have 4 columns"):
        read_judgments(put(tmp_path / "q", "q1 Q0 d1 1 0.5 tag"))


def test_a_file_that_is_not_there_or_not_text_says_so(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        read_judgments(tmp_path / "nowhere")
    (tmp_path / "latin").write_bytes(b"q1 0 d1 1\nq\xe9 0 d1 1\n")
    with pytest.raises(BadRecord, match=r"latin:2: invalid UTF-8"):
        read_judgments(tmp_path / "latin")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"".join(b"q1 0 d%d 1\n" % n for n in range(9999)))[:-20])
    with pytest.raises(BadRecord, match="cannot be read"):
        read_judgments(tmp_path / "cut.gz")


# -- runs --------------------------------------------------------------------------------------------


def test_a_run_comes_out_by_score_and_ties_by_rank(tmp_path):
    path = put(
        tmp_path / "a.run",
        "q2 Q0 d5 1 1e-3 t",
        "q1 Q0 d1 3 2.5 t",
        "q1 Q0 d2 2 2.5 t",
        "q1 Q0 d3 1 9 t",
    )
    assert read_run(path) == {"q2": [("d5", 0.001)], "q1": [("d3", 9.0), ("d2", 2.5), ("d1", 2.5)]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("q1 Q0 d2 2 1.0", "6 columns .* this line has 5"),
        ("q1 0 d2 1", "6 columns .* this line has 4"),
        ("q1 Q0 d2 two 1.0 t", "rank must be a whole number, got 'two'"),
        ("q1 Q0 d2 2 high t", "finite number, got 'high'"),
        ("q1 Q0 d2 2 nan t", "finite number, got 'nan'"),
        ("q1 Q0 d2 2 inf t", "finite number, got 'inf'"),
        ("q1 Q0 d1 2 1.0 t", "ranks document 'd1' twice; does the file hold two runs"),
    ],
)
def test_a_line_that_is_no_run_is_named_by_file_and_line(tmp_path, line, reason):
    path = put(tmp_path / "bad.run", "q1 Q0 d1 1 3.0 t", line)
    with pytest.raises(BadRecord, match=rf"bad\.run:2: .*{reason}"):
        read_run(path)


names = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=8).filter(
    lambda name: not any(char.isspace() for char in name) and not name.startswith("﻿")
)
scores = st.floats(allow_nan=False, allow_infinity=False)
rankings = st.dictionaries(names, scores, min_size=1, max_size=6).map(
    lambda found: sorted(found.items(), key=lambda entry: -entry[1])
)


@given(run=st.dictionaries(names, rankings, max_size=4))
def test_a_run_survives_the_way_to_disk_and_back(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("run") / "x.run"
    write_run(path, run)
    assert read_run(path) == run


@given(judgments=st.dictionaries(names, st.dictionaries(names, st.integers(0, 9), min_size=1, max_size=6), max_size=4))
def test_judgments_survive_the_way_to_disk_and_back(tmp_path_factory, judgments):
    path = tmp_path_factory.mktemp("qrels") / "x.qrels"
    write_judgments(path, judgments)
    assert read_judgments(path) == judgments


@given(noise=st.binary(max_size=200))
def test_noise_is_read_or_refused_with_the_line_never_anything_else(tmp_path_factory, noise):
    path = tmp_path_factory.mktemp("noise") / "x"
    path.write_bytes(noise)
    for read in (read_run, read_judgments):
        try:
            read(path)
        except BadRecord as fault:
            assert str(path) in str(fault)


@pytest.mark.parametrize("name", ["", "two words", "tab\there", "wide　space"])
def test_an_id_that_a_trec_file_cannot_hold_leaves_the_old_file_alone(tmp_path, name):
    path = put(tmp_path / "a.run", "old")
    with pytest.raises(BadInput, match="white space"):
        write_run(path, {"q1": [("d1", 2.0), (name, 1.0)]})
    with pytest.raises(BadInput, match="white space"):
        write_run(path, {"q1": [("d1", 2.0)]}, tag=name)
    with pytest.raises(BadInput, match="white space"):
        write_judgments(path, {"q1": {"d1": 1, name: 1}})
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


# -- collections -------------------------------------------------------------------------------------


@pytest.fixture
def beir(tmp_path):
    """Three documents, one of them blank, and three queries of which two are judged."""
    folder = tmp_path / "little"
    (folder / "qrels").mkdir(parents=True)
    put(
        folder / "corpus.jsonl",
        '{"_id": "d1", "title": "Ehe", "text": "Wer darf heiraten?"}',
        '{"_id": "d2", "title": null, "text": "結婚", "lang": "ja"}',
        '{"_id": "d3", "text": ""}',
    )
    put(
        folder / "queries.jsonl",
        '{"_id": "q1", "text": "¿Quién puede casarse?", "lang": "es"}',
        '{"_id": "q2", "text": "who may marry"}',
        '{"_id": "q3", "text": "never judged"}',
    )
    put(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore", "q1\td1\t1", "q2\td3\t1")
    return folder


def test_a_beir_folder_becomes_a_collection(beir):
    collection = read_beir(beir)
    assert collection.name == "little"
    assert collection.ids == ("d1", "d2", "d3")
    assert collection.texts == ("Ehe Wer darf heiraten?", "結婚", "")
    assert collection.languages == ("", "ja", "")
    assert collection.queries[0] == Query("q1", "¿Quién puede casarse?", "es")
    assert collection.query_languages == {"q1": "es", "q2": "", "q3": ""}
    assert collection.judgments == {"q1": {"d1": 1}, "q2": {"d3": 1}}


def test_one_declared_language_speaks_for_records_that_name_none(beir):
    put(beir / "meta.json", json.dumps({"doc_langs": ["de"], "query_langs": ["es", "en"]}))
    collection = read_beir(beir)
    assert collection.languages == ("de", "ja", "de")
    assert collection.query_languages == {"q1": "es", "q2": "", "q3": ""}


def test_a_packed_corpus_reads_as_well(beir):
    plain = read_beir(beir)
    packed = gzip.compress((beir / "corpus.jsonl").read_bytes())
    (beir / "corpus.jsonl").unlink()
    (beir / "corpus.jsonl.gz").write_bytes(packed)
    assert read_beir(beir) == plain


@pytest.mark.parametrize(
    ("file", "line", "reason"),
    [
        ("corpus.jsonl", '{"_id": "d1", "text": "again"}', r"corpus\.jsonl:4: .*'d1'"),
        ("corpus.jsonl", '{"_id": "d4", "text": ["a"]}', r"corpus\.jsonl:4: .*'text' must be a string"),
        ("corpus.jsonl", '{"text": "nameless"}', r"corpus\.jsonl:4: no id"),
        ("corpus.jsonl", '{"_id": "d4", ', r"corpus\.jsonl:4: unreadable JSON"),
        ("queries.jsonl", '{"_id": "q1", "text": "again"}', r"queries\.jsonl:4: .*'q1'"),
        ("queries.jsonl", "[]", r"queries\.jsonl:4: "),
        ("qrels/test.tsv", "q1\td9\t1", r"test\.tsv:4: no document 'd9'"),
        ("qrels/test.tsv", "q9\td1\t1", r"test\.tsv:4: no query 'q9'"),
    ],
)
def test_a_faulty_record_is_named_by_file_and_line(beir, file, line, reason):
    with (beir / file).open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    with pytest.raises(BadRecord, match=reason):
        read_beir(beir)


def test_a_repeated_document_is_a_duplicate(beir):
    with (beir / "corpus.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"_id": "d1", "text": "again"}\n')
    with pytest.raises(DuplicateRecord):
        read_beir(beir)


@pytest.mark.parametrize("file", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named(beir, file):
    (beir / file).unlink()
    with pytest.raises(BadInput, match=file.replace(".", r"\.")):
        read_beir(beir)


def test_a_missing_folder_says_what_one_holds(tmp_path):
    with pytest.raises(BadInput, match="no such folder; a BEIR folder has"):
        read_beir(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["[]", "{", '{"doc_langs": 3}'])
def test_a_meta_file_that_is_no_object_is_refused(beir, text):
    put(beir / "meta.json", text)
    with pytest.raises(BadRecord, match=r"meta\.json: "):
        read_beir(beir)
