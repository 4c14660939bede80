import random
import shutil
import sqlite3

import pytest
from test_writer import VOCAB, found, make, put

from polylex import builder as builder_module
from polylex import compaction as compaction_module
from polylex import writer as writer_module
from polylex.errors import BadInput, CorruptIndex, IndexExists, IndexNotFound, PolylexError
from polylex.index import Index
from polylex.repair import repair
from polylex.vocab import Vocab
from polylex.writer import IndexWriter

DOCUMENTS = {f"d{n:02}": {n % 4: 1.0 + n, 6: 0.5} for n in range(24)}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Segments of rows 0-7, 8-15, 16-23 and a last one with gaps, 24-33; d03 and d17 are gone, d20 came anew."""
    for module in (builder_module, writer_module, compaction_module):
        monkeypatch.setattr(module, "BLOCK", 8)
    make(tmp_path / "i", DOCUMENTS, encoder="mini", weights_id="w", settings={"a": 1})
    with IndexWriter(tmp_path / "i") as writer:
        writer.delete(["d03", "d17"])
        put(writer, {"d20": {0: 9.0}}, "upsert")
        put(writer, {f"n{n}": {1: 1.0} for n in range(3)})
        writer.delete(["n1"])
    return tmp_path / "i"


EXPECTED = [f"d{n:02}" for n in range(24) if n not in (3, 17, 20)] + ["d20", "n0", "n2"]


def ids(path):
    with Index.open(path) as index:
        assert index.check() == []
        return [record.id for record in index._catalog.records_between(0, index.span)]


def segments(path):
    connection = sqlite3.connect(path / "index.sqlite")
    files = [file for (file,) in connection.execute("SELECT file FROM segments ORDER BY first_row")]
    connection.close()
    return [path / file for file in files]


def flip(file, at=-1):
    content = bytearray(file.read_bytes())
    content[at] ^= 4
    file.write_bytes(content)


def content(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_sound_index_is_copied_whole_and_keeps_its_order_and_settings(path, tmp_path):
    before = content(path)
    report = repair(path, tmp_path / "new")
    assert (report.documents, report.lost, report.faults, report.path) == (24, [], [], tmp_path / "new")
    assert content(path) == before
    assert ids(tmp_path / "new") == EXPECTED
    with Index.open(path) as old, Index.open(tmp_path / "new") as new:
        for query in ({0: 1.0, 6: 2.0}, {1: 1.0}):
            assert found(new, query) == found(old, query)
        assert (new.info().settings, new.info().encoder, new.info().weights_id) == ({"a": 1}, "mini", "w")
        assert new.document("d05").fields == {"v": [1, 6]}


def test_without_a_target_it_only_looks(path):
    before = content(path)
    flip(segments(path)[1])
    report = repair(path)
    assert (report.documents, len(report.lost), report.path) == (16, 8, None)
    assert {name for name, data in content(path).items() if data != before[name]} == {segments(path)[1].name}


def test_documents_of_a_damaged_segment_are_named_and_all_others_recovered(path, tmp_path):
    flip(segments(path)[1])
    report = repair(path, tmp_path / "new")
    assert [(lost.row, lost.id) for lost in report.lost] == [(n, f"d{n:02}") for n in range(8, 16)]
    assert all("fails its checksum" in lost.reason for lost in report.lost)
    assert ids(tmp_path / "new") == [id for id in EXPECTED if id not in {lost.id for lost in report.lost}]
    assert len(report.faults) == 1


def test_a_missing_segment_and_a_missing_list_of_rows_lose_their_documents_only(path, tmp_path):
    (listing,) = path.glob("rows-*")
    listing.unlink()
    segments(path)[0].unlink()
    report = repair(path, tmp_path / "new")
    assert {lost.id for lost in report.lost} == {*(f"d{n:02}" for n in range(8)), "d20", "n0", "n2"} - {"d03"}
    assert ids(tmp_path / "new") == [id for id in EXPECTED if id not in {lost.id for lost in report.lost}]


def test_a_damaged_line_loses_one_document(path, tmp_path):
    connection = sqlite3.connect(path / "index.sqlite")
    with connection:
        connection.execute("UPDATE documents SET fields = '{\"v\":[9]}' WHERE id = 'd05'")
    connection.close()
    report = repair(path, tmp_path / "new")
    assert [(lost.row, lost.id, lost.reason) for lost in report.lost] == [
        (5, "d05", "its line in index.sqlite fails its checksum")
    ]
    assert ids(tmp_path / "new") == [id for id in EXPECTED if id != "d05"]


def test_damaged_settings_do_not_keep_documents_back(path, tmp_path):
    connection = sqlite3.connect(path / "index.sqlite")
    with connection:
        connection.execute("UPDATE meta SET value = 'no json' WHERE key = 'settings'")
        connection.execute("DELETE FROM meta WHERE key = 'encoder'")
    connection.close()
    with pytest.raises(CorruptIndex):
        Index.open(path)
    report = repair(path, tmp_path / "new")
    assert (report.documents, report.lost) == (24, [])
    assert "settings are taken as they are" in report.faults[0]
    assert ids(tmp_path / "new") == EXPECTED


def test_no_document_gets_the_vector_of_another_when_the_rows_of_a_segment_are_in_doubt(path, tmp_path):
    connection = sqlite3.connect(path / "index.sqlite")
    with connection:
        connection.execute("UPDATE segments SET first_row = 7 WHERE first_row = 8")
    connection.close()
    report = repair(path, tmp_path / "new")
    with Index.open(tmp_path / "new") as new:
        for id in ids(tmp_path / "new"):
            if id in DOCUMENTS and id != "d20":
                terms, weights = new.vectors([new.document(id).row]).row(0)
                assert dict(zip(terms.tolist(), weights.tolist(), strict=True)) == DOCUMENTS[id]
    assert {lost.id for lost in report.lost} | set(ids(tmp_path / "new")) == set(EXPECTED)


def test_lost_names_of_terms_can_be_given(path, tmp_path):
    (names,) = path.glob("vocab-*")
    names.write_bytes(b"rubbish")
    for vocab in (None, Vocab(["a"], [])):
        with pytest.raises(CorruptIndex, match="--model"):
            repair(path, tmp_path / "new", vocab=vocab)
        assert not (tmp_path / "new").exists()
    assert repair(path, tmp_path / "new", vocab=VOCAB).documents == 24
    assert ids(tmp_path / "new") == EXPECTED


def test_what_cannot_be_repaired_is_said(path, tmp_path):
    with pytest.raises(IndexNotFound):
        repair(tmp_path / "nothing", tmp_path / "new")
    with pytest.raises(BadInput, match="onto itself"):
        repair(path, path)
    with pytest.raises(IndexExists):
        shutil.copytree(path, tmp_path / "there")
        repair(path, tmp_path / "there")
    (path / "index.sqlite").write_bytes(bytes(range(256)) * 64)
    with pytest.raises(CorruptIndex, match="build the index again"):
        repair(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_whatever_is_damaged_what_comes_back_is_right(path, tmp_path):
    """Random damage of any file: no other error than ours, and no document that is not as it was."""
    with Index.open(path) as index:
        original = {}
        for id in EXPECTED:
            record = index.document(id)
            original[id] = (dict(record.fields), [part.tolist() for part in index.vectors([record.row]).row(0)])
    draw, recovered = random.Random(5), 0
    for number in range(40):
        wreck, new = tmp_path / f"w{number}", tmp_path / f"r{number}"
        shutil.copytree(path, wreck)
        files = sorted(wreck.iterdir())
        for _ in range(draw.randint(1, 4)):
            file = draw.choice([*files, wreck / "index.sqlite"])
            size = file.stat().st_size
            if size:
                start = draw.randrange(size)
                damage = bytearray(file.read_bytes())
                damage[start : start + draw.choice([1, 4, 512])] = draw.randbytes(draw.choice([1, 4, 512]))
                file.write_bytes(damage[: draw.choice([size, size, start + 1])])
        try:
            report = repair(wreck, new, vocab=VOCAB)
        except PolylexError:
            continue
        with Index.open(new) as index:
            assert index.check() == []
            assert len(index) == report.documents
            recovered += len(index)
            for record in index._catalog.records_between(0, index.span):
                vector = [part.tolist() for part in index.vectors([record.row]).row(0)]
                assert (dict(record.fields), vector) == original[record.id]
    assert recovered > 24 * 10
