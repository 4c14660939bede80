import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from polylex import builder as builder_module
from polylex.builder import IndexBuilder
from polylex.errors import (
    BadInput,
    BadVectors,
    CorruptIndex,
    DuplicateId,
    IndexExists,
    IndexLocked,
    IndexNotFound,
    StorageFull,
    UnfinishedBuild,
    VocabMismatch,
)
from polylex.index import Index
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

VOCAB = Vocab([f"word{i}" for i in range(20)], [f"token{i}" for i in range(20)])


def chunk(start, rows):
    """Documents `start` .. `start + rows - 1`: document d has term d % 40 with weight d + 1, and the next term."""
    numbers = range(start, start + rows)
    pairs = [(np.array(sorted({d % 40, (d + 1) % 40}), np.uint32), np.array([d + 1, 0.5], np.float32)) for d in numbers]
    return [f"d{d}" for d in numbers], [{"n": d} for d in numbers], SparseVectors.from_rows(pairs, VOCAB.fingerprint)


def build(path, chunks, **options):
    with IndexBuilder(path, VOCAB, **options) as builder:
        for start, rows in chunks:
            builder.add(*chunk(start, rows))
        builder.finish()


def assert_holds(path, rows):
    """The index at `path` is whole and holds documents 0 .. rows - 1."""
    ids, fields, vectors = chunk(0, rows)
    with Index.open(path) as index:
        assert index.check() == []
        assert len(index) == rows
        if rows:
            read = index.vectors(range(rows))
            assert read.indptr.tolist() == vectors.indptr.tolist()
            assert read.terms.tolist() == vectors.terms.tolist()
            assert read.weights.tolist() == vectors.weights.tolist()
        for row in (0, rows // 2, rows - 1) if rows else ():
            record = index.document(ids[row])
            assert (record.row, record.fields) == (row, fields[row])
    names = sorted(file.name.split("-")[0] for file in path.iterdir())
    assert set(names) <= {"index.sqlite", "segment", "vocab"}


@pytest.fixture
def small_segments(monkeypatch):
    """Segments of 16 documents, so that a few dozen make several."""
    monkeypatch.setattr(builder_module, "BLOCK", 16)


@pytest.mark.parametrize("sizes", [[], [1], [16], [5, 5, 5, 5], [40], [7, 33, 1, 15]])
def test_documents_come_out_in_the_order_they_went_in_however_they_were_cut(tmp_path, small_segments, sizes):
    starts = np.cumsum([0, *sizes]).tolist()
    build(tmp_path / "i", list(zip(starts[:-1], sizes, strict=True)))
    assert_holds(tmp_path / "i", sum(sizes))
    assert [file.name for file in tmp_path.iterdir()] == ["i"]


def test_nothing_stands_at_the_path_before_finish(tmp_path, small_segments):
    with IndexBuilder(tmp_path / "i", VOCAB) as builder:
        builder.add(*chunk(0, 40))
        assert not (tmp_path / "i").exists()
        with pytest.raises(IndexNotFound, match="interrupted"):
            Index.open(tmp_path / "i")
    with pytest.raises(IndexNotFound, match="interrupted"):
        Index.open(builder.folder)
    with IndexBuilder(tmp_path / "i", VOCAB) as builder:
        builder.finish()
    assert_holds(tmp_path / "i", 40)


def test_an_interrupted_build_goes_on_after_the_last_chunk(tmp_path, small_segments):
    with IndexBuilder(tmp_path / "i", VOCAB, settings={"a": 1}) as builder:
        assert (len(builder), builder.progress, builder.last_id) == (0, None, None)
        builder.add(*chunk(0, 20), progress={"line": 20})
    with IndexBuilder(tmp_path / "i", VOCAB, settings={"a": 1}) as builder:
        assert (len(builder), builder.progress, builder.last_id) == (20, {"line": 20}, "d19")
        builder.add(*chunk(20, 3))
        assert builder.progress is None
        builder.finish()
    assert_holds(tmp_path / "i", 23)


def test_a_build_that_took_nothing_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), IndexBuilder(tmp_path / "i", VOCAB):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_discarding_and_restarting_forget_what_was_taken(tmp_path, small_segments):
    with IndexBuilder(tmp_path / "i", VOCAB) as builder:
        builder.add(*chunk(0, 40))
        builder.restart()
        assert len(builder) == 0
        builder.add(*chunk(0, 3))
        builder.finish()
    assert_holds(tmp_path / "i", 3)
    with IndexBuilder(tmp_path / "j", VOCAB) as builder:
        builder.add(*chunk(0, 40))
        builder.discard()
    assert [file.name for file in tmp_path.iterdir()] == ["i"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"encoder": "b"}, "encoder was 'a', is now 'b'"),
        ({"weights_id": "2"}, "weights_id was '1', is now '2'"),
        ({"settings": {"x": 2}}, "settings was"),
        ({"precision": "u8"}, "precision was 'f32', is now 'u8'"),
    ],
)
def test_other_settings_do_not_mix_with_an_interrupted_build(tmp_path, change, named):
    settings = {"encoder": "a", "weights_id": "1", "settings": {"x": 1}}
    with IndexBuilder(tmp_path / "i", VOCAB, **settings) as builder:
        builder.add(*chunk(0, 2))
    with pytest.raises(UnfinishedBuild, match=named):
        IndexBuilder(tmp_path / "i", VOCAB, **{**settings, **change})
    with IndexBuilder(tmp_path / "i", VOCAB, **settings) as builder:
        assert len(builder) == 2
    with IndexBuilder(tmp_path / "i", VOCAB, **{**settings, **change}, overwrite=True) as builder:
        assert len(builder) == 0
        builder.add(*chunk(0, 3))
        builder.finish()
    with Index.open(tmp_path / "i") as index:
        assert len(index) == 3


