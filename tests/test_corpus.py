import bz2
import csv
import gzip
import io
import json
import lzma
import sys
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex.corpus import as_document, document_text, read_documents, read_queries
from polylex.errors import BadInput, BadRecord, DuplicateId, DuplicateRecord, MissingExtra, RecordTooLong, TextTooLong
from polylex.files import FORMATS
from polylex.ids import Seen


def write(path, content):
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def pairs(documents):
    return [(document.id, document.text) for document in documents]


def survey(path, **options):
    """What is read, and what is skipped, in order."""
    faults = []
    documents = list(read_documents(path, on_error="skip", on_skip=faults.append, **options))
    return documents, faults


def the_fault(tmp_path, content, name="a.jsonl", **options):
    """The one fault of a file; stopping and skipping must meet the same."""
    path = write(tmp_path / name, content)
    _, faults = survey(path, **options)
    assert len(faults) == 1
    with pytest.raises(BadRecord) as stopped:
        list(read_documents(path, **options))
    assert str(stopped.value) == str(faults[0])
    assert faults[0].source == str(path)
    return faults[0]


# -- formats -----------------------------------------------------------------------------------------

LINES = '{"_id": "a", "title": "Ein", "text": "Haus"}\n{"_id": "b", "title": null, "text": "家", "year": 1948}\n'


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json"])
def test_json_lines_give_id_text_fields_and_place(tmp_path, name):
    path = write(tmp_path / name, LINES)
    first, second = read_documents(path)
    assert (first.id, first.text, first.source, first.line) == ("a", "Ein Haus", str(path), 1)
    assert (second.id, second.text, second.line) == ("b", "家", 2)
    assert second.fields == {"_id": "b", "title": None, "text": "家", "year": 1948}


@pytest.mark.parametrize(
    ("ending", "pack"),
    [
        (".gz", gzip.compress),
        (".xz", lzma.compress),
        (".bz2", bz2.compress),
        (".zst", zstandard.ZstdCompressor().compress),
    ],
)
def test_packed_files_are_unpacked(tmp_path, ending, pack):
    path = write(tmp_path / f"a.jsonl{ending}", pack(LINES.encode()))
    assert pairs(read_documents(path)) == [("a", "Ein Haus"), ("b", "家")]


@pytest.mark.parametrize(
    "content", ["\ufeff" + LINES, LINES.replace("\n", "\r\n"), "\n" + LINES.replace("\n", "\n \n\n")]
)
def test_a_byte_order_mark_crlf_and_blank_lines_do_no_harm(tmp_path, content):
    assert pairs(read_documents(write(tmp_path / "a.jsonl", content))) == [("a", "Ein Haus"), ("b", "家")]


def test_a_last_line_without_an_end_is_read(tmp_path):
    assert len(list(read_documents(write(tmp_path / "a.jsonl", LINES.rstrip())))) == 2


def test_a_line_separator_inside_a_string_ends_no_line(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"id": "a", "text": "one\u2028two"}\n')
    assert pairs(read_documents(path)) == [("a", "one\u2028two")]


def test_tsv_without_a_header_is_id_and_text_and_quotes_mean_nothing(tmp_path):
    path = write(tmp_path / "a.tsv", '7\tHe said "no\n8\t"yes"\n')
    assert pairs(read_documents(path)) == [("7", 'He said "no'), ("8", '"yes"')]


def test_tsv_with_a_known_column_in_its_first_line_has_a_header(tmp_path):
    path = write(tmp_path / "a.tsv", "text\tID\tid\nHaus\tx\t7\n")
    (document,) = read_documents(path)
    assert (document.id, document.text, document.fields["ID"]) == ("7", "Haus", "x")


def test_tsv_finds_its_header_by_the_columns_that_the_user_names(tmp_path):
    path = write(tmp_path / "a.tsv", "Nr\tSatz\n7\tHaus\n")
    assert pairs(read_documents(path, id_field="Nr", text_fields=["Satz"])) == [("7", "Haus")]


def test_csv_keeps_quoted_commas_quotes_and_line_ends(tmp_path):
    path = write(tmp_path / "a.csv", 'id,text\n1,"a, ""b""\nc"\n2,d\n')
    documents = list(read_documents(path))
    assert pairs(documents) == [("1", 'a, "b"\nc'), ("2", "d")]
    assert [document.line for document in documents] == [2, 4]


def test_csv_holds_texts_longer_than_the_131072_characters_of_pythons_default(tmp_path):
    path = write(tmp_path / "a.csv", f"id,text\n1,{'x' * 200_000}\n")
    assert len(next(iter(read_documents(path))).text) == 200_000


