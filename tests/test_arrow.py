import pickle

import numpy as np
import pytest
from word_encoder import WordEncoder

from polylex.errors import BadInput
from polylex.exchange import restore
from polylex.interop.arrow import ArrowEncoder
from polylex.prune import Pruning

pyarrow = pytest.importorskip("pyarrow")


def words(**options):
    found = ArrowEncoder(**options)
    found.encoder = WordEncoder("who may marry")
    return found


def test_each_row_gets_the_terms_and_weights_of_its_text():
    table = words(text="body")(pyarrow.table({"id": ["a", "b", "c"], "body": ["who may who", None, "x"]}))
    assert table.column_names == ["id", "body", "terms", "weights"]
    assert table["terms"].to_pylist() == [[0, 1], [], []]
    assert table["weights"].to_pylist() == [[2.0, 1.0], [], []]
    assert [str(table.schema.field(name).type.value_type) for name in ("terms", "weights")] == ["uint32", "float"]


def test_a_table_without_rows_gets_the_columns_too():
    assert words()(pyarrow.table({"text": pyarrow.array([], pyarrow.string())})).column_names[1:] == [
        "terms",
        "weights",
    ]


def test_vectors_are_pruned():
    table = words(prune=Pruning(top_k=1))(pyarrow.table({"text": ["who may who"]}))
    assert table["terms"].to_pylist() == [[0]]


@pytest.mark.parametrize(
    "columns", [{"body": ["who"]}, {"text": [1]}, {"text": ["who"], "terms": [1]}, {"text": [["who"]]}]
)
def test_a_table_that_cannot_be_encoded_is_refused(columns):
    with pytest.raises(BadInput):
        words()(pyarrow.table(columns))


def test_the_settings_are_pickled_without_the_model():
    found = pickle.loads(pickle.dumps(words(text="body")))
    assert found.text == "body"
    assert "encoder" not in vars(found)


def test_a_parquet_file_of_encoded_tables_is_read_as_vectors(tmp_path):
    from pyarrow import parquet

    encoder = words()
    parquet.write_table(
        encoder(pyarrow.table({"id": ["a", "b"], "text": ["marry", "who may"]})), tmp_path / "v.parquet"
    )
    vectors, ids, _ = restore(tmp_path / "v.parquet", "parquet", None)
    assert (ids, vectors.vocab) == (["a", "b"], encoder.encoder.vocab.fingerprint)
    assert np.array_equal(vectors.terms, [2, 0, 1])
