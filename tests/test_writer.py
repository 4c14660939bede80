import gc
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from polylex import compaction as compaction_module
from polylex import snapshot as snapshot_module
from polylex import writer as writer_module
from polylex.compaction import Size, everything, worthwhile
from polylex.errors import (
    BadInput,
    BadVectors,
    CorruptIndex,
    DocumentNotFound,
    DuplicateId,
    IndexLocked,
    IndexNotFound,
    VocabMismatch,
)
from polylex.index import Index
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab
from polylex.writer import IndexWriter

VOCAB = Vocab([f"word{i}" for i in range(6)], [f"token{i}" for i in range(6)])
GOLDEN = Path(__file__).parent / "golden"


def vectors_of(rows, vocab=VOCAB.fingerprint):
    pairs = [
        (np.array(sorted(row), np.uint32), np.array([row[term] for term in sorted(row)], np.float32)) for row in rows
    ]
    return SparseVectors.from_rows(pairs, vocab)


def make(path, documents, **options):
    """An index of {id: vector}; the fields of a document tell its vector."""
    ids, rows = list(documents), list(documents.values())
    Index.build(path, vectors_of(rows), ids, [{"v": list(row)} for row in rows], vocab=VOCAB, **options).close()


def put(writer, documents, verb="add"):
    ids, rows = list(documents), list(documents.values())
    return getattr(writer, verb)(ids, [{"v": list(row)} for row in rows], vectors_of(rows))


def found(index, query, k=1000):
    return [(hit.id, hit.score) for hit in index.search(vectors_of([query]), k)[0]]


@pytest.fixture
def path(tmp_path):
    make(tmp_path / "i", {"a": {0: 1.0, 1: 1.0}, "b": {0: 1.0}, "c": {0: 2.0, 7: 1.0}})
    return tmp_path / "i"


# -- what a change does --------------------------------------------------------------------------


def test_added_replaced_and_deleted_documents_are_seen_after_the_end_of_the_block(path):
    with IndexWriter(path) as writer:
        put(writer, {"d": {0: 1.0}})
        assert put(writer, {"a": {0: 3.0}, "e": {7: 5.0}}, "upsert") == 1
        assert writer.delete(["c"]) == 1
        assert len(writer) == 4
    with Index.open(path) as index:
        # b and d tie: b was added before d; a came anew, after both
        assert found(index, {0: 1.0}) == [("a", 3.0), ("b", 1.0), ("d", 1.0)]
        assert found(index, {7: 1.0}) == [("e", 5.0)]
        assert found(index, {1: 1.0}) == []  # what a was
        assert [index.document(id).row for id in ("b", "d", "a", "e")] == [1, 3, 4, 5]
        assert index.document("a").fields == {"v": [0]}
        assert (len(index), index.check()) == (4, [])
        with pytest.raises(DocumentNotFound):
            index.document("c")


def test_nothing_is_seen_before_the_commit_and_nothing_after_a_rollback(path):
    with IndexWriter(path) as writer, Index.open(path) as index:
        put(writer, {"d": {0: 1.0}})
        writer.delete(["a"])
        assert not index.refresh()
        writer.rollback()
        assert (len(writer), writer.commit()) == (3, 0)
        assert not index.refresh()
        with pytest.raises(RuntimeError), IndexWriter.__enter__(writer):
            put(writer, {"d": {0: 1.0}})
            raise RuntimeError
    with Index.open(path) as index:
        assert [id for id, _ in found(index, {0: 1.0})] == ["c", "a", "b"]
    assert len(list(path.glob("segment-*"))) == 1


def test_a_document_that_comes_and_goes_in_one_transaction_leaves_nothing(path):
    with IndexWriter(path) as writer:
        put(writer, {"d": {0: 1.0}, "e": {0: 1.0}})
        put(writer, {"d": {0: 9.0}}, "upsert")
        writer.delete(["e", "d"])
        assert len(writer) == 3
    with Index.open(path) as index:
        assert (len(index), index.check()) == (3, [])
    with IndexWriter(path) as writer:
        put(writer, {"d": {0: 4.0}})  # the id is free again
    with Index.open(path) as index:
        assert found(index, {0: 1.0}, 1) == [("d", 4.0)]
        assert index.document("d").row == 6  # 3, 4 and 5 were used