def test_another_vocabulary_does_not_mix_with_an_interrupted_build(tmp_path):
    with IndexBuilder(tmp_path / "i", VOCAB) as builder:
        builder.add(*chunk(0, 2))
    with pytest.raises(UnfinishedBuild, match="vocab was"):
        IndexBuilder(tmp_path / "i", Vocab(["a"], []))
    with IndexBuilder(tmp_path / "i", Vocab(["a"], []), overwrite=True) as builder:
        builder.finish()
    with Index.open(tmp_path / "i") as index:
        assert index.vocab.pivot == ("a",)


def test_a_damaged_interrupted_build_can_be_begun_anew(tmp_path):
    with IndexBuilder(tmp_path / "i", VOCAB) as builder:
        builder.add(*chunk(0, 2))
    (builder.folder / "index.sqlite").write_bytes(b"rubbish" * 1000)
    with pytest.raises(UnfinishedBuild, match="cannot be continued"):
        IndexBuilder(tmp_path / "i", VOCAB)
    build(tmp_path / "i", [(0, 3)], overwrite=True)
    assert_holds(tmp_path / "i", 3)


def test_a_damaged_chunk_is_named(tmp_path):
    with IndexBuilder(tmp_path / "i", VOCAB) as builder:
        builder.add(*chunk(0, 2))
        (file,) = builder.folder.glob("chunk-*")
        file.write_bytes(file.read_bytes()[:-1])
        with pytest.raises(CorruptIndex, match=file.name):
            builder.finish()


# -- what is there already -----------------------------------------------------------------------


def test_an_index_is_replaced_only_when_asked_to_and_only_at_the_end(tmp_path, small_segments):
    path = tmp_path / "i"
    build(path, [(0, 40)])
    (path / "notes.txt").write_text("somebody's own")
    with pytest.raises(IndexExists, match="overwrite=True"):
        IndexBuilder(path, VOCAB)
    with IndexBuilder(path, VOCAB, overwrite=True) as builder:
        builder.add(*chunk(0, 20))
        with Index.open(path) as old:
            assert len(old) == 40
        builder.finish()
    assert (path / "notes.txt").read_text() == "somebody's own"
    (path / "notes.txt").unlink()
    assert_holds(path, 20)
    assert [file.name for file in tmp_path.iterdir()] == ["i"]


