import os
import shutil
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex import builder as builder_module
from polylex import index as index_module
from polylex.errors import (
    BadInput,
    CorruptIndex,
    DocumentNotFound,
    IndexNotFound,
    PolylexError,
    UnknownFormat,
    VocabMismatch,
)
from polylex.index import Hit, Index
from polylex.prune import Pruning
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

VOCAB = Vocab([f"word{i}" for i in range(10)], [f"token{i}" for i in range(10)])


def vectors_of(rows, vocab=VOCAB.fingerprint):
    pairs = [
        (np.array(sorted(row), np.uint32), np.array([row[term] for term in sorted(row)], np.float32)) for row in rows
    ]
    return SparseVectors.from_rows(pairs, vocab)


def make(path, rows, **options):
    ids = [f"d{row}" for row in range(len(rows))]
    fields = [{"row": row, "text": "字" * row} for row in range(len(rows))]
    return Index.build(path, vectors_of(rows), ids, fields, vocab=VOCAB, **options)


def brute_force(rows, query, k):
    """Score every document by definition, rounding to float32 after each product and each sum, in order of terms."""
    scores = []
    for row in rows:
        score = np.float32(0)
        for term in sorted(query):
            if term in row:
                score = np.float32(score + np.float32(np.float32(query[term]) * np.float32(row[term])))
        scores.append(float(score))
    ranked = sorted(enumerate(scores), key=lambda hit: (-hit[1], hit[0]))
    return [hit for hit in ranked if hit[1] > 0][:k]


def some_rows(count, seed):
    """Vectors with few distinct weights, so that ties are common."""
    draw = np.random.default_rng(seed)
    return [
        {int(term): float(draw.choice([0.5, 1, 1, 2])) for term in draw.integers(0, 20, draw.integers(0, 6))}
        for _ in range(count)
    ]


@pytest.fixture
def small_segments(monkeypatch):
    """Segments of 16 documents, so that a few dozen make several."""
    monkeypatch.setattr(builder_module, "BLOCK", 16)


@pytest.fixture
def folder(tmp_path, small_segments):
    """An index of 40 documents in three segments."""
    make(tmp_path / "i", some_rows(40, 1), encoder="mini", weights_id="w1", settings={"a": [1]}).close()
    return tmp_path / "i"


# -- searching -----------------------------------------------------------------------------------


def test_hits_carry_id_score_row_and_fields_best_first(tmp_path):
    with make(tmp_path / "i", [{1: 0.5, 12: 2.0}, {2: 1.0}, {1: 1.0}]) as index:
        hits = index.search(vectors_of([{1: 2.0, 12: 0.25}, {3: 1.0}, {}]))
    # document 2: 2 * 1 = 2; document 0: 2 * 0.5 + 0.25 * 2 = 1.5
    assert hits == [
        [Hit("d2", 2.0, 2, {"row": 2, "text": "字字"}), Hit("d0", 1.5, 0, {"row": 0, "text": ""})],
        [],
        [],
    ]


vectors = st.dictionaries(st.integers(0, 19), st.sampled_from([0.25, 1.0, 3.0, 0.1]), max_size=5)


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(vectors, max_size=40), queries=st.lists(vectors, max_size=5), k=st.integers(1, 50))
def test_results_are_those_of_brute_force_whatever_the_threads(tmp_path_factory, rows, queries, k):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder_module, "BLOCK", 16)
        patch.setattr(index_module, "_QUERIES", 2)
        with make(tmp_path_factory.mktemp("index") / "i", rows) as index:
            for threads in (1, 2, 3, 8):
                found = index.search(vectors_of(queries), k, threads=threads)
                assert [[(hit.row, hit.score) for hit in hits] for hits in found] == [
                    brute_force(rows, query, k) for query in queries
                ]
                one_by_one = [index.search(vectors_of([query]), k, threads=threads)[0] for query in queries]
                assert one_by_one == found