def test_parquet_rows_keep_their_values_as_json_and_drop_bytes(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {
        "id": pa.array([1, 2]),
        "text": pa.array(["Haus", "家"]),
        "day": pa.array([0, 1], pa.date32()),
        "score": pa.array([float("nan"), 0.5]),
        "tags": pa.array([["a"], []]),
        "image": pa.array([{"bytes": b"\xff", "path": "p"}] * 2),
    }
    pq.write_table(pa.table(columns), path)
    first, second = read_documents(path)
    assert (first.id, first.text, first.line) == ("1", "Haus", 1)
    assert first.fields == {"id": 1, "text": "Haus", "day": "1970-01-01", "score": None, "tags": ["a"]}
    assert (second.id, second.fields["score"], second.line) == ("2", 0.5, 2)


def test_a_parquet_string_that_is_not_utf8_costs_only_its_row(tmp_path):
    path = tmp_path / "a.parquet"
    broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b"good", b"\xff", b"fine"]).buffers())
    pq.write_table(pa.table({"id": pa.array(["1", "2", "3"]), "text": broken}), path)
    documents, (fault,) = survey(path)
    assert pairs(documents) == [("1", "good"), ("3", "fine")]
    assert fault.line == 2 and "'utf-8' codec can't decode byte 0xff" in fault.reason


def test_parquet_without_its_package_names_the_extra_even_when_skipping(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r'pip install "polylex\[parquet\]"'):
        survey(path)


def test_lines_of_plain_text_are_documents_named_by_file_and_line(tmp_path):
    path = write(tmp_path / "a.txt", "Haus\n\n家\n")
    assert pairs(read_documents(path, format="lines")) == [("a.txt:1", "Haus"), ("a.txt:3", "家")]


# -- folders and standard input ----------------------------------------------------------------------


def test_a_folder_of_texts_is_read_in_order_with_paths_as_ids(tmp_path):
    write(tmp_path / "b.txt", "two\r\nlines")
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "z.md", "\ufefffirst")
    write(tmp_path / "c.txt.gz", gzip.compress(b"third"))
    write(tmp_path / ".hidden.txt", "no")
    write(tmp_path / "picture.png", b"\x89")
    documents = list(read_documents(tmp_path))
    assert pairs(documents) == [("a/z.md", "first"), ("b.txt", "two\nlines"), ("c.txt.gz", "third")]
    assert {document.line for document in documents} == {0}


def test_a_folder_of_tables_is_read_without_the_readme_beside_them(tmp_path):
    write(tmp_path / "2.csv", "id,text\n2,b\n")
    write(tmp_path / "1.jsonl", '{"id": 1, "text": "a"}\n')
    write(tmp_path / "README.md", "about")
    assert pairs(read_documents(tmp_path)) == [("1", "a"), ("2", "b")]
    assert pairs(read_documents(tmp_path, format="text")) == [("README.md", "about")]
    assert pairs(read_documents(tmp_path, format="csv")) == [("2", "b")]


@pytest.mark.parametrize("packed", [False, True])
def test_a_beir_folder_gives_its_corpus_and_its_queries_apart(tmp_path, packed):
    for stem, content in (("corpus", LINES), ("queries", '{"_id": "q", "text": "Wo?", "lang": "de"}\n')):
        name = f"{stem}.jsonl.gz" if packed else f"{stem}.jsonl"
        write(tmp_path / name, gzip.compress(content.encode()) if packed else content)
    assert pairs(read_documents(tmp_path)) == [("a", "Ein Haus"), ("b", "家")]
    (query,) = read_queries(tmp_path)
    assert (query.id, query.text, query.language) == ("q", "Wo?", "de")


def test_standard_input_is_json_lines_unless_said_otherwise(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES.encode())))
    assert [document.source for document in read_documents("-")] == ["<stdin>", "<stdin>"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(b"7\tHaus\n"))))
    assert pairs(read_documents("-", format="tsv")) == [("7", "Haus")]