def test_all_documents_may_go_and_others_come(path):
    with IndexWriter(path) as writer:
        assert writer.delete(["a", "b", "c"]) == 3
    with Index.open(path) as index:
        assert (len(index), found(index, {0: 1.0}), index.check(), index.info().segments) == (0, [], [], 0)
    with IndexWriter(path) as writer:
        put(writer, {"a": {0: 1.0}})
    with Index.open(path) as index:
        assert (found(index, {0: 1.0}), index.document("a").row) == ([("a", 1.0)], 3)


def test_a_refused_operation_leaves_the_transaction_as_it_was(path):
    with IndexWriter(path) as writer:
        put(writer, {"d": {0: 1.0}})
        for error, verb, arguments in [
            (DuplicateId, "add", (["a"], None, vectors_of([{}]))),
            (DuplicateId, "add", (["d"], None, vectors_of([{}]))),
            (DuplicateId, "upsert", (["a", "a"], None, vectors_of([{}, {}]))),
            (BadInput, "upsert", (["a", ""], None, vectors_of([{}, {}]))),
            (BadInput, "upsert", (["a"], [{"x": float("nan")}], vectors_of([{}]))),
            (BadInput, "upsert", (["a"], None, vectors_of([{}, {}]))),
            (BadVectors, "upsert", (["a"], None, vectors_of([{12: 1.0}]))),
            (VocabMismatch, "upsert", (["a"], None, vectors_of([{}], "0" * 64))),
            (DocumentNotFound, "delete", (["a", "zz"],)),
            (BadInput, "delete", ("a",)),
            (BadInput, "compact", ()),
        ]:
            with pytest.raises(error):
                getattr(writer, verb)(*arguments)
        assert len(writer) == 4
        assert writer.delete(["zz", "\0", "b"], missing_ok=True) == 1
    with Index.open(path) as index:
        assert [id for id, _ in found(index, {0: 1.0})] == ["c", "a", "d"]
        assert index.check() == []


def test_a_change_of_nothing_is_no_change(path):
    with IndexWriter(path) as writer:
        assert writer.delete(["x"], missing_ok=True) == 0
        assert writer.delete([]) == 0
    with Index.open(path) as index:
        assert index.generation == 0


def test_many_small_additions_and_one_large_make_one_transaction_beside_which_one_can_read(path, monkeypatch):
    monkeypatch.setattr(writer_module, "BLOCK", 1000)
    with Index.open(path) as reader, IndexWriter(path) as writer:
        for number in range(300):
            put(writer, {f"s{number}": {0: 1.0}})
        ids = [f"l{number}" for number in range(2500)]
        writer.add(
            ids, [{"text": "x" * 2000}] * 2500, vectors_of([{1: 1.0}] * 2500)
        )  # more than SQLite keeps in memory
        writer.delete(["s7", "l2499"])
        assert (len(writer), len(reader), reader.refresh()) == (2801, 3, False)
        assert found(reader, {0: 1.0}) == [("c", 2.0), ("a", 1.0), ("b", 1.0)]
        writer.commit()
        assert reader.refresh()
        assert (len(reader), len(found(reader, {0: 1.0}, 5000)), reader.check()) == (2801, 302, [])


def test_filters_see_what_searches_see(path):
    with Index.open(path) as before:
        with IndexWriter(path) as writer:
            put(writer, {"a": {0: 5.0}}, "upsert")
            writer.delete(["b"])
        with Index.open(path) as after:
            query = vectors_of([{0: 1.0}])
            assert [hit.id for hit in before.search(query, where="id in ('a', 'b')")[0]] == ["a", "b"]
            assert [hit.id for hit in after.search(query, where="id in ('a', 'b')")[0]] == ["a"]
            assert [hit.score for hit in before.search(query, where="id = 'a'")[0]] == [1.0]
            assert [hit.score for hit in after.search(query, where="id = 'a'")[0]] == [5.0]


# -- snapshots -----------------------------------------------------------------------------------