def test_arrays_of_top_are_padded(folder):
    with Index.open(folder) as index:
        rows, scores = index.top(vectors_of([{1: 1.0}, {}]), 100, threads=2)
    assert (rows.shape, rows.dtype, scores.shape, scores.dtype) == ((2, 100), np.int64, (2, 100), np.float32)
    count = sum(1 in row for row in some_rows(40, 1))
    assert (rows[0, count:] == -1).all()
    assert (scores[0, count:] == 0).all()
    assert (rows[1] == -1).all()


def test_fields_can_be_left_out(folder):
    with Index.open(folder) as index:
        query = vectors_of([{1: 1.0}])
        short, full = index.search(query, 3, with_fields=False)[0], index.search(query, 3)[0]
    assert [(hit.id, hit.score, hit.row, hit.fields) for hit in short] == [
        (hit.id, hit.score, hit.row, {}) for hit in full
    ]


def test_many_threads_may_share_an_index(folder):
    rows = some_rows(40, 1)
    queries = [vectors_of([row]) for row in rows]
    with Index.open(folder) as index:
        alone = [index.search(query, 5) for query in queries]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda query: index.search(query, 5, threads=2), queries * 3))
    assert together == alone * 3


def test_an_empty_index_answers(tmp_path):
    with make(tmp_path / "i", []) as index:
        assert index.search(vectors_of([{1: 1.0}]), threads=4) == [[]]
        assert (len(index), index.check(), index.info().terms_per_document) == (0, [], 0.0)
        assert len(index.vectors([])) == 0


def test_bytes_halve_the_postings_and_rank_by_the_rounded_weights(tmp_path):
    rows = some_rows(60, 2)
    with make(tmp_path / "f", rows) as full, make(tmp_path / "u", rows, precision="u8") as small:
        assert (full.info().precision, small.info().precision) == ("f32", "u8")
        assert small.check() == []
        rounded = small.vectors(range(60))
        as_dicts = [dict(zip(*(part.tolist() for part in rounded.row(row)), strict=True)) for row in range(60)]
        query = {1: 1.0, 4: 2.0, 11: 0.5}
        rows_found, scores = small.top(vectors_of([query]), 10)
        expected = brute_force(as_dicts, query, 10)
        # the kernel multiplies by weight * unit, a reader by unit * byte: the last bit may differ
        np.testing.assert_allclose(scores[0], [score for _, score in expected], rtol=1e-6)
        assert set(rows_found[0].tolist()) == {row for row, _ in expected}


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": -1}, {"threads": 0}])
def test_a_count_below_one_is_refused(folder, wrong):
    with Index.open(folder) as index, pytest.raises(BadInput, match="at least 1"):
        index.search(vectors_of([{1: 1.0}]), **wrong)


def test_queries_of_another_vocabulary_are_refused(folder):
    with Index.open(folder) as index, pytest.raises(VocabMismatch, match=r"/i has"):
        index.search(vectors_of([{1: 1.0}], "0" * 64))


def test_a_closed_index_says_so(folder):
    index = Index.open(folder)
    index.close()
    index.close()
    with pytest.raises(BadInput, match="is closed"):
        index.search(vectors_of([{1: 1.0}]))
    with pytest.raises(BadInput, match="is closed"):
        index.document("d1")


# -- looking up ----------------------------------------------------------------------------------


def test_documents_are_found_by_id(folder):
    with Index.open(folder) as index:
        record = index.document("d20")
        assert (record.id, record.row, record.fields["row"]) == ("d20", 20, 20)
        for id in ("D20", "d40", "", "d2\0"):
            with pytest.raises(DocumentNotFound, match=r"ids are compared exactly"):
                index.document(id)


def test_vectors_come_back_in_the_order_asked_for(folder):
    wanted = [39, 0, 17, 16, 15, 0]
    with Index.open(folder) as index:
        read, expected = index.vectors(wanted), vectors_of([some_rows(40, 1)[row] for row in wanted])
        for outside in (40, -1):
            with pytest.raises(BadInput, match=rf"row {outside} is not in \[0, 40\)"):
                index.vectors([0, outside])
    assert read.vocab == expected.vocab
    assert read.indptr.tolist() == expected.indptr.tolist()
    assert read.terms.tolist() == expected.terms.tolist()
    assert read.weights.tolist() == expected.weights.tolist()


