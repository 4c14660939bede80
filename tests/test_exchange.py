import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polylex.cli import program
from polylex.errors import BadInput, BadRecord, BadVectors
from polylex.exchange import FILE_FORMATS, export, inspect, restore
from polylex.formats.points import point_id
from polylex.formats.rows import decimals
from polylex.index import Index
from polylex.profiles import PROFILES
from polylex.storage import load_vectors, save_vectors
from polylex.stream import SIZE, Stream
from polylex.termmap import TermMap
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab

VOCAB = Vocab(["music", "jazz", "."], ["▁陌", "%", "a b", "\x85", "..", '"', "\\", "é", "😀"])
NUMBERED = ("csr", "qdrant", "milvus", "parquet")
EXACT = ("csr", "seismic", "opensearch", "elasticsearch", "qdrant", "milvus", "parquet")
KEEP_FIELDS = ("csr", "opensearch", "elasticsearch", "qdrant", "milvus", "parquet")

IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
WEIGHTS = st.floats(0.015625, 100, width=32)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text('aé\n"陌', max_size=5))
FIELDS = st.dictionaries(st.text("abc.é", min_size=1, max_size=3), VALUES | st.lists(VALUES, max_size=2), max_size=2)
DOCUMENTS = st.dictionaries(
    IDS, st.tuples(st.dictionaries(st.integers(0, len(VOCAB) - 1), WEIGHTS, max_size=5), FIELDS), max_size=5
)


def stock(documents) -> tuple[SparseVectors, list[str], list[dict]]:
    rows = [row for row, _ in documents.values()]
    pairs = [(np.array(sorted(row), "u4"), np.array([row[term] for term in sorted(row)], "f4")) for row in rows]
    return SparseVectors.from_rows(pairs, VOCAB.fingerprint), list(documents), [f for _, f in documents.values()]


def as_dicts(found: SparseVectors) -> list[dict[int, float]]:
    return [dict(zip(*(column.tolist() for column in found.row(row)), strict=True)) for row in range(len(found))]


def written(folder: Path, form: str, vectors, ids, fields=None, **options) -> Path:
    path = folder / f"out.{form}"
    export(Stream.of_vectors(vectors, ids, fields), path, form, VOCAB, **options)
    return path


THREE, THREE_IDS, THREE_FIELDS = stock(
    {"a": ({0: 1.5, 3: 0.25}, {"text": "Jazz", "year": 1999}), "b": ({}, {}), "ç": ({2: 2.0, 4: 0.5}, {"text": "x"})}
)


@pytest.mark.parametrize("form", FILE_FORMATS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=DOCUMENTS)
def test_what_is_exported_comes_back_within_the_declared_precision(form, documents, tmp_path):
    vectors, ids, fields = stock(documents)
    found, found_ids, found_fields = restore(written(tmp_path, form, vectors, ids, fields), form, VOCAB)
    assert found_ids == ids
    assert found.vocab == VOCAB.fingerprint
    if form in EXACT:
        assert as_dicts(found) == as_dicts(vectors)
    else:
        for row, kept in zip(as_dicts(vectors), as_dicts(found), strict=True):
            assert kept.keys() == row.keys()  # 0.015625 is 1.6 hundredths, so that no weight is lost
            assert all(abs(kept[term] - row[term]) <= 0.005 + 1e-6 * row[term] for term in row)
    if form in KEEP_FIELDS:
        assert found_fields == fields


@given(st.lists(st.floats(2**-120, 2**120, width=32), min_size=1))
def test_decimals_are_the_very_weights_again(weights):
    given_weights = np.array(weights, "f4")
    assert np.array(decimals(given_weights)).astype("f4").tolist() == given_weights.tolist()


def test_decimals_are_short():
    assert list(map(repr, decimals(np.array([1.2, 0.1, 3.25, 1e-7], "f4")))) == ["1.2", "0.1", "3.25", "1e-07"]