def test_a_reader_sees_one_state_until_it_refreshes(path):
    with Index.open(path) as reader, IndexWriter(path) as writer:
        before = [
            reader.search(vectors_of([{0: 1.0, 7: 1.0}])),
            reader.document("c"),
            reader.vectors([0, 1, 2]),
            len(reader),
        ]
        for step in range(12):  # past the first merging
            put(writer, {"c": {0: 10.0 + step}, f"n{step}": {0: 1.0}}, "upsert")
            writer.delete(["a"], missing_ok=True)
            writer.commit()
        writer.compact()
        again = [
            reader.search(vectors_of([{0: 1.0, 7: 1.0}])),
            reader.document("c"),
            reader.vectors([0, 1, 2]),
            len(reader),
        ]
        assert again[0::1][:2] == before[:2]
        assert again[2].terms.tolist() == before[2].terms.tolist()
        assert again[3] == 3
        assert reader.check() == []
        assert list(reader.values("v").values()) == ["[0, 1]", "[0]", "[0, 7]"]
        with pytest.raises(DocumentNotFound):
            reader.document("n0")
        assert reader.refresh()
        assert not reader.refresh()
        assert found(reader, {0: 1.0}, 1) == [("c", 21.0)]
        with pytest.raises(DocumentNotFound):
            reader.document("a")
        assert len(reader) == 14
        assert reader.check() == []


def test_a_reader_of_version_1_keeps_its_state_while_a_writer_makes_it_version_2(tmp_path):
    shutil.copytree(GOLDEN / "version-1-f32", tmp_path / "i")
    with Index.open(tmp_path / "i") as old:
        before = [old.document(id) for id in ("a", "b'", "文")]
        with IndexWriter(tmp_path / "i") as writer:
            writer.delete(["a", "文"])
            writer.upsert(["b'"], None, SparseVectors.empty(old.vocab_fingerprint, 1))
            writer.commit()
            writer.compact()
            assert [old.document(id) for id in ("a", "b'", "文")] == before
            everything = [record.id for record in old._catalog.records(range(12))]
            assert everything == ["a", "b'", "ça", "文", *"efghijkl"]
            assert old.check() == []
            assert old.info().format_version == 1
        assert old.refresh()
        assert (old.info().format_version, len(old), old.document("b'").fields) == (2, 10, {})
        assert old.check() == []


def removed_and_obsolete(path):
    connection = sqlite3.connect(path / "index.sqlite")
    counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("removed", "obsolete")]
    connection.close()
    return counts


def test_space_is_given_back_when_the_last_reader_that_needs_it_has_gone(path):
    first = Index.open(path)
    writer = IndexWriter(path, merge=False)
    put(writer, {"a": {0: 5.0}}, "upsert")
    writer.commit()
    second = Index.open(path)
    writer.delete(["b"])
    writer.commit()
    writer.compact()
    assert first.document("b").id == second.document("b").id == "b"
    assert first.document("a").row == 0
    assert second.document("a").row == 3
    assert len(list(path.glob("segment-*"))) == 3
    first.close()
    for step in range(2):
        put(writer, {"x": {0: 1.0 + step}}, "upsert")
        writer.commit()
    assert second.document("b").id == "b"
    second.refresh()
    for step in range(3):
        put(writer, {"x": {0: 3.0 + step}}, "upsert")
        writer.commit()
        second.refresh()
    third = Index.open(path)
    assert second.document("a") == third.document("a")
    second.close()
    third.close()
    put(writer, {"x": {0: 9.0}}, "upsert")
    writer.commit()
    writer.close()
    assert removed_and_obsolete(path) == [0, 0]
    with Index.open(path) as index:
        assert len(list(path.glob("segment-*"))) == index.info().segments
        assert index.check() == []


def test_a_constant_stream_of_readers_does_not_keep_everything_for_ever(path):
    with IndexWriter(path) as writer:
        reader = Index.open(path)
        for step in range(30):
            put(writer, {"a": {0: 1.0 + step}}, "upsert")
            writer.commit()
            follower = Index.open(path)  # there is always one
            assert reader.document("a").row == 3 * 0 + (2 + step if step else 0)
            reader.close()
            reader = follower
        assert removed_and_obsolete(path)[0] <= 3
        reader.close()


def test_a_search_that_is_under_way_ends_in_its_state(path, monkeypatch):
    index = Index.open(path)
    top = snapshot_module.Snapshot.top

    def slow(self, *arguments, **options):
        answer = top(self, *arguments, **options)
        if len(index) == 3:
            with IndexWriter(path) as writer:
                writer.delete(["a", "b", "c"])
                put(writer, {"z": {0: 1.0}})
            assert index.refresh()
        return answer

    monkeypatch.setattr(snapshot_module.Snapshot, "top", slow)
    assert [id for id, _ in found(index, {0: 1.0})] == ["c", "a", "b"]
    assert [id for id, _ in found(index, {0: 1.0})] == ["z"]
    index.close()


