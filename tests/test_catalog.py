import json
import os
import sqlite3
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex.catalog import Catalog
from polylex.errors import (
    BadInput,
    CorruptIndex,
    DocumentNotFound,
    DuplicateId,
    IndexLocked,
    PolylexError,
    StorageFull,
    UnknownFormat,
)
from polylex.storage import Written
from polylex.tables import Deleted, FileEntry
from polylex.transactions import WritableCatalog

ENTRY = FileEntry(0, 2, 9, "segment-0", 100, "ff" * 32)
ROWS = np.array([0, 1])
FIELDS = [{"text": "Ünï 字", "n": [1, 2.5, None, True]}, {}]


def filled(path):
    catalog = WritableCatalog.write(path)
    with catalog.transaction():
        catalog.set_meta("colour", "red")
        catalog.add_documents(0, ["a", "b"], FIELDS)
        catalog.add_file("segments", ENTRY)
        catalog.complete()
    return catalog


def complete(path):
    filled(path).close()
    return path


def test_what_was_written_is_read_back(tmp_path):
    catalog = Catalog.read(complete(tmp_path / "c"))
    assert catalog.meta == {"colour": "red"}
    assert (catalog.segments, catalog.chunks, catalog.building, len(catalog)) == ([ENTRY], [], False, 2)
    assert [(record.row, record.id, record.fields) for record in catalog.records([1, 0, 1])] == [
        (1, "b", {}),
        (0, "a", FIELDS[0]),
        (1, "b", {}),
    ]
    assert catalog.record("a").fields == FIELDS[0]
    assert catalog.ids([1, 7]) == {1: "b"}
    assert [record.id for record in catalog.records_between(1, 9)] == ["b"]
    assert catalog.faults([ROWS]) == []


def test_deletions_and_lists_of_rows_come_back_and_damage_of_either_is_noticed(tmp_path):
    path, gone = complete(tmp_path / "c"), np.array([False, True])
    catalog = WritableCatalog.update(path)
    with catalog.transaction():
        catalog.set_deleted(0, Deleted.of(gone))
        catalog.add_places(0, Written("rows-0", 7, "ee" * 32))
        catalog.remove_documents([1], 1, 2)
        catalog.set_meta("generation", "1")
    catalog.close()
    catalog = Catalog.read(path)
    assert (len(catalog), catalog.generation, catalog.deleted[0].mask(2).tolist()) == (1, 1, gone.tolist())
    assert catalog.places == {0: Written("rows-0", 7, "ee" * 32)}
    assert catalog.faults([ROWS[:1]]) == []
    assert catalog.faults([ROWS]) != []
    catalog.close()
    whole = path.read_bytes()
    for change in (
        "UPDATE deleted SET bits = x'01'",
        "UPDATE deleted SET documents = 2",
        "DELETE FROM deleted",
        "UPDATE places SET file = 'rows-1'",
        "UPDATE meta SET value = '2' WHERE key = 'generation'",
    ):
        connection = sqlite3.connect(path)
        with connection:
            connection.execute(change)
        connection.close()
        with pytest.raises(CorruptIndex, match="damaged"):
            Catalog.read(path)
        path.write_bytes(whole)


def test_another_program_reads_it_with_the_tables_of_the_format_page(tmp_path):
    connection = sqlite3.connect(complete(tmp_path / "c"))
    assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    assert connection.execute("PRAGMA application_id").fetchone() == (int.from_bytes(b"PLX1", "big"),)
    text = '{"text":"Ünï 字","n":[1,2.5,null,true]}'
    assert connection.execute("SELECT * FROM documents").fetchall() == [
        (0, "a", text, zlib.crc32(b"a\0" + text.encode())),
        (1, "b", "{}", zlib.crc32(b"b\0{}")),
    ]
    assert connection.execute("SELECT json_extract(fields, '$.n[1]') FROM documents WHERE row = 0").fetchone() == (2.5,)
    connection.close()