# -- forms, as their programs document them ----------------------------------------------------------


def lines(path: Path) -> list:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_anserini_has_whole_numbers_and_names_without_white_space(tmp_path):
    vectors, ids, fields = stock({"7": ({0: 1.234, 5: 0.1, 1: 0.004}, {"title": "A", "text": "b"})})
    assert lines(written(tmp_path, "anserini", vectors, ids, fields)) == [
        {"id": "7", "contents": "A b", "vector": {"e_music": 123, "m_a%20b": 10}}  # 0.004 is no hundredth
    ]


def test_seismic_has_weights_as_they_are(tmp_path):
    assert lines(written(tmp_path, "seismic", THREE, THREE_IDS, THREE_FIELDS)) == [
        {"id": "a", "content": "Jazz", "vector": {"e_music": 1.5, "m_▁陌": 0.25}},
        {"id": "b", "content": "", "vector": {}},
        {"id": "ç", "content": "x", "vector": {"e_.": 2.0, "m_%": 0.5}},
    ]


def test_bulk_files_have_an_action_before_each_document_and_no_dots_in_names(tmp_path):
    for form in ("opensearch", "elasticsearch"):
        assert lines(written(tmp_path, form, THREE, THREE_IDS, THREE_FIELDS))[4:] == [
            {"index": {"_id": "ç"}},
            {"terms": {"e_%2E": 2.0, "m_%25": 0.5}, "fields": {"text": "x"}},
        ]


def test_queries_have_the_form_in_which_each_engine_is_asked(tmp_path):
    one, ids, _ = stock({"q": ({0: 1.5, 2: 0.5}, {})})
    body = lines(written(tmp_path, "opensearch", one, ids, queries=True))
    assert body == [
        {},
        {
            "size": 10,
            "_source": False,
            "query": {
                "bool": {
                    "should": [
                        {"rank_feature": {"field": "terms.e_music", "linear": {}, "boost": 1.5}},
                        {"rank_feature": {"field": "terms.e_%2E", "linear": {}, "boost": 0.5}},
                    ],
                    "minimum_should_match": 1,
                    "_name": "q",
                }
            },
        },
    ]
    elastic = lines(written(tmp_path, "elasticsearch", one, ids, queries=True))[1]["query"]["bool"]["should"]
    assert elastic == [
        {"sparse_vector": {"field": "terms", "query_vector": {"e_music": 1.5, "e_%2E": 0.5}, "prune": False}}
    ]
    assert lines(written(tmp_path, "qdrant", one, ids, queries=True)) == [
        {"id": "q", "query": {"indices": [0, 2], "values": [1.5, 0.5]}}
    ]
    assert lines(written(tmp_path, "milvus", one, ids, queries=True)) == [{"id": "q", "terms": {"0": 1.5, "2": 0.5}}]
    with pytest.raises(BadInput, match="no queries"):
        written(tmp_path, "ciff", one, ids, queries=True)


def test_qdrant_points_have_a_uuid_and_the_id_in_the_payload(tmp_path):
    assert lines(written(tmp_path, "qdrant", THREE, THREE_IDS, THREE_FIELDS))[0] == {
        "id": point_id("a"),
        "vector": {"terms": {"indices": [0, 3], "values": [1.5, 0.25]}},
        "payload": {"id": "a", "fields": {"text": "Jazz", "year": 1999}},
    }
    assert point_id("a") == point_id("a") != point_id("A")


def test_milvus_rows_are_one_json_object(tmp_path):
    rows = json.loads(written(tmp_path, "milvus", THREE, THREE_IDS, THREE_FIELDS).read_text("utf-8"))["rows"]
    assert rows[0] == {"id": "a", "terms": {"0": 1.5, "3": 0.25}, "fields": {"text": "Jazz", "year": 1999}}
    empty = written(tmp_path, "milvus", *stock({}))
    assert json.loads(empty.read_text("utf-8")) == {"rows": []}


