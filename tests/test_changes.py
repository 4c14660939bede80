"""Adding, deleting, compacting, checking and repairing as users do it: a Retriever, and the command line."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from polylex.cli import program
from polylex.errors import BadInput, DocumentNotFound, DuplicateId, ModelMismatch
from polylex.index import Index
from polylex.prune import Pruning
from polylex.retriever import Progress, Retriever
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab


class Words:
    """An encoder that knows five words; the weight of a word is how often it is there."""

    name, weights_id, source = "words", "w1", None
    vocab = Vocab(["cat", "dog", "fish", "music", "law"], [])

    def encode(self, texts, *, kind="document"):
        rows = []
        for text in texts:
            counts = [text.split().count(word) for word in self.vocab.pivot]
            terms = np.flatnonzero(counts)
            rows.append((terms.astype(np.uint32), np.array(counts, np.float32)[terms]))
        return SparseVectors.from_rows(rows, self.vocab.fingerprint)


TEXTS = {"1": "cat cat dog", "2": "dog fish", "3": "music law"}


def documents(texts):
    return [{"id": id, "text": text} for id, text in texts.items()]


@pytest.fixture
def retriever(tmp_path):
    with Retriever.build(tmp_path / "i", documents(TEXTS), Words()) as retriever:
        yield retriever


def ids(retriever, query):
    return [hit.id for hit in retriever.search(query)]


def test_a_retriever_sees_what_it_changes(retriever):
    told = []
    assert retriever.add(documents({"4": "dog dog dog"}), on_progress=told.append) == 0
    assert told == [Progress(1, 0)]
    assert ids(retriever, "dog") == ["4", "1", "2"]
    with pytest.raises(DuplicateId):
        retriever.add(documents({"5": "dog", "1": "fish"}))
    assert ids(retriever, "dog") == ["4", "1", "2"]
    assert retriever.add(documents({"5": "dog", "1": "fish"}), upsert=True) == 1
    assert ids(retriever, "dog") == ["4", "2", "5"]
    assert retriever.delete(["4"]) == 1
    with pytest.raises(DocumentNotFound):
        retriever.delete(["2", "4"])
    assert retriever.delete(["2", "4"], missing_ok=True) == 1
    assert (ids(retriever, "dog"), ids(retriever, "fish cat")) == (["5"], ["1"])


def test_another_retriever_sees_it_after_refreshing(retriever):
    with Retriever.open(retriever.index.path, Words()) as other:
        retriever.delete(["1"])
        assert ids(other, "dog") == ["1", "2"]
        assert other.refresh()
        assert not other.refresh()
        assert ids(other, "dog") == ["2"]


def test_added_documents_are_pruned_like_the_others_unless_told_otherwise(tmp_path):
    with Retriever.build(tmp_path / "i", documents(TEXTS), Words(), prune=Pruning(top_k=1)) as retriever:
        retriever.add(documents({"4": "dog dog law"}))
        assert ids(retriever, "law") == []
        retriever.add(documents({"5": "dog dog law"}), prune=Pruning())
        assert ids(retriever, "law") == ["5"]
    with Retriever.build(tmp_path / "j", documents(TEXTS), Words(), prune=lambda vectors: vectors) as retriever:
        with pytest.raises(BadInput, match=r"give the same rule as prune="):
            retriever.add(documents({"4": "dog"}))
        assert retriever.add(documents({"4": "dog"}), prune=Pruning()) == 0


def test_the_same_fields_are_encoded(tmp_path):
    first = [{"id": "1", "text": "cat", "note": "dog"}]
    with Retriever.build(tmp_path / "i", first, Words(), text_fields=["note"]) as retriever:
        retriever.add([{"id": "2", "text": "cat", "note": "dog"}])
        assert (ids(retriever, "dog"), ids(retriever, "cat")) == (["1", "2"], [])


def test_a_model_that_does_not_fit_any_more_is_noticed_on_refreshing(retriever):
    class Others(Words):
        weights_id = "w2"

    Retriever.build(retriever.index.path, documents(TEXTS), Others(), overwrite=True).close()
    with pytest.raises(ModelMismatch):
        retriever.refresh()


def test_several_indexes_that_are_open_as_one_are_not_changed(tmp_path, retriever):
    Retriever.build(tmp_path / "j", documents({"9": "cat"}), Words()).close()
    with Retriever.open([tmp_path / "i", tmp_path / "j"], Words()) as both:
        with pytest.raises(BadInput, match="several indexes"):
            both.add(documents({"4": "dog"}))
        with pytest.raises(BadInput, match="several indexes"):
            both.delete(["1"])


# -- the command line ----------------------------------------------------------------------------


def run(*arguments, stdin=None, code=0):
    result = CliRunner().invoke(program, [str(each) for each in arguments], input=stdin, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def index(retriever, monkeypatch):
    from polylex import models

    monkeypatch.setattr(models, "load", lambda *_, **__: Words())
    monkeypatch.setattr(
        Words,
        "encode",
        lambda self, texts, on_text=None, encode=Words.encode, **options: encode(self, texts, **options),
    )
    return retriever.index.path


def jsonl(texts):
    return "".join(json.dumps(each) + "\n" for each in documents(texts))


def test_documents_are_added_and_replaced_from_any_input(index):
    added = json.loads(run("add", index, "-", "--json", stdin=jsonl({"4": "dog", "5": "law"})).stdout)
    assert {name: added[name] for name in ("added", "replaced", "skipped", "documents")} == {
        "added": 2, "replaced": 0, "skipped": 0, "documents": 5
    }  # fmt: skip
    refused = run("add", index, "-", stdin=jsonl({"6": "dog", "5": "law"}), code=1)
    assert refused.stderr.startswith("polylex: document '5' is in the index already")
    shown = run("add", index, "-", "--upsert", stdin=jsonl({"6": "dog", "5": "cat"})).stdout
    assert shown.startswith(f"Added 1 document to {index}, replaced 1, skipped 0; 6 documents now")
    with Index.open(index) as opened:
        assert (len(opened), opened.check(), opened.document("5").fields["text"]) == (6, [], "cat")
    assert run("add", index, "-", "--text-fields", "other", stdin="", code=1).stderr.count("leave --text-fields out")


def test_documents_are_deleted_by_name_or_by_a_list(index, tmp_path):
    assert run("delete", index, "1").stdout == f"Deleted 1 document from {index}; 2 are left\n"
    assert "nothing was deleted" in run("delete", index, "2", "1", code=1).stderr
    (tmp_path / "list").write_text("3\n\n1\n", "utf-8")
    told = json.loads(run("delete", index, "--ids", tmp_path / "list", "--missing-ok", "--json").stdout)
    assert told == {"index": str(index), "deleted": 1, "missing": 1, "documents": 1}
    assert run("delete", index, code=2).stderr.count("name the documents")


def test_compacting_tells_what_it_did(index):
    run("delete", index, "1")
    run("add", index, "-", "-q", stdin=jsonl({"4": "dog"}))
    told = json.loads(run("compact", index, "--json").stdout)
    assert (told["documents"], told["before"]["deleted"], told["before"]["segments"]) == (3, 1, 2)
    assert (told["after"]["segments"], told["after"]["deleted"]) == (1, 0)
    assert "1 segment" in run("compact", index).stdout
    assert "sound" in run("check", index).stdout


def test_a_damaged_index_is_checked_and_repaired(index, tmp_path):
    run("add", index, "-", "-q", stdin=jsonl({"4": "dog"}))
    file = max(index.glob("segment-*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    assert file.name in run("check", index, code=1).stdout
    told = json.loads(run("repair", index, "--dry-run", "--json", code=1).stdout)
    assert (told["out"], told["documents"], [lost["id"] for lost in told["lost"]]) == (None, 1, ["1", "2", "3"])
    shown = run("repair", index, code=1).stdout
    assert "lost: 1 (" in shown
    assert shown.endswith(f"1 document recovered into {index}.repaired, 3 lost\n")
    run("check", f"{index}.repaired")
    assert file.name in run("check", index, code=1).stdout  # the original is as it was
    shutil.rmtree(f"{index}.repaired")
    run("repair", index, "--in-place", code=1)
    run("check", index)
    assert file.name in run("check", f"{index}.damaged", code=1).stdout
    assert run("repair", index, "--in-place", code=1).stderr.count("is there already")
    assert run("repair", index, "--in-place", "--dry-run", code=2).stderr.count("one of them")


def test_lost_names_of_terms_come_from_the_model(index):
    next(index.glob("vocab-*")).write_bytes(b"")
    assert run("repair", index).stdout.endswith(f"3 documents recovered into {index}.repaired, 0 lost\n")