def test_several_paths_are_one_collection(tmp_path):
    one = write(tmp_path / "1.jsonl", '{"id": 1, "text": "a"}\n')
    two = write(tmp_path / "2.tsv", "1\tb\n")
    documents, (fault,) = survey([one, two])
    assert pairs(documents) == [("1", "a")]
    assert isinstance(fault, DuplicateRecord) and f"is taken by {one}:1" in fault.reason


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda folder: folder / "none.jsonl", {}, "no such file or folder"),
        (lambda folder: "a\0b.jsonl", {}, "no such file or folder"),
        (lambda folder: folder, {}, "no documents in this folder; looked for .jsonl"),
        (lambda folder: folder, {"format": "lines"}, r"looked for .txt .md$"),
        (lambda folder: write(folder / "a.bin", "x"), {}, "cannot tell the format"),
        (lambda folder: write(folder / "a.bin", "x"), {"format": "xml"}, "unknown format 'xml'; known are jsonl"),
        (lambda folder: [], {}, "no path given"),
        (lambda folder: "-", {"format": "parquet"}, "cannot be read from standard input"),
        (lambda folder: "-", {"text_fields": "text"}, r"must be a list of names.*got 'text'"),
        (lambda folder: "-", {"text_fields": []}, r"must be a list of names.*got \[\]"),
        (lambda folder: "-", {"on_error": "ignore"}, "must be 'stop' or 'skip', got 'ignore'"),
        (lambda folder: "-", {"max_chars": 0}, "at least 1, got 0"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_before_anything_is_read(tmp_path, make, options, message):
    with pytest.raises(BadInput, match=message):
        read_documents(make(tmp_path), **options)


# -- the text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "text_fields", "text"),
    [
        ({"title": "T", "text": "B"}, None, "T B"),
        ({"text": "B", "title": "T"}, None, "T B"),
        ({"title": None, "text": "B"}, None, "B"),
        ({"title": " ", "text": "B"}, None, "B"),
        ({"title": "T", "text": ""}, None, "T"),
        ({"text": "B", "contents": "C"}, None, "B"),
        ({"contents": "C"}, None, "C"),
        ({"": "index", "title": "T"}, None, "T"),
        ({"body": "C", "title": "T"}, None, "T C"),
        ({"a": "A", "b": "B", "text": "C"}, ["b", "a"], "B A"),
        ({"a": "A"}, ["b", "a"], "A"),
        ({"text": "x\ud800\x00y"}, None, "x\ufffd\ufffdy"),
    ],
)
def test_the_text_of_a_record(fields, text_fields, text):
    assert document_text(fields, text_fields) == text


def test_lone_surrogates_and_nuls_are_replaced_one_for_one_in_text_and_fields(tmp_path):
    path = write(
        tmp_path / "a.jsonl", r'{"id": "a", "text": "x\ud800y\u0000z \ud83d\ude42", "tags": ["\udfff"]}' + "\n"
    )
    (document,) = read_documents(path)
    assert document.text == "x\ufffdy\ufffdz 🙂"
    assert document.fields["tags"] == ["\ufffd"]
    json.dumps(document.fields, ensure_ascii=False).encode("utf-8")


def test_numbers_as_ids_become_strings(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"id": 7, "text": "a"}\n{"id": 7.5, "text": "b"}\n')
    assert [document.id for document in read_documents(path)] == ["7", "7.5"]


def test_the_id_is_looked_for_in_the_usual_fields_in_order(tmp_path):
    path = write(
        tmp_path / "a.jsonl", '{"doc_id": "3", "id": "2", "_id": "1", "text": "a"}\n{"docid": "4", "text": "b"}\n'
    )
    assert [document.id for document in read_documents(path)] == ["1", "4"]