@pytest.mark.skipif(find_spec("scipy") is None, reason="needs SciPy")
def test_scipy_reads_the_csr_file(tmp_path):
    import scipy.sparse

    matrix = scipy.sparse.load_npz(written(tmp_path, "csr", THREE, THREE_IDS).rename(tmp_path / "x.npz"))
    assert matrix.shape == (3, len(VOCAB))
    assert matrix.toarray()[2].tolist() == [0, 0, 2.0, 0, 0.5, *[0] * 7]


def test_ciff_is_byte_for_byte_what_protobuf_makes_of_it(tmp_path):
    # Worked by hand from the schema: a length, then fields as (number << 3 | kind, value); zeros are left out.
    vectors, ids, _ = stock({"x": ({0: 1.0}, {}), "yz": ({0: 2.0, 1: 0.01}, {})})
    data = written(tmp_path, "ciff", vectors, ids).read_bytes()
    description = b"Polylex; term frequencies are weights times 100, rounded"
    header = b"\x08\x01\x10\x02\x18\x02\x20\x02\x28\x02" + b"\x30\xad\x02"  # 301 = 0b10_0101101
    header += b"\x39" + np.float64(150.5).tobytes() + b"\x42" + bytes([len(description)]) + description
    jazz = b"\x0a\x06e_jazz\x10\x01\x18\x01" + b"\x22\x04\x08\x01\x10\x01"
    music = b"\x0a\x07e_music\x10\x02\x18\xac\x02" + b"\x22\x04\x08\x00\x10\x64" + b"\x22\x05\x08\x01\x10\xc8\x01"
    first, second = b"\x12\x01x\x18\x64", b"\x08\x01\x12\x02yz\x18\xc9\x01"
    assert data == b"".join(bytes([len(part)]) + part for part in (header, jazz, music, first, second))


def test_ciff_varints_of_every_length_come_back(tmp_path):
    weights = [0.01, 1.27, 1.28, 163.83, 163.84, 20_971.5, 2_684_354.5, 21_474_836.0]
    documents = {f"d{number}": ({0: weight}, {}) for number, weight in enumerate(weights)}
    documents |= {f"e{number}": ({}, {}) for number in range(300)} | {"z": ({0: 1.0}, {})}  # a gap of two bytes
    vectors, ids, _ = stock(documents)
    found, found_ids, _ = restore(written(tmp_path, "ciff", vectors, ids), "ciff", VOCAB)
    assert found_ids == ids
    np.testing.assert_allclose(found.weights, vectors.weights, rtol=1e-6)
    with pytest.raises(BadInput, match="int32"):
        written(tmp_path, "ciff", *stock({"a": ({0: 3e7}, {})}))


# -- bad files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "text", "reason"),
    [
        ("anserini", '{"id": "1", "vector": {"e_music": 1}}\n{"id": "1", "vector": {}}', ":2: id '1' is used twice"),
        ("anserini", '{"id": "1", "vector": {"e_nope": 1}}', ":1: document '1': no term 'e_nope'"),
        ("anserini", '{"id": "1", "vector": {"e_music": -1}}', "must be finite and > 0"),
        ("anserini", '{"id": "1", "vector": {"e_music": "x"}}', ":1: document '1'"),
        ("anserini", '{"id": "1"}', ":1: no document of anserini"),
        ("anserini", "[1]", ":1: no document of anserini"),
        ("anserini", '{"id"', ":1: unreadable JSON"),
        ("opensearch", '{"index": {"_id": "1"}}', ":1: no document of opensearch"),
        ("qdrant", '{"vector": {"terms": {"indices": [1, 1], "values": [1, 2]}}, "payload": {"id": "1"}}', "increase"),
        ("qdrant", '{"vector": {"terms": {"indices": [1], "values": [1, 2]}}, "payload": {"id": "1"}}', "2 weights"),
        ("milvus", '{"rows":[\n{"id": "1", "terms": {"-1": 1}}\n]}', r"\[0, 2\*\*32\)"),
    ],
)
def test_a_bad_line_is_named_with_its_reason(form, text, reason, tmp_path):
    (tmp_path / "bad").write_text(text, "utf-8")
    with pytest.raises(BadRecord, match=reason):
        restore(tmp_path / "bad", form, VOCAB)