def test_an_open_index_goes_on_with_the_old_documents_when_it_is_replaced(tmp_path):
    build(tmp_path / "i", [(0, 40)])
    with Index.open(tmp_path / "i") as old:
        build(tmp_path / "i", [(0, 3)], overwrite=True)
        assert [hit.id for hit in old.search(chunk(0, 40)[2].take([39]), 1)[0]] == ["d39"]
        assert old.document("d20").fields == {"n": 20}
    assert_holds(tmp_path / "i", 3)


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_index_is_never_replaced(tmp_path, overwrite):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    (tmp_path / "file").write_bytes(b"text")
    for name in ("photos", "file"):
        with pytest.raises(IndexExists, match="is not an index"):
            IndexBuilder(tmp_path / name, VOCAB, overwrite=overwrite)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "photos"]


def test_an_index_may_appear_in_an_empty_folder_and_makes_the_folders_above(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        build(path, [(0, 3)])
        assert_holds(path, 3)


def test_an_index_that_appears_while_building_is_not_replaced(tmp_path):
    with IndexBuilder(tmp_path / "i", VOCAB) as builder:
        builder.add(*chunk(0, 3))
        build(tmp_path / "other", [(0, 5)])
        os.rename(tmp_path / "other", tmp_path / "i")
        with pytest.raises(IndexExists):
            builder.finish()
    assert_holds(tmp_path / "i", 5)
    shutil.rmtree(tmp_path / "i")
    with IndexBuilder(tmp_path / "i", VOCAB) as builder:
        assert len(builder) == 3
        with pytest.raises(BadInput, match="complete"):
            builder.add(*chunk(3, 1))
        builder.finish()
    assert_holds(tmp_path / "i", 3)


def test_two_builders_do_not_write_at_one_time(tmp_path):
    with IndexBuilder(tmp_path / "i", VOCAB) as builder:
        builder.add(*chunk(0, 3))
        with pytest.raises(IndexLocked, match=f"process {os.getpid()} on"):
            IndexBuilder(tmp_path / "i", VOCAB, overwrite=True)
        builder.finish()
    assert_holds(tmp_path / "i", 3)


# -- bad input -----------------------------------------------------------------------------------


def test_bad_documents_change_nothing(tmp_path):
    ids, fields, vectors = chunk(3, 2)
    with IndexBuilder(tmp_path / "i", VOCAB) as builder:
        builder.add(*chunk(0, 3))
        before = sorted(file.name for file in builder.folder.iterdir())
        for error, arguments in [
            (DuplicateId, (["d2", "d9"], fields, vectors)),
            (DuplicateId, (["x", "x"], fields, vectors)),
            (BadInput, (["", "x"], fields, vectors)),
            (BadInput, (ids, [{"x": float("inf")}, {}], vectors)),
            (BadInput, (ids[:1], fields, vectors)),
            (BadInput, (ids, fields[:1], vectors)),
            (VocabMismatch, (ids, fields, SparseVectors.empty("other", 2))),
            (BadVectors, (ids, fields, SparseVectors([0, 1, 1], [40], [1.0], VOCAB.fingerprint))),
        ]:
            with pytest.raises(error):
                builder.add(*arguments)
        with pytest.raises(BadInput, match="progress"):
            builder.add(ids, fields, vectors, progress={1, 2})
        assert sorted(file.name for file in builder.folder.iterdir()) == before
        builder.add(ids, fields, vectors)
        builder.finish()
    assert_holds(tmp_path / "i", 5)


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(BadInput, match="f32, u16, u8, got 'f16'"):
        IndexBuilder(tmp_path / "i", VOCAB, precision="f16")
    assert not list(tmp_path.iterdir())


def test_fields_may_be_left_out(tmp_path):
    ids, _, vectors = chunk(0, 3)
    with IndexBuilder(tmp_path / "i", VOCAB) as builder:
        builder.add(ids, None, vectors)
        builder.finish()
    with Index.open(tmp_path / "i") as index:
        assert index.document("d1").fields == {}


# -- crashes -------------------------------------------------------------------------------------


@pytest.fixture
def memory_path(tmp_path):
    """A folder in memory where the system has one: these tests flush to disk hundreds of times."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def run_to_the_end(path, rows=40, step=6, overwrite=False):
    """What a caller does: skip what is there, add the rest, finish."""
    with IndexBuilder(path, VOCAB, overwrite=overwrite) as builder:
        while len(builder) < rows:
            builder.add(*chunk(len(builder), min(step, rows - len(builder))), progress=len(builder))
        builder.finish()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_fault_at_any_step_loses_nothing_and_leaves_no_half_index(
    memory_path, monkeypatch, small_segments, overwrite
):
    calls = {"left": 0}
    originals = {name: getattr(os, name) for name in ("fsync", "replace", "rename")}

    def failing(name):
        def call(*arguments, **options):
            calls["left"] -= 1
            if calls["left"] == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return originals[name](*arguments, **options)

        return call

    for name in originals:
        monkeypatch.setattr(os, name, failing(name))
    for step in range(1, 200):
        path = memory_path / f"i{step}"
        if overwrite:
            calls["left"] = 0
            run_to_the_end(path, rows=5)
        calls["left"] = step
        try:
            run_to_the_end(path, overwrite=overwrite)
        except StorageFull:
            calls["left"] = 0
            if overwrite:
                with Index.open(path) as index:
                    assert len(index) in (5, 40)
                    assert index.check() == []
            elif path.exists():
                assert_holds(path, 40)
                continue
            run_to_the_end(path, overwrite=True)
            assert_holds(path, 40)
        else:
            assert_holds(path, 40)
            break
    else:
        pytest.fail("never ran through")
    assert step > 20  # so many steps can fail


KILLED = """
import sys; sys.path.insert(0, sys.argv[2])
import test_builder
from pathlib import Path
test_builder.builder_module.BLOCK = 32
add = test_builder.IndexBuilder.add
def say(self, *arguments, **options):
    print("adding", flush=True)
    add(self, *arguments, **options)
test_builder.IndexBuilder.add = say
test_builder.run_to_the_end(Path(sys.argv[1]), rows=1500, step=10)
"""


def test_a_killed_build_goes_on_where_it_was(memory_path):
    command = [sys.executable, "-c", KILLED, str(memory_path / "i"), os.path.dirname(__file__)]
    draw = random.Random(3)
    for _ in range(8):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            for _ in range(draw.randint(1, 6)):
                process.stdout.readline()
            time.sleep(draw.uniform(0, 0.004))  # somewhere in an `add`, or in a few
            process.kill()
        assert not (memory_path / "i").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert_holds(memory_path / "i", 1500)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 512 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_really_full_disk_is_an_error_and_the_build_goes_on_when_there_is_room(tiny_disk):
    path, filler = tiny_disk / "i", tiny_disk / "filler"
    for free in range(16, 400, 24):  # KiB
        shutil.rmtree(f"{path}.partial", ignore_errors=True)
        filler.write_bytes(b"")
        while shutil.disk_usage(tiny_disk).free > free * 1024:
            with open(filler, "ab") as file:
                file.write(bytes(4096))
        try:
            run_to_the_end(path)
        except StorageFull:
            assert not path.exists()
        else:
            break
    filler.unlink()
    run_to_the_end(path, overwrite=True)
    assert free > 16
    assert_holds(path, 40)


def test_documents_that_fill_the_disk_take_only_themselves_back(tiny_disk):
    ids, _, vectors = chunk(0, 40)
    with IndexBuilder(tiny_disk / "i", VOCAB) as builder:
        builder.add(ids[:20], None, vectors.take(range(20)))
        with pytest.raises(StorageFull):
            builder.add(ids[20:], [{"text": "x" * 40_000}] * 20, vectors.take(range(20, 40)))
        assert len(builder) == 20
        builder.add(ids[20:], None, vectors.take(range(20, 40)))
        builder.finish()
    with Index.open(tiny_disk / "i") as index:
        assert index.check() == []
        assert json.dumps([record.id for record in index._catalog.records(range(40))]) == json.dumps(ids)