def test_without_any_id_field_ids_are_made_of_file_and_line(tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.jsonl", '{"text": "a"}\n\n{"text": "b"}\n')
    assert [document.id for document in read_documents(tmp_path)] == ["in/a.jsonl:1", "in/a.jsonl:3"]


def test_a_collection_that_begins_without_ids_and_then_has_some_is_refused_even_when_skipping(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n{"id": "b", "text": "b"}\n')
    with pytest.raises(BadInput, match=r"a\.jsonl:2 has the id field 'id', but the first record has no id"):
        survey(path)


# -- faults ------------------------------------------------------------------------------------------

GOOD = '{"id": "good", "text": "Haus"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"id": "1", "text": "Haus" oops}',
            r"unreadable JSON at column 28: Expecting .*, near …'\"1\", \"text\": \"Haus\" oops}'; expected one",
        ),
        ('{"id": "1", "text": "Ha', "unreadable JSON at column 21: Unterminated string"),
        ('["id", "text"]', r"got array \['id', 'text'\], expected one object a line"),
        ("null", "got null, expected one object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"id": "1", "text": "a", "score": NaN}', "NaN is not JSON; write null"),
        ('{"id": "1", "text": "a", "score": -Infinity}', "-Infinity is not JSON"),
        ('{"id": "1", "text": "a", "score": 1e999}', "1e999 is too large for a double"),
        ('{"id": "1", "text": "a", "n": ' + "9" * 5000 + "}", "unreadable JSON: .*digits"),
        ('{"id": "1", "headline": "a"}', "no text: expected a field title or text or .*, got id, headline; name"),
        ('{"id": "1", "text": 5}', "text field 'text' must be a string, got int 5"),
        ('{"id": "1", "text": ["a"]}', r"must be a string, got array \['a'\]"),
        ('{"id": "1", "text": " \\t\\n"}', "empty text in text; a text needs at least one word"),
        ('{"id": "1", "text": "\\u0000\\ud800"}', "empty text in text"),
        ('{"id": "1", "title": null, "text": ""}', "empty text in title, text"),
        ('{"text": "a"}', "no id: expected the field _id or id or docid or doc_id, got text"),
        ('{"id": " ", "text": "a"}', "empty id"),
        ('{"id": null, "text": "a"}', "must be a string or a number, got null"),
        ('{"id": true, "text": "a"}', "must be a string or a number, got bool True"),
        ('{"id": "' + "é" * 257 + '", "text": "a"}', "has 514 bytes, at most 512 are allowed"),
        ('{"id": "a\\nb", "text": "a"}', "has a control character"),
        ('{"id": "good", "text": "a"}', r"id 'good' is taken by .*a\.jsonl:1; every document needs its own"),
        (b'{"id": "1", "text": "\xe9t\xe9"}', r"invalid UTF-8 at byte 22 of the line \(0xe9\); .*iconv -f ISO-8859-1"),
    ],
)
def test_a_faulty_line_is_named_and_can_be_skipped(tmp_path, line, message):
    raw = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path / "a.jsonl", GOOD.encode() + raw + b'\n{"id": "last", "text": "end"}\n')
    documents, (fault,) = survey(path)
    assert [document.id for document in documents] == ["good", "last"]
    assert (fault.source, fault.line) == (str(path), 2)
    with pytest.raises(BadRecord, match=message) as stopped:
        list(read_documents(path))
    assert str(stopped.value).startswith(f"{path}:2: ")
    assert len(str(stopped.value)) < 400 + len(str(path))


def test_a_repeated_id_is_a_duplicate_id_and_a_bad_record(tmp_path):
    fault = the_fault(tmp_path, GOOD + GOOD)
    assert isinstance(fault, DuplicateId) and isinstance(fault, BadRecord)


def test_a_skipped_record_does_not_take_its_id(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"id": "a", "text": ""}\n{"id": "a", "text": "b"}\n')
    assert pairs(survey(path)[0]) == [("a", "b")]


def test_a_text_over_the_limit_is_too_long_and_a_bad_record(tmp_path):
    content = json.dumps({"id": "a", "text": "家" * 11}, ensure_ascii=False)
    fault = the_fault(tmp_path, content, max_chars=10)
    assert isinstance(fault, RecordTooLong) and isinstance(fault, TextTooLong)
    assert "text of 11 characters, at most 10 are allowed" in fault.reason
    assert len(list(read_documents(tmp_path / "a.jsonl", max_chars=11))) == 1


def test_ten_megabytes_of_text_are_refused_by_default(tmp_path):
    fault = the_fault(tmp_path, json.dumps({"id": "a", "text": "x" * 10_000_000}))
    assert "text of 10,000,000 characters, at most 1,000,000" in fault.reason


def test_an_endless_line_is_refused_without_being_held_in_memory(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"id": "1", "text": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n' + GOOD.encode())
    tracemalloc.start()
    documents, (fault,) = survey(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(fault, RecordTooLong)
    assert "line of more than 16,000,000 bytes" in fault.reason and fault.line == 1
    assert [document.id for document in documents] == ["good"]
    assert peak < 50_000_000  # of the 100 million


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress, zstandard.ZstdCompressor().compress])
def test_a_truncated_packed_file_is_a_fault_after_the_lines_that_can_be_read(tmp_path, pack):
    lines = "".join(json.dumps({"id": n, "text": f"text {hash((n, 1))}"}) + "\n" for n in range(20_000))
    path = write(tmp_path / "a.jsonl.packed", pack(lines.encode())[:-2000])
    documents, (fault,) = survey(path, format="jsonl")
    assert fault.line == len(documents) + 1
    assert "cannot be read" in fault.reason and "truncated" in fault.reason