@pytest.mark.parametrize("form", ["csr", "ciff", "parquet"])
def test_damage_to_a_binary_file_is_an_error_that_names_it(form, tmp_path):
    path = written(tmp_path, form, THREE, THREE_IDS, THREE_FIELDS)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BadVectors, match=f"out.{form}"):
        restore(path, form, VOCAB)


@given(cut=st.integers(0, 200), flip=st.integers(0, 255))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ciff_with_a_flipped_byte_is_read_or_refused_and_nothing_else(cut, flip, tmp_path):
    data = bytearray(written(tmp_path, "ciff", THREE, THREE_IDS).read_bytes())
    data[cut % len(data)] = flip
    (tmp_path / "flipped").write_bytes(data)
    try:
        vectors, ids, _ = restore(tmp_path / "flipped", "ciff", VOCAB)
    except BadVectors:
        return
    assert len(vectors) == len(ids)


def test_a_failed_export_leaves_what_was_there(tmp_path):
    class Stop(Exception):
        pass

    def begin():
        yield from Stream.of_vectors(THREE, THREE_IDS)
        raise Stop

    broken = Stream(3, THREE.vocab, begin)
    for form in FILE_FORMATS:
        path = tmp_path / f"old.{form}"
        path.write_text("old")
        with pytest.raises(Stop):
            export(broken, path, form, VOCAB)
        assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == len(FILE_FORMATS)


# -- streams -----------------------------------------------------------------------------------------


def test_an_index_streams_its_living_documents_in_order_and_again(tmp_path):
    count = 2 * SIZE + 7
    vectors = SparseVectors(np.arange(count + 1), np.arange(count) % len(VOCAB), np.ones(count), VOCAB.fingerprint)
    ids = [str(number) for number in range(count)]
    with Index.build(tmp_path / "i", vectors, ids, [{"n": n} for n in range(count)], vocab=VOCAB) as index:
        with index.writer() as writer:
            writer.delete([str(n) for n in range(0, count, 3)])
        index.refresh()
        stream = Stream.of_index(index)
        for _ in range(2):
            left = [n for n in range(count) if n % 3]
            assert len(stream) == len(left)
            batches = list(stream)
            assert [id for batch in batches for id in batch.ids] == [str(n) for n in left]
            assert [fields["n"] for batch in batches for fields in batch.fields] == left
            assert [t for batch in batches for t in batch.vectors.terms.tolist()] == [n % len(VOCAB) for n in left]
            assert max(map(len, batches)) <= SIZE


# -- the command line --------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(program, [str(each) for each in arguments])


@pytest.fixture
def source(tmp_path) -> Path:
    Index.build(tmp_path / "i.plx", THREE, THREE_IDS, THREE_FIELDS, vocab=VOCAB).close()
    return tmp_path / "i.plx"


def test_check_tells_what_happens_and_writes_nothing(source, tmp_path):
    result = run("export", source, "--check", "opensearch", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["fits"], report["documents"], report["out"]) == (0, True, 3, None)
    assert [finding["kind"] for finding in report["findings"]] == ["renamed"]
    assert "fits" in run("export", source, "--check", "milvus").stdout
    assert [file.name for file in tmp_path.iterdir()] == ["i.plx"]