def test_an_index_that_was_replaced_is_seen_after_refreshing(path):
    with Index.open(path) as index:
        make(path, {"new": {0: 1.0}}, overwrite=True)
        assert [id for id, _ in found(index, {0: 1.0})] == ["c", "a", "b"]
        assert index.refresh()
        assert [id for id, _ in found(index, {0: 1.0})] == ["new"]


def test_replacing_an_index_takes_along_what_a_killed_writer_left_in_its_log(path):
    with IndexWriter(path) as writer, Index.open(path):  # a reader keeps the log alive
        put(writer, {"d": {0: 1.0}})
        writer.commit()
        shutil.copytree(path, path.with_name("killed"))
    killed = path.with_name("killed")
    assert (killed / "index.sqlite-wal").stat().st_size
    (killed / "writer.lock").unlink()
    make(killed, {"new": {0: 1.0}}, overwrite=True)
    with Index.open(killed) as index:
        assert [id for id, _ in found(index, {0: 1.0})] == ["new"]
        assert index.check() == []


# -- one writer ----------------------------------------------------------------------------------


def test_a_second_writer_is_told_who_the_first_is_and_gets_its_turn(path):
    with IndexWriter(path):
        with pytest.raises(IndexLocked, match=rf"process {os.getpid()} on .* since 20\d\d-"):
            IndexWriter(path)
        code = f"from polylex.writer import IndexWriter; IndexWriter({str(path)!r})"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert f"IndexLocked: {path} is being written by process {os.getpid()} on" in other.stderr
        with pytest.raises(IndexLocked):
            make(path, {}, overwrite=True)
    IndexWriter(path).close()


def test_the_lock_goes_with_the_process_even_if_its_children_live_on(path):
    code = (
        "import os, sys, time; from polylex.writer import IndexWriter\n"
        f"w = IndexWriter({str(path)!r}); w.delete(['a'])\n"
        "if os.fork() == 0:\n"
        "    print('child', flush=True); sys.stdin.read(); os._exit(0)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"child\n"
        process.kill()
        process.wait()
        IndexWriter(path).close()
    with Index.open(path) as index:
        assert len(index) == 3


def test_what_is_no_index_cannot_be_written(tmp_path, path):
    for wrong in (tmp_path, tmp_path / "nothing", path / "index.sqlite"):
        with pytest.raises(IndexNotFound):
            IndexWriter(wrong)
    assert not (tmp_path / "writer.lock").exists()


@contextmanager
def read_only(tmp_path, path):
    """A copy of a folder where nothing can be written."""
    disk = tmp_path / "disk"
    disk.mkdir(exist_ok=True)
    if os.geteuid():
        shutil.copytree(path, disk / "i")
        (disk / "i").chmod(0o555)
        yield disk / "i"
        (disk / "i").chmod(0o755)
        shutil.rmtree(disk / "i")
        return
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("root may write everywhere, and may not mount here")
    shutil.copytree(path, disk / "i")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    try:
        yield disk / "i"
    finally:
        gc.collect()
        subprocess.run(["umount", str(disk)], check=True)


def test_a_read_only_folder_is_read_and_not_written(tmp_path, path):
    with IndexWriter(path) as writer:
        writer.delete(["a"])
    with read_only(tmp_path, path) as folder:
        with pytest.raises(OSError, match=r"[Rr]ead-only|denied"):
            IndexWriter(folder)
        with Index.open(folder) as index:
            assert [id for id, _ in found(index, {0: 1.0})] == ["c", "b"]
            assert index.check() == []


def test_what_a_killed_writer_left_is_read_from_a_read_only_folder_too(tmp_path, path):
    with IndexWriter(path) as writer, Index.open(path):
        writer.delete(["a"])
        writer.commit()
        shutil.copytree(path, tmp_path / "killed")  # its last change is in the log alone
    assert (tmp_path / "killed" / "index.sqlite-wal").stat().st_size
    with read_only(tmp_path, tmp_path / "killed") as folder, Index.open(folder) as index:
        assert [id for id, _ in found(index, {0: 1.0})] == ["c", "b"]
        assert index.check() == []
    for name in ("wal", "shm"):
        (path / f"index.sqlite-{name}").unlink(missing_ok=True)
    connection = sqlite3.connect(path / "index.sqlite")
    connection.execute("PRAGMA journal_mode = WAL")  # killed between emptying the log and saying that there is none
    connection.close()
    with read_only(tmp_path, path) as folder, Index.open(folder) as index:
        assert [id for id, _ in found(index, {0: 1.0})] == ["c", "b"]


# -- compaction ----------------------------------------------------------------------------------


@pytest.fixture
def small_segments(monkeypatch):
    monkeypatch.setattr(writer_module, "BLOCK", 16)
    monkeypatch.setattr(compaction_module, "BLOCK", 16)
    monkeypatch.setattr(compaction_module, "TIERS", (2, 4, 8))


def sizes(*pairs):
    return [Size(*pair) if isinstance(pair, tuple) else Size(pair, pair) for pair in pairs]


def test_eight_small_segments_become_one_and_full_ones_stay():
    assert worthwhile(sizes(65_536, *[1] * 7)) == []
    assert worthwhile(sizes(65_536, 64, *[8] * 7, *[1] * 7)) == []
    assert worthwhile(sizes(65_536, *[1] * 8)) == [slice(1, 9)]
    assert worthwhile(sizes(65_536, *[8] * 7, *[1] * 8)) == [slice(8, 16)]
    assert worthwhile(sizes(*[8] * 8)) == [slice(0, 8)]
    # eight of 30,000: two fill a segment
    assert worthwhile(sizes(*[30_000] * 8)) == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 8)]
    assert worthwhile(sizes(65_536, (65_536, 32_768), (65_536, 32_769))) == [slice(1, 2)]
    assert worthwhile([]) == []