def test_info_says_what_the_index_is(folder):
    with Index.open(folder) as index:
        info = index.info()
        assert index.vocab == VOCAB
    rows = some_rows(40, 1)
    postings = sum(map(len, rows))
    assert (info.documents, info.segments, info.postings) == (40, 3, postings)
    assert info.terms_per_document == postings / 40
    assert info.bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert (info.encoder, info.weights_id, info.settings) == ("mini", "w1", {"a": [1]})
    assert (info.vocab, info.precision, info.format_version, info.path) == (VOCAB.fingerprint, "f32", 2, folder)
    assert info.created.endswith("+00:00")


# -- rewriting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("documents", [5, 8192])
def test_a_rewritten_index_holds_the_pruned_vectors_and_everything_else(folder, monkeypatch, documents):
    monkeypatch.setattr(index_module, "_DOCUMENTS", documents)
    with Index.open(folder) as index, index.rewrite(folder.parent / "j", Pruning(top_k=2)) as pruned:
        assert pruned.check() == []
        read, expected = pruned.vectors(range(40)), Pruning(top_k=2)(vectors_of(some_rows(40, 1)))
        assert read.terms.tolist() == expected.terms.tolist()
        assert read.weights.tolist() == expected.weights.tolist()
        assert pruned.document("d33") == index.document("d33")
        old, new = index.info(), pruned.info()
        for name in ("documents", "encoder", "weights_id", "vocab", "settings", "precision"):
            assert getattr(new, name) == getattr(old, name)
    with Index.open(folder) as index:
        index.rewrite(folder, Pruning(), overwrite=True, precision="u8", settings={"b": 2}).close()
    with Index.open(folder) as index:
        assert (index.info().precision, index.info().settings, index.check()) == ("u8", {"b": 2}, [])


def test_a_rewriting_that_fails_leaves_nothing(folder):
    def fails_late(vectors):
        if len(vectors) < 16:  # the last segment
            raise BadInput("no")
        return vectors

    with Index.open(folder) as index, pytest.raises(BadInput, match="no"):
        index.rewrite(folder.parent / "j", fails_late)
    assert [path.name for path in folder.parent.iterdir()] == ["i"]


def test_building_from_memory_forgets_an_interrupted_build(tmp_path):
    with builder_module.IndexBuilder(tmp_path / "i", VOCAB) as builder:
        builder.add(["x"], None, vectors_of([{1: 1.0}]))
    with make(tmp_path / "i", [{}, {}]) as index:
        assert len(index) == 2


# -- where it lies -------------------------------------------------------------------------------


def test_what_is_no_index_is_not_found(tmp_path, folder):
    for path in (tmp_path / "nothing", tmp_path, folder / "index.sqlite"):
        with pytest.raises(IndexNotFound, match="polylex index"):
            Index.open(path)


def test_a_path_may_be_text_with_any_characters(tmp_path):
    path = os.path.join(tmp_path, "ein Ordner?#% 字")
    make(path, [{1: 1.0}]).close()
    with Index.open(path) as index:
        assert len(index.search(vectors_of([{1: 1.0}]))[0]) == 1


@pytest.fixture
def read_only(tmp_path, folder):
    """The folder of an index where nothing can be written."""
    if os.geteuid():
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    (tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(tmp_path / "disk")]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("root may write everywhere, and may not mount here")
    shutil.copytree(folder, tmp_path / "disk" / "i")
    subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
    yield tmp_path / "disk" / "i"
    subprocess.run(["umount", str(tmp_path / "disk")], check=True)


def test_a_read_only_folder_is_enough(read_only):
    with pytest.raises(OSError, match=r"[Rr]ead-only|denied"):
        (read_only / "x").write_text("x")
    with Index.open(read_only) as index:
        assert index.check() == []
        assert index.search(vectors_of([{1: 1.0}]), 1)[0][0].fields
        assert index.vocab == VOCAB