def test_an_export_that_would_be_folded_is_refused_unless_a_map_makes_it_fit(tmp_path):
    wide = Vocab([f"p{number}" for number in range(40_000)], [])
    vectors = SparseVectors(np.array([0, 2]), np.array([5, 32_773]), np.array([1.0, 2.0]), wide.fingerprint)
    Index.build(tmp_path / "wide.plx", vectors, ["d"], vocab=wide).close()
    folded = run("export", tmp_path / "wide.plx", "--check", "opensearch-sparse")
    assert folded.exit_code == 1 and "folded" in folded.stdout and "--map" in folded.stdout
    mapped = run("export", tmp_path / "wide.plx", "--check", "opensearch-sparse", "--map", tmp_path / "w.map")
    assert mapped.exit_code == 0 and "remapped" in mapped.stdout
    assert not (tmp_path / "w.map").exists()


def test_a_map_travels_with_exports_and_grows(source, tmp_path):
    assert run("export", source, tmp_path / "one.json", "--to", "milvus", "--map", tmp_path / "a.map").exit_code == 0
    terms = TermMap.load(tmp_path / "a.map")
    assert terms.terms.tolist() == [0, 2, 3, 4]
    with Index.open(source) as index, index.writer() as writer:
        writer.add(["new"], None, stock({"new": ({1: 3.0}, {})})[0])
    assert run("export", source, tmp_path / "two.json", "--to", "milvus", "--map", tmp_path / "a.map").exit_code == 0
    assert TermMap.load(tmp_path / "a.map").terms.tolist() == [0, 2, 3, 4, 1]
    rows = json.loads((tmp_path / "two.json").read_text("utf-8"))["rows"]
    assert rows[-1]["terms"] == {"4": 3.0}
    dense, _, _ = restore(tmp_path / "two.json", "milvus", None, TermMap.load(tmp_path / "a.map").fingerprint)
    assert as_dicts(TermMap.load(tmp_path / "a.map").to_terms(dense))[2:] == [{2: 2.0, 4: 0.5}, {1: 3.0}]


def test_exporting_over_a_file_needs_permission_and_a_usage_error_is_2(source, tmp_path):
    (tmp_path / "out").write_text("old")
    refused = run("export", source, tmp_path / "out", "--to", "ciff")
    assert refused.exit_code == 1 and "--overwrite" in refused.stderr
    assert (tmp_path / "out").read_text() == "old"
    assert run("export", source, tmp_path / "out", "--to", "ciff", "--overwrite").exit_code == 0
    assert run("export", source).exit_code == run("export", source, "x", "--check", "ciff").exit_code == 2


def test_vectors_of_the_bundled_model_are_exported_and_imported_as_file_and_as_index(encoder, tmp_path):
    vectors = encoder.encode(["Wer darf heiraten?", "Jazz. music"])
    save_vectors(tmp_path / "v.safetensors", vectors, ["a", "b"])
    for form in ("opensearch", "parquet"):
        out, back = tmp_path / f"v.{form}", tmp_path / f"{form}.safetensors"
        assert run("export", tmp_path / "v.safetensors", out, "--to", form).exit_code == 0
        assert run("import", out, back, "--from", form).exit_code == 0
        found, ids = load_vectors(back)
        assert ids == ["a", "b"] and as_dicts(found) == as_dicts(vectors)
    out = tmp_path / "v.plx"
    assert run("import", tmp_path / "v.opensearch", out, "--from", "opensearch", "--index").exit_code == 0
    with Index.open(tmp_path / "v.plx") as index:
        assert [hit.id for hit in index.search(encoder.encode_query(["Jazz music"]), k=1)[0]] == ["b"]
        assert index.info().weights_id == encoder.weights_id


def test_inspecting_a_stream_adds_up_its_batches():
    fit = inspect(Stream.of_vectors(THREE, THREE_IDS), PROFILES["anserini"], VOCAB)
    assert fit.documents == 3 and fit.fits


def test_exchange_needs_neither_torch_nor_an_engine():
    heavy = "{'torch', 'pyarrow', 'scipy', 'qdrant_client'}"
    code = f"import sys, polylex.exchange, polylex.engine; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