def test_thousands_of_rows_are_read_at_one_time(tmp_path):
    catalog = WritableCatalog.write(tmp_path / "c")
    with catalog.transaction():
        catalog.add_documents(0, [f"d{row}" for row in range(1200)], [{"row": row} for row in range(1200)])
    wanted = list(range(1199, -1, -1))
    assert [record.fields["row"] for record in catalog.records(wanted)] == wanted
    assert catalog.ids(wanted) == {row: f"d{row}" for row in wanted}
    catalog.close()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), unique=True),
    fields=st.dictionaries(st.text(st.characters()), json_values, max_size=3),
)
def test_any_id_and_any_json_object_come_back(tmp_path_factory, ids, fields):
    catalog = WritableCatalog.write(tmp_path_factory.mktemp("catalog") / "c")
    with catalog.transaction():
        catalog.add_documents(0, ids, [fields] * len(ids))
    for row, id in enumerate(ids):
        record = catalog.record(id)
        assert (record.row, record.fields) == (row, fields)
    catalog.close()


def test_nul_and_lone_surrogates_in_fields_come_back(tmp_path):
    catalog = WritableCatalog.write(tmp_path / "c")
    with catalog.transaction():
        catalog.add_documents(0, ["a"], [{"text": "x\0\ud800y"}])
    assert catalog.record("a").fields == {"text": "x\0\ud800y"}
    catalog.close()


@pytest.mark.parametrize("id", ["", "a\0b", "\ud800", 7, None])
def test_ids_that_cannot_be_stored_are_refused(tmp_path, id):
    catalog = WritableCatalog.write(tmp_path / "c")
    with pytest.raises(BadInput, match="an id is text"), catalog.transaction():
        catalog.add_documents(0, ["fine", id], [{}, {}])
    with pytest.raises(DocumentNotFound):
        catalog.record("fine")
    with pytest.raises(DocumentNotFound):
        catalog.record(id)
    catalog.close()


@pytest.mark.parametrize("fields", [{"x": float("nan")}, {"x": object()}, {(1, 2): 3}, [1], None])
def test_fields_that_are_no_json_object_are_refused_by_name(tmp_path, fields):
    catalog = WritableCatalog.write(tmp_path / "c")
    with pytest.raises(BadInput, match="document 'a': its fields"), catalog.transaction():
        catalog.add_documents(0, ["a"], [fields])
    catalog.close()


def test_a_repeated_id_is_named_and_takes_the_whole_transaction_back(tmp_path):
    catalog = WritableCatalog.write(tmp_path / "c")
    with catalog.transaction():
        catalog.add_documents(0, ["a", "b"], [{}, {}])
    with pytest.raises(DuplicateId, match="'b' is in the index already, as row 1"), catalog.transaction():
        catalog.set_meta("colour", "red")
        catalog.add_documents(2, ["c", "b"], [{}, {}])
    with pytest.raises(DuplicateId, match="two documents have the id 'c'"), catalog.transaction():
        catalog.add_documents(2, ["c", "c"], [{}, {}])
    assert catalog.meta == {}
    assert catalog.ids([0, 1, 2, 3]) == {0: "a", 1: "b"}
    catalog.close()


def test_an_error_inside_takes_the_transaction_back(tmp_path):
    catalog = filled(tmp_path / "c")
    with pytest.raises(RuntimeError), catalog.transaction():
        catalog.set_meta("colour", "blue")
        raise RuntimeError
    assert catalog.meta == {"colour": "red"}
    catalog.close()
    assert Catalog.read(tmp_path / "c").meta == {"colour": "red"}


def test_a_full_disk_takes_the_transaction_back(tmp_path):
    catalog = WritableCatalog.write(tmp_path / "c")
    (pages,) = catalog._connection.execute("PRAGMA page_count").fetchone()
    catalog._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StorageFull, match="disk is full"), catalog.transaction():
        catalog.add_documents(0, ["a"], [{"text": "x" * 100_000}])
    assert len(catalog) == 0
    with catalog.transaction():
        catalog.add_documents(0, ["a"], [{}])
    assert catalog.record("a").fields == {}
    catalog.close()