def test_compacting_leaves_neither_gaps_nor_neighbours_that_fit():
    assert everything(sizes(65_536, 65_536)) == []
    # 1 + 1 + 65,535 are one too many; 9 more fit beside neither
    assert everything(sizes(65_536, 1, 1, (65_536, 65_535), 9)) == [slice(1, 3), slice(3, 4)]
    assert everything(sizes((10, 9))) == [slice(0, 1)]
    assert everything(sizes(60_000, 5_000, 600)) == [slice(0, 2)]
    assert everything([]) == []


def test_any_number_of_commits_makes_few_segments_and_each_document_is_written_few_times():
    segments, written = [], 0
    for _ in range(20_000):
        segments.append(Size(1, 1))
        while groups := worthwhile(segments):
            for group in reversed(groups):
                live = sum(size.live for size in segments[group])
                segments[group] = [Size(live, live)]
                written += live
    assert sum(size.live for size in segments) == 20_000
    assert len(segments) <= 7 * 5
    assert written <= 5 * 20_000


def test_compaction_changes_no_row_no_score_and_no_tie(tmp_path, small_segments):
    documents = {f"d{n}": {n % 3: 1.0, 3 + n % 5: 0.5} for n in range(100)}
    make(tmp_path / "i", {"d0": documents["d0"]})
    with IndexWriter(tmp_path / "i", merge=False) as writer:
        for start in range(1, 100, 9):
            put(writer, {id: documents[id] for id in list(documents)[start : start + 9]})
            writer.commit()
        gone = [f"d{n}" for n in range(100) if n % 7 < 5]
        writer.delete(gone)
        writer.commit()
        with Index.open(tmp_path / "i") as index:
            before = index.search(vectors_of([{0: 1.0, 4: 1.0}, {5: 2.0}]), 100)
            kept = [record.row for record in map(index.document, documents.keys() - set(gone))]
            stored = index.vectors(sorted(kept))
        writer.compact()
    with Index.open(tmp_path / "i") as index:
        assert index.search(vectors_of([{0: 1.0, 4: 1.0}, {5: 2.0}]), 100) == before
        for threads in (2, 3):
            assert index.search(vectors_of([{0: 1.0, 4: 1.0}]), 100, threads=threads) == before[:1]
        assert index.search(vectors_of([{0: 1.0, 4: 1.0}]), 100, where="id != 'd5'")[0] == [
            hit for hit in before[0] if hit.id != "d5"
        ]
        read = index.vectors(sorted(kept))
        assert read.terms.tolist() == stored.terms.tolist()
        assert (index.info().segments, index.info().deleted, index.check()) == (2, 0, [])  # 28 documents, 16 a segment
        assert list(tmp_path.glob("i/rows-*"))
        with pytest.raises(BadInput, match="row 1 is not"):
            index.vectors([1])
        vectors = {
            row: block.row(row - first) for first, block in index.blocks() for row in range(first, first + len(block))
        }
        assert [terms.tolist() for terms, _ in map(vectors.get, sorted(kept))] == [
            stored.row(n)[0].tolist() for n in range(len(kept))
        ]
        assert {row for row, (terms, _) in vectors.items() if len(terms)} == set(kept)
        assert len(vectors.keys() - set(kept)) > 10