# -- damage --------------------------------------------------------------------------------------


def damaged_copy(folder, name):
    """A copy of an index, and one of its files in it."""
    copy = folder.with_name("copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    return copy, copy / name


def test_a_missing_short_or_long_file_is_named_on_opening(folder):
    names = sorted(file.name for file in folder.iterdir())
    assert len(names) == 5
    for name in names:
        for change in (lambda whole: None, lambda whole: whole[:-1], lambda whole: b"", lambda whole: whole + b"\0"):
            copy, file = damaged_copy(folder, name)
            content = change(file.read_bytes())
            if content is None:
                file.unlink()
            else:
                file.write_bytes(content)
            if name == "index.sqlite" and content != b"" and (content is None or len(content) % 4096 == 1):
                continue  # an absent catalog is no index; a byte after the last page is not part of it
            with pytest.raises(CorruptIndex, match=name):
                Index.open(copy)


def test_check_names_a_file_that_went_away(folder):
    with Index.open(folder) as index:
        file = next(folder.glob("segment-*"))
        file.unlink()
        assert [file.name in fault for fault in index.check()] == [True]


def test_an_index_may_be_replaced_while_it_is_opened(folder, monkeypatch):
    opened, read = [], index_module.Catalog.read

    def read_late(path):
        catalog = read(path)
        if not opened:
            opened.append(path)
            make(folder, [{1: 1.0}], overwrite=True).close()  # the segments that the catalog names are gone now
        return catalog

    monkeypatch.setattr(index_module.Catalog, "read", read_late)
    with Index.open(folder) as index:
        assert len(index) == 1


def test_every_flipped_byte_of_a_segment_or_the_vocabulary_is_found(folder):
    """By opening or by `check`; until then searching ends well or with our error."""
    query = vectors_of([dict.fromkeys(range(20), 1.0)])
    for name in sorted(file.name for file in folder.iterdir() if file.name != "index.sqlite"):
        whole = (folder / name).read_bytes()
        copy, file = damaged_copy(folder, name)
        for at in range(0, len(whole), 5 if name.startswith("segment") else 1):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
            try:
                with Index.open(copy) as index:
                    faults = index.check()
                    assert faults
                    assert all(name in fault for fault in faults)
                    index.search(query, 40)
                    index.vectors(range(40))
            except (CorruptIndex, UnknownFormat) as fault:
                assert name in str(fault)


@pytest.fixture(scope="module")
def catalog_to_damage(tmp_path_factory):
    """The folder of an index, the bytes of its catalog, and the positions of those that are in use."""
    folder = tmp_path_factory.mktemp("damage") / "i"
    make(folder, some_rows(40, 1)).close()
    whole = (folder / "index.sqlite").read_bytes()
    return folder, whole, [at for at in range(len(whole)) if any(whole[max(0, at - 2) : at + 3])]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_damage_of_the_catalog_makes_another_kind_of_error(catalog_to_damage, data):
    folder, whole, used = catalog_to_damage
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.sampled_from(used))] = data.draw(st.integers(0, 255))
    (folder / "index.sqlite").write_bytes(damaged)
    try:
        with Index.open(folder) as index:
            index.check()
            index.info()
            index.search(vectors_of([dict.fromkeys(range(20), 1.0)]), 40)
            index.document("d7")
    except PolylexError:
        pass


def test_a_segment_of_another_index_is_refused(tmp_path, folder):
    make(tmp_path / "j", some_rows(40, 3)).close()
    ours, theirs = (sorted(path.glob("segment-*")) for path in (folder, tmp_path / "j"))
    connection = sqlite3.connect(folder / "index.sqlite")
    sizes = dict(connection.execute("SELECT file, bytes FROM segments"))
    connection.close()
    content = theirs[0].read_bytes()[: sizes[ours[0].name]]
    ours[0].write_bytes(content + bytes(sizes[ours[0].name] - len(content)))
    with pytest.raises(CorruptIndex, match=ours[0].name):
        Index.open(folder)