def test_after_a_damaged_file_the_next_one_is_read(tmp_path):
    write(tmp_path / "1.jsonl.gz", gzip.compress(b"")[:12])
    write(tmp_path / "2.parquet", b"not a Parquet file")
    write(tmp_path / "3.jsonl", GOOD)
    documents, faults = survey(tmp_path)
    assert [document.id for document in documents] == ["good"]
    assert [fault.source for fault in faults] == [str(tmp_path / "1.jsonl.gz"), str(tmp_path / "2.parquet")]


def test_a_file_that_cannot_be_opened_is_a_fault_of_that_file(tmp_path):
    write(tmp_path / "b.jsonl", GOOD)
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "gone")
    documents, (fault,) = survey(tmp_path)
    assert len(documents) == 1
    assert fault.line == 0 and "cannot be read" in fault.reason


def test_utf16_is_recognised_in_the_message(tmp_path):
    documents, faults = survey(write(tmp_path / "a.txt", "Haus".encode("utf-16")))
    assert not documents
    assert "iconv -f UTF-16" in faults[0].reason and "of the file" in faults[0].reason


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("a.csv", "id,text\n1,a,b\n", 2, "3 columns, expected 2: id, text"),
        ("a.csv", "id,text\n1\n", 2, "1 columns, expected 2: id, text"),
        ("a.csv", "id,text,id\n1,a,b\n", 1, "stands twice in the header"),
        ("a.csv", 'id,text\n1,"a\nb\n', 2, "unreadable CSV: unexpected end of data; is a quote missing"),
        ("a.csv", 'id,text\n1,"a" b\n', 2, "unreadable CSV: ',' expected after '\"'"),
        ("a.csv", b"id,text\n1,\xff\n", 2, "invalid UTF-8 at byte 3"),
        ("a.csv", "1,a\n2,b\n", 2, "no text: expected a field title or text .*, got 1, a; name the text fields"),
        ("a.tsv", "1\ta\tb\n", 1, "3 columns, expected 2: id, text"),
        ("a.tsv", "1\n", 1, "1 columns, expected 2: id, text"),
        ("a.tsv", "1\t\n", 1, "empty text in text"),
        ("a.tsv", "\t\n", 1, "empty text in text"),
    ],
)
def test_a_faulty_row_is_named(tmp_path, name, content, line, message):
    fault = the_fault(tmp_path, content, name)
    assert fault.line == line
    with pytest.raises(BadRecord, match=message):
        raise fault


def test_rows_after_a_faulty_one_are_read(tmp_path):
    path = write(tmp_path / "a.csv", b'id,text\n1,a\n2,\xff\n3,"c" d\n4,e,f\n5,g\n')
    documents, faults = survey(path)
    assert [document.id for document in documents] == ["1", "5"]
    assert [fault.line for fault in faults] == [3, 4, 5]


# -- documents from Python ---------------------------------------------------------------------------


def test_a_mapping_becomes_a_document_and_a_document_stays(tmp_path):
    document = as_document({"id": 1, "title": "T", "text": "B", "tags": ("a", "\ud800")})
    assert (document.id, document.text, document.source, document.line) == ("1", "T B", "", 0)
    assert document.fields == {"id": 1, "title": "T", "text": "B", "tags": ["a", "\ufffd"]}
    assert as_document(document) is document
    assert as_document({"key": "k", "a": "A"}, id_field="key", text_fields=["a"]).id == "k"


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("text", BadInput, "must be a mapping such as .*, got str 'text'"),
        ({"text": "a"}, BadInput, "no id: expected the field _id or id"),
        ({"id": "a\ud800", "text": "a"}, BadInput, r"id str 'a\\ud800' has a control character or half a character"),
        ({"id": "1"}, BadInput, "document '1': no text"),
        ({"id": "1", "text": "a", "x": float("nan")}, BadInput, "document '1': float nan is not JSON"),
        ({"id": "1", "text": "a", "x": b"b"}, BadInput, "bytes b'b' is not JSON"),
        ({"id": "1", "text": "a", "x": {1: 2}}, BadInput, r"object \{1: 2\} is not JSON"),
        ({"id": "1", "text": "x" * 1_000_001}, TextTooLong, "document '1': text of 1,000,001 characters"),
    ],
)
def test_a_mapping_that_is_no_document_is_refused(value, error, message):
    with pytest.raises(error, match=message):
        as_document(value)