def test_rewriting_leaves_gaps_behind_and_keeps_the_order(tmp_path, small_segments):
    make(tmp_path / "i", {f"d{n}": {0: 1.0} for n in range(20)})
    with IndexWriter(tmp_path / "i") as writer:
        writer.delete([f"d{n}" for n in range(0, 20, 3)])
    with Index.open(tmp_path / "i") as index, index.rewrite(tmp_path / "j", lambda vectors: vectors) as copy:
        assert [id for id, _ in found(copy, {0: 1.0})] == [id for id, _ in found(index, {0: 1.0})]
        assert [hit.row for hit in copy.search(vectors_of([{0: 1.0}]), 20)[0]] == list(range(13))


def test_a_damaged_segment_is_not_compacted_into_a_sound_one(path):
    with IndexWriter(path) as writer:
        writer.delete(["a"])
    (segment,) = path.glob("segment-*")
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    segment.write_bytes(content)
    with IndexWriter(path) as writer, pytest.raises(CorruptIndex, match="fails its checksum"):
        writer.compact()
    assert segment.read_bytes() == content


def test_a_merge_that_fails_takes_no_commit_back(path, monkeypatch, caplog):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    with IndexWriter(path) as writer:
        monkeypatch.setattr(writer, "_read", full)
        for number in range(8):
            put(writer, {f"n{number}": {0: 1.0}})
            writer.commit()
        assert "small segments stay as they are" in caplog.text
        monkeypatch.undo()
        put(writer, {"last": {0: 1.0}})
    with Index.open(path) as index:
        assert (len(index), index.info().segments, index.check()) == (12, 1, [])


def test_equal_documents_share_a_file_until_the_last_of_them_goes(path):
    with IndexWriter(path, merge=False) as writer:
        for name in "xyz":
            put(writer, {name: {0: 7.0}})
            writer.commit()
        assert len(list(path.glob("segment-*"))) == 2
        writer.delete(["x"])
        writer.commit()
        writer.delete(["z"])
        writer.commit()
        with Index.open(path) as index:
            assert found(index, {0: 1.0}, 1) == [("y", 7.0)]
            assert index.check() == []
            writer.delete(["y"])
            writer.commit()
            assert len(list(path.glob("segment-*"))) == 2  # the reader has it
            put(writer, {"w": {0: 7.0}})  # and so has the index again
            writer.commit()
        put(writer, {"v": {0: 8.0}})
        writer.commit()
        assert len(list(path.glob("segment-*"))) == 3
    with Index.open(path) as index:
        assert found(index, {0: 1.0}, 2) == [("v", 8.0), ("w", 7.0)]


# -- golden files --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir()))
def test_indexes_of_every_version_are_read_searched_and_changed(tmp_path, name):
    import json

    sys.path.insert(0, str(GOLDEN))
    try:
        import make as golden
    finally:
        sys.path.pop(0)
    expected = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
    queries = golden.vectors_of(golden.QUERIES)
    with Index.open(GOLDEN / name) as index:
        assert index.info().format_version == int(name.split("-")[1])
        assert index.check() == []
        assert [[[hit.id, hit.score] for hit in hits] for hits in index.search(queries, 12)] == expected
        assert [index.document(id).fields for id in golden.IDS] == golden.FIELDS
    shutil.copytree(GOLDEN / name, tmp_path / "i")
    with IndexWriter(tmp_path / "i") as writer:
        writer.delete(["k"])
        writer.commit()
        writer.compact()
    with Index.open(tmp_path / "i") as index:
        assert index.info().format_version == 2
        assert index.check() == []
        without = [[[id, score] for id, score in hits if id != "k"] for hits in expected]
        answers = [[[hit.id, hit.score] for hit in hits] for hits in index.search(queries, 12)]
        assert [[id for id, _ in hits] for hits in answers] == [[id for id, _ in hits] for hits in without]
        if name.endswith("f32"):
            assert answers == without


