"""Collections in the layouts of their publishers, each rebuilt with a few lines."""

import gzip
import json
import sys
from types import SimpleNamespace

import pytest

from polylex.collection import read_beir
from polylex.errors import BadInput, BadRecord, DuplicateRecord, MissingExtra
from polylex.layouts import LAYOUTS, read_collection
from polylex.trec import Query


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, "utf-8")
    return path


def lines(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@pytest.fixture
def miracl(tmp_path):
    base = tmp_path / "miracl-v1.0-sw"
    write(base / "topics" / "topics.miracl-v1.0-sw-dev.tsv", "1\tNani?\n2\tLini?\n")
    write(base / "qrels" / "qrels.miracl-v1.0-sw-dev.tsv", "1\tQ0\t7#0\t1\n1\tQ0\t7#1\t0\n2\tQ0\t9#0\t1\n")
    corpus = tmp_path / "miracl-corpus-v1.0-sw"
    write(corpus / "docs-0.jsonl.gz", lines({"docid": "7#0", "title": "Jua", "text": "nyota"}))
    write(corpus / "docs-1.jsonl.gz", lines({"docid": "7#1", "title": "", "text": "mwezi"}))
    write(corpus / "docs-10.jsonl.gz", lines({"docid": "9#0", "title": "Maji", "text": ""}))
    return tmp_path


# -- MIRACL ------------------------------------------------------------------------------------------


def test_miracl_reads_topics_qrels_and_all_shards_in_the_order_of_their_numbers(miracl):
    collection = read_collection(f"miracl:{miracl}:sw")
    assert collection.name == "miracl-sw-dev"
    assert collection.ids == ("7#0", "7#1", "9#0")
    assert collection.texts == ("Jua nyota", "mwezi", "Maji ")
    assert set(collection.languages) == {"sw"}
    assert collection.queries == (Query("1", "Nani?", "sw"), Query("2", "Lini?", "sw"))
    assert collection.judgments == {"1": {"7#0": 1, "7#1": 0}, "2": {"9#0": 1}}


def test_the_two_miracl_repositories_may_stand_side_by_side(miracl, tmp_path):
    beside = tmp_path / "beside"
    (beside / "miracl").mkdir(parents=True)
    (beside / "miracl-corpus").mkdir()
    (miracl / "miracl-v1.0-sw").rename(beside / "miracl" / "miracl-v1.0-sw")
    (miracl / "miracl-corpus-v1.0-sw").rename(beside / "miracl-corpus" / "miracl-corpus-v1.0-sw")
    assert len(read_collection(f"miracl:{beside}:sw").ids) == 3


def test_a_judged_document_that_is_missing_stops_or_is_kept(miracl):
    (miracl / "miracl-corpus-v1.0-sw" / "docs-10.jsonl.gz").unlink()
    with pytest.raises(BadRecord, match=r"qrels.miracl-v1.0-sw-dev.tsv:3: no document '9#0'"):
        read_collection(f"miracl:{miracl}:sw")
    kept = read_collection(f"miracl:{miracl}:sw", unknown="keep")
    assert kept.judgments["2"] == {"9#0": 1}
    assert kept.unknown_judgments() == 1


def test_documents_may_be_left_out(miracl):
    collection = read_collection(f"miracl:{miracl}:sw", documents=False)
    assert (collection.ids, len(collection.queries)) == ((), 2)
    assert collection.unknown_judgments() == 0


def test_a_language_or_split_that_is_not_there_names_what_was_looked_for(miracl):
    with pytest.raises(BadInput, match=r"miracl-v1\.0-yo"):
        read_collection(f"miracl:{miracl}:yo")
    with pytest.raises(BadInput, match=r"topics\.miracl-v1\.0-sw-train\.tsv"):
        read_collection(f"miracl:{miracl}:sw", split="train")
    with pytest.raises(BadInput, match="a language is missing"):
        read_collection("miracl:data")


def test_a_document_twice_and_a_line_that_is_no_json_are_named_with_their_line(miracl):
    shard = write(miracl / "miracl-corpus-v1.0-sw" / "docs-1.jsonl.gz", lines({"docid": "7#0", "text": "x"}))
    with pytest.raises(DuplicateRecord, match=f"{shard}:1: document '7#0' was there before"):
        read_collection(f"miracl:{miracl}:sw")
    write(shard, '{"docid": "7#1", "text": "x"}\n{"docid"\n')
    with pytest.raises(BadRecord, match=f"{shard}:2: "):
        read_collection(f"miracl:{miracl}:sw")


# -- mMARCO ------------------------------------------------------------------------------------------


@pytest.fixture
def mmarco(tmp_path):
    google = tmp_path / "google"
    write(google / "collections" / "german_collection.tsv", "0\tDer Hund\n1\tDie Katze\n")
    write(google / "collections" / "english_collection.tsv", "0\tThe dog\n1\tThe cat\n")
    write(google / "queries" / "dev" / "german_queries.dev.tsv", "5\tWelches Tier?\n6\tnicht beurteilt\n")
    write(tmp_path / "qrels.dev.small.tsv", "5\t0\t1\t1\n")
    return tmp_path


def test_mmarco_keeps_the_judged_queries(mmarco):
    collection = read_collection(f"mmarco:{mmarco}:de")
    assert collection.texts == ("Der Hund", "Die Katze")
    assert collection.queries == (Query("5", "Welches Tier?", "de"),)
    assert collection.judgments == {"5": {"1": 1}}


def test_mmarco_asks_in_one_language_and_searches_in_another(mmarco):
    collection = read_collection(f"mmarco:{mmarco}:de-en")
    assert (collection.texts, collection.languages) == (("The dog", "The cat"), ("en", "en"))
    assert collection.queries[0].language == "de"


def test_mmarco_refuses_a_language_it_does_not_have(mmarco):
    with pytest.raises(BadInput, match="mMARCO has no language 'sw'"):
        read_collection(f"mmarco:{mmarco}:sw")


def test_a_judged_query_without_text_is_refused_or_kept(mmarco):
    write(mmarco / "qrels.dev.small.tsv", "5\t0\t1\t1\n8\t0\t1\t1\n")
    with pytest.raises(BadRecord, match=r"qrels.dev.small.tsv:2: no query '8'"):
        read_collection(f"mmarco:{mmarco}:de")
    assert set(read_collection(f"mmarco:{mmarco}:de", unknown="keep").judgments) == {"5", "8"}


# -- NeuCLIR -----------------------------------------------------------------------------------------


def topic(id, *versions):
    parts = ("lang", "source", "topic_title", "topic_description")
    return {"topic_id": id, "topics": [dict(zip(parts, version, strict=True)) for version in versions]}


@pytest.fixture
def neuclir(tmp_path):
    write(tmp_path / "data" / "fas-00000-of-00001.jsonl.gz", lines({"id": "a", "title": "T", "text": "x", "url": "u"}))
    write(
        tmp_path / "topics.0720.utf8.jsonl",
        lines(
            topic(
                "0",
                ("eng", "original", "Iran", "News of Iran"),
                ("fas", "machine translation", "no", "no"),
                ("fas", "human translation", "ایران", "اخبار"),
            ),
            topic("1", ("eng", "original", "not judged", "")),
        ),
    )
    write(tmp_path / "2022-qrels.fas", "0 0 a 3\n")
    return tmp_path


def test_neuclir_asks_with_title_and_description_of_the_original(neuclir):
    collection = read_collection(f"neuclir:{neuclir}:fa")
    assert collection.queries == (Query("0", "Iran News of Iran", "en"),)
    assert (collection.ids, collection.texts, collection.languages) == (("a",), ("T x",), ("fa",))
    assert collection.judgments == {"0": {"a": 3}}


def test_neuclir_takes_the_human_translation_when_asked_for(neuclir):
    assert read_collection(f"neuclir:{neuclir}:fas-fa").queries == (Query("0", "ایران اخبار", "fa"),)


def test_neuclir_names_the_line_of_a_bad_topic(neuclir):
    write(neuclir / "topics.0720.utf8.jsonl", lines({"topic_id": 3, "topics": []}))
    with pytest.raises(BadRecord, match=r"topics.0720.utf8.jsonl:1: expected \"topic_id\""):
        read_collection(f"neuclir:{neuclir}:fa")
    with pytest.raises(BadInput, match="NeuCLIR has fa, ru, zh in 2022, 2023"):
        read_collection(f"neuclir:{neuclir}:de")


# -- MKQA, MLDR --------------------------------------------------------------------------------------


def test_mkqa_finds_the_english_question_of_each_translation(tmp_path):
    rows = [
        {"example_id": 11, "query": "who won", "queries": {"de": "wer gewann", "zh_cn": "谁赢了"}, "answers": {}},
        {"example_id": 12, "query": "when", "queries": {"de": "wann", "zh_cn": "何时"}, "answers": {}},
    ]
    write(tmp_path / "mkqa.jsonl.gz", lines(*rows))
    collection = read_collection(f"mkqa:{tmp_path}:de,zh_cn")
    assert dict(zip(collection.ids, collection.texts, strict=True)) == {"11": "who won", "12": "when"}
    assert collection.queries[1] == Query("zh_cn-11", "谁赢了", "zh-cn")
    assert collection.judgments["de-12"] == {"12": 1}
    with pytest.raises(BadRecord, match=r"mkqa.jsonl.gz:1: no query in 'fr'; there are de, zh_cn"):
        read_collection(f"mkqa:{tmp_path}:fr")


def test_mldr_takes_its_judgments_from_the_positive_passages(tmp_path):
    base = tmp_path / "mldr-v1.0-th"
    write(base / "corpus.jsonl.gz", lines({"docid": "d1", "text": "ยาว"}, {"docid": "d2", "text": "สั้น"}))
    row = {
        "query_id": "q1",
        "query": "อะไร",
        "positive_passages": [{"docid": "d2", "text": ""}],
        "negative_passages": [],
    }
    write(base / "test.jsonl.gz", lines(row))
    collection = read_collection(f"mldr:{tmp_path}:th")
    assert collection.queries == (Query("q1", "อะไร", "th"),)
    assert collection.judgments == {"q1": {"d2": 1}}
    write(base / "dev.jsonl.gz", lines(row | {"positive_passages": [{"docid": "d9"}]}))
    with pytest.raises(BadRecord, match=r"dev.jsonl.gz:1: no document 'd9'"):
        read_collection(f"mldr:{tmp_path}:th", split="dev")
    write(base / "train.jsonl.gz", lines({"query_id": "q1"}))
    with pytest.raises(BadRecord, match=r"train.jsonl.gz:1: expected"):
        read_collection(f"mldr:{tmp_path}:th", split="train")


# -- BEIR, qrels, ir_datasets ------------------------------------------------------------------------


@pytest.fixture
def beir(tmp_path):
    root = tmp_path / "tiny"
    write(root / "corpus.jsonl", lines({"_id": "a", "title": "", "text": "x", "lang": "de"}))
    write(root / "queries.jsonl", lines({"_id": "q", "text": "x", "lang": "en"}))
    write(root / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\nq\ta\t1\nq\tz\t1\n")
    return root


def test_a_folder_is_read_as_beir(beir):
    with pytest.raises(BadRecord, match=r"test.tsv:3: no document 'z'"):
        read_collection(beir)
    kept = read_collection(beir, unknown="keep")
    assert kept == read_beir(beir, unknown="keep")
    assert kept.document_languages == {"a": "de"}
    assert read_collection(beir, documents=False).texts == ()


def test_wrong_columns_are_named_with_their_line(beir):
    write(beir / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\nq\ta\n")
    with pytest.raises(BadRecord, match=r"test.tsv:2: .*this line has 2"):
        read_collection(beir)


def test_a_qrels_file_alone_is_a_collection_without_texts(tmp_path):
    path = write(tmp_path / "qrels.small.txt", "q1 0 a 1\nq2 0 b 0\n")
    collection = read_collection(path)
    assert (collection.name, collection.ids) == ("qrels.small", ())
    assert [query.id for query in collection.queries] == ["q1", "q2"]


def test_what_is_nothing_of_all_that_says_what_could_be_given():
    with pytest.raises(BadInput, match=", ".join(LAYOUTS)):
        read_collection("nowhere")


class DataSet:
    """What ir_datasets.load gives, as far as it is asked."""

    def has_queries(self):
        return True

    has_qrels = has_docs = has_queries

    def docs_lang(self):
        return "en"

    def queries_lang(self):
        return None

    def docs_iter(self):
        yield SimpleNamespace(doc_id="a", title="T", text="x")
        yield SimpleNamespace(doc_id="b", default_text=lambda: "whole")

    def queries_iter(self):
        yield SimpleNamespace(query_id="q", text="what")

    def qrels_iter(self):
        yield SimpleNamespace(query_id="q", doc_id="a", relevance=2)
        yield SimpleNamespace(query_id="q", doc_id="b", relevance=-1)


def test_an_ir_datasets_id_is_read_through_that_library(monkeypatch):
    def load(name):
        if name != "beir/tiny/test":
            raise KeyError(name)
        return DataSet()

    monkeypatch.setitem(sys.modules, "ir_datasets", SimpleNamespace(load=load))
    collection = read_collection("ir_datasets:beir/tiny/test")
    assert (collection.name, collection.texts) == ("beir-tiny-test", ("T x", "whole"))
    assert collection.judgments == {"q": {"a": 2, "b": 0}}
    assert (collection.languages, collection.queries) == (("en", "en"), (Query("q", "what"),))
    with pytest.raises(BadInput, match="no 'beir/none'"):
        read_collection("ir_datasets:beir/none")


def test_without_ir_datasets_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(MissingExtra, match=r'pip install "polylex\[datasets\]"'):
        read_collection("ir_datasets:beir/scifact/test")