# -- queries -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("q.tsv", "1\tWo?\n2\t誰?\n", [("1", "Wo?"), ("2", "誰?")]),
        ("q.tsv", "qid\tquery\n1\tWo?\n", [("1", "Wo?")]),
        ("q.jsonl", '{"_id": "1", "text": "Wo?", "metadata": {}}\n', [("1", "Wo?")]),
        ("q.jsonl", '{"query_id": 1, "question": "Wo?"}\n', [("1", "Wo?")]),
        ("q.csv", "id,query\n1,Wo?\n", [("1", "Wo?")]),
        ("q.txt", "Wo?\n誰?\n", [("q.txt:1", "Wo?"), ("q.txt:2", "誰?")]),
    ],
)
def test_queries_are_read_from_what_people_have(tmp_path, name, content, expected):
    assert pairs(read_queries(write(tmp_path / name, content))) == expected


def test_a_query_text_is_not_joined_with_its_title(tmp_path):
    path = write(tmp_path / "q.jsonl", '{"id": "1", "title": "T", "text": "Wo?"}\n')
    assert pairs(read_queries(path)) == [("1", "Wo?")]
    assert pairs(read_queries(path, text_field="title")) == [("1", "T")]


def test_a_faulty_query_is_named_like_a_faulty_document(tmp_path):
    path = write(tmp_path / "q.jsonl", '{"id": "1", "text": ""}\n{"id": "2", "text": "Wo?"}\n')
    faults = []
    assert pairs(read_queries(path, on_error="skip", on_skip=faults.append)) == [("2", "Wo?")]
    assert [fault.line for fault in faults] == [1]
    with pytest.raises(BadRecord, match=r"q\.jsonl:1: empty text"):
        list(read_queries(path))


def test_a_folder_without_queries_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no queries\.jsonl in this folder"):
        read_queries(tmp_path)


# -- for any input -----------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda text: text.strip("\ufffd \u3000").strip()
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(st.tuples(texts, json_values), max_size=5), st.booleans())
def test_json_lines_come_back_as_they_were_written(tmp_path_factory, rows, ascii_only):
    records = [{"id": str(n), "text": text, "more": more} for n, (text, more) in enumerate(rows)]
    content = "".join(json.dumps(record, ensure_ascii=ascii_only) + "\n" for record in records)
    path = write(tmp_path_factory.getbasetemp() / "a.jsonl", content)
    documents = list(read_documents(path))
    assert [document.fields for document in documents] == records
    assert [document.text for document in documents] == [text for text, _ in rows]


@given(st.lists(texts | texts.map(lambda text: f'{text}\n"{text}",\r\n{text}'), max_size=5))
def test_csv_comes_back_as_it_was_written(tmp_path_factory, cells):
    path = tmp_path_factory.getbasetemp() / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows(enumerate(cells))
    assert [document.text for document in read_documents(path)] == cells


TAILS = [b"", gzip.compress(LINES.encode())[:30], b'{"id": 1, "text": "a"}\n{"id": "', b'id,text\n1,"', b"PAR1"]


@settings(max_examples=300)
@given(
    st.sampled_from(TAILS), st.binary(max_size=200), st.sampled_from([each for each in FORMATS if each != "parquet"])
)
def test_any_bytes_give_good_documents_and_bad_records_and_nothing_else(tmp_path_factory, start, data, format):
    path = write(tmp_path_factory.getbasetemp() / "any", start + data)
    try:
        documents, faults = survey(path, format=format)
    except BadInput as mixed:
        assert "the first record has no id" in str(mixed)
        return
    assert all(document.text.strip() and document.id.strip() for document in documents)
    assert len({document.id for document in documents}) == len(documents)
    assert all(isinstance(fault, BadRecord) and fault.reason for fault in faults)
    for document in documents:
        json.dumps(document.fields, ensure_ascii=False, allow_nan=False).encode("utf-8")


def test_a_parquet_file_with_any_byte_changed_gives_documents_or_bad_records(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["1", "2"], "text": ["Haus", "家"]}), path, compression="NONE")
    good = bytearray(path.read_bytes())
    damaged = 0
    for at in range(0, len(good), 11):
        good[at] ^= 0xFF
        path.write_bytes(good)
        damaged += bool(survey(path)[1])
        good[at] ^= 0xFF
    assert damaged


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 50), max_size=300), st.integers(1, 20))
def test_seen_keys_are_found_at_their_first_place_like_in_a_dict(keys, batch):
    seen, oracle = Seen(batch), {}
    for place, key in enumerate(keys):
        assert seen.add(key, place) == oracle.get(key)
        oracle.setdefault(key, place)