# -- against an oracle ---------------------------------------------------------------------------

names = st.sampled_from([f"d{n}" for n in range(12)])
vectors = st.dictionaries(st.integers(0, 11), st.sampled_from([0.25, 1.0, 3.0]), max_size=3)
batches = st.dictionaries(names, vectors, max_size=6)


class Changes(RuleBasedStateMachine):
    """Any sequence of changes gives what a dict gives: its order is the order of ties."""

    def __init__(self):
        super().__init__()
        self.folder = TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.path = Path(self.folder.name) / "i"
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(writer_module, "BLOCK", 4)
        self.patch.setattr(compaction_module, "BLOCK", 4)
        self.patch.setattr(compaction_module, "TIERS", (2, 4))
        self.readers = []

    @initialize(documents=batches, precision=st.sampled_from(["f32"]))
    def build(self, documents, precision):
        make(self.path, documents, precision=precision)
        self.committed, self.pending = dict(documents), dict(documents)
        self.writer = IndexWriter(self.path)

    @rule(documents=batches)
    def add(self, documents):
        if documents.keys() & self.pending.keys():
            with pytest.raises(DuplicateId):
                put(self.writer, documents)
        else:
            put(self.writer, documents)
            self.pending |= documents

    @rule(documents=batches)
    def upsert(self, documents):
        assert put(self.writer, documents, "upsert") == len(documents.keys() & self.pending.keys())
        for id in documents:
            self.pending.pop(id, None)
        self.pending |= documents

    @rule(ids=st.lists(names, max_size=5))
    def delete(self, ids):
        there = set(ids) & self.pending.keys()
        if there == set(ids):
            assert self.writer.delete(ids) == len(there)
        else:
            with pytest.raises(DocumentNotFound):
                self.writer.delete(ids)
            assert self.writer.delete(ids, missing_ok=True) == len(there)
        for id in there:
            del self.pending[id]

    @rule()
    def commit(self):
        self.writer.commit()
        self.committed = dict(self.pending)

    @rule()
    def rollback(self):
        self.writer.rollback()
        self.pending = dict(self.committed)

    @rule()
    def compact(self):
        self.commit()
        self.writer.compact()

    @rule()
    def reopen(self):
        self.writer.close()
        self.pending = dict(self.committed)
        self.writer = IndexWriter(self.path)

    @precondition(lambda self: len(self.readers) < 3)
    @rule()
    def read(self):
        self.readers.append([Index.open(self.path), dict(self.committed)])

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 2))
    def refresh(self, which):
        reader = self.readers[which % len(self.readers)]
        reader[0].refresh()
        reader[1] = dict(self.committed)

    @precondition(lambda self: self.readers)
    @rule(which=st.integers(0, 2))
    def leave(self, which):
        self.readers.pop(which % len(self.readers))[0].close()

    @invariant()
    def everybody_sees_the_right_state(self):
        if not hasattr(self, "writer"):
            return
        assert len(self.writer) == len(self.pending)
        for index, expected in self.readers:
            check_against(index, expected)

    def teardown(self):
        if hasattr(self, "writer"):
            self.writer.close()
            with Index.open(self.path) as index:
                check_against(index, self.committed)
                assert index.check() == []
        for index, expected in self.readers:
            check_against(index, expected)
            assert index.check() == []
            index.close()
        self.patch.undo()
        self.folder.cleanup()


def check_against(index, expected):
    """The index answers as brute force over a dict does, down to the order of ties, and like a fresh build."""
    assert len(index) == len(expected)
    for query in ({0: 1.0, 5: 0.5}, dict.fromkeys(range(12), 1.0)):
        scores = [
            (id, sum(row.get(term, 0.0) * weight for term, weight in query.items())) for id, row in expected.items()
        ]
        ranked = sorted((hit for hit in scores if hit[1] > 0), key=lambda hit: -hit[1])
        hits = index.search(vectors_of([query]), 20)[0]
        assert [(hit.id, hit.score) for hit in hits] == ranked
        assert all(hit.fields == {"v": list(expected[hit.id])} for hit in hits)
    for id in ("d0", "d7"):
        if id in expected:
            row = index.document(id).row
            assert dict(zip(*(part.tolist() for part in index.vectors([row]).row(0)), strict=True)) == expected[id]
        else:
            with pytest.raises(DocumentNotFound):
                index.document(id)


TestChanges = Changes.TestCase
TestChanges.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