# -- one writer ----------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_told_who_the_first_is(tmp_path):
    first = WritableCatalog.write(tmp_path / "c")
    code = (
        "from pathlib import Path; from polylex.transactions import WritableCatalog; "
        f"WritableCatalog.write(Path({str(tmp_path / 'c')!r}))"
    )
    second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "IndexLocked" in second.stderr
    assert f"process {os.getpid()} on" in second.stderr
    with pytest.raises(IndexLocked):
        WritableCatalog.write(tmp_path / "c")
    first.close()
    WritableCatalog.write(tmp_path / "c").close()


def test_many_threads_read_at_one_time(tmp_path):
    catalog = Catalog.read(complete(tmp_path / "c"))
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda row: catalog.records([row % 2])[0].id, range(200))) == {"a", "b"}


# -- damage --------------------------------------------------------------------------------------


def test_a_missing_catalog_is_not_made_by_reading(tmp_path):
    with pytest.raises(FileNotFoundError):
        Catalog.read(tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_other_versions_and_other_programs_files_are_refused(tmp_path):
    path = complete(tmp_path / "c")
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 3")
    with pytest.raises(UnknownFormat, match="version 3, this release reads 1 and 2"):
        Catalog.read(path)
    connection.execute("PRAGMA application_id = 7")
    connection.close()
    with pytest.raises(CorruptIndex, match="another program"):
        Catalog.read(path)
    path.write_bytes(b"no database" * 100)
    for opening in (Catalog.read, WritableCatalog.write):
        with pytest.raises(CorruptIndex):
            opening(path)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE meta SET value = 'blue' WHERE key = 'colour'",
        "DELETE FROM meta WHERE key = 'digest'",
        "UPDATE segments SET postings = 10",
        "DELETE FROM segments",
        "DROP TABLE meta",
        "DROP TABLE segments",
    ],
)
def test_changed_settings_or_segments_are_noticed_on_opening(tmp_path, change):
    path = complete(tmp_path / "c")
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(CorruptIndex):
        Catalog.read(path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("UPDATE documents SET fields = '{\"text\":1}' WHERE row = 0", "row 0 fails its checksum"),
        ("UPDATE documents SET id = 'z' WHERE row = 0", "row 0 fails its checksum"),
        ("UPDATE documents SET crc32 = crc32 + 1 WHERE row = 0", "row 0 fails its checksum"),
        ("DELETE FROM documents WHERE row = 0", "documents of rows 0 to 2 are missing|no document for row 0"),
        ("DROP TABLE documents", "documents"),
    ],
)
def test_changed_documents_are_noticed_on_reading_and_by_faults(tmp_path, change, fault):
    path = complete(tmp_path / "c")
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(change)
    connection.close()
    catalog = Catalog.read(path)
    with pytest.raises(CorruptIndex, match=fault):
        catalog.records([0, 1])
    assert len(catalog.faults([ROWS])) == 1


def test_no_flipped_byte_goes_unnoticed_and_none_makes_another_kind_of_error(tmp_path):
    path = complete(tmp_path / "c")
    whole = path.read_bytes()
    expected = (json.dumps(FIELDS), [ENTRY], {"colour": "red"})
    for at in range(0, len(whole), 7):
        if not any(whole[max(0, at - 3) : at + 4]):
            continue  # free space of a page
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x21]) + whole[at + 1 :])
        try:
            catalog = Catalog.read(path)
            faults = catalog.faults([ROWS])
            read = json.dumps([record.fields for record in catalog.records([0, 1])])
            by_id = [catalog.record(id).row for id in "ab"]
        except PolylexError:
            continue
        if not faults:
            # a counter in the header, a name in the schema: what is read must be what was written
            assert (read, catalog.segments, catalog.meta) == expected
            assert by_id == [0, 1]
        catalog.close()


@pytest.mark.parametrize("keep", [0, 1, 99, 4096, 4097, -4096, -1])
def test_a_truncated_catalog_is_noticed(tmp_path, keep):
    path = complete(tmp_path / "c")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptIndex):
        Catalog.read(path)
