import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import polylex
from polylex.errors import BadInput, BadModel, ModelNotFound
from polylex.models import locate
from polylex.prune import Pruning
from polylex.vectors import SparseVectors

TEXTS = [
    "Who may marry?",
    "¿Quién puede casarse?",
    "Wer darf heiraten?",
    "谁可以结婚？",
    "من يحق له الزواج؟",
    "Кто может вступить в брак?",
    "ใครแต่งงานได้บ้าง",
    "कौन शादी कर सकता है?",
    "누가 결혼할 수 있나요?",
    "Кто имеет право на брак?",
]


def rows(vectors: SparseVectors) -> list[dict[int, float]]:
    return [dict(zip(*(part.tolist() for part in vectors.row(i)), strict=True)) for i in range(len(vectors))]


@pytest.mark.parametrize("text", [TEXTS[i] for i in (0, 1, 3, 4, 5, 6, 8)])
def test_translations_meet_in_english_terms(encoder, text):
    (row,) = encoder.encode_query([text]).decode(encoder.vocab, top_k=5)
    assert {"e_marriage", "e_married", "e_wife"} & {name for name, _ in row}


def test_a_text_keeps_its_vector_whatever_its_batch_mates_order_or_threads(encoder):
    alone = [rows(encoder.encode([text]))[0] for text in TEXTS]
    assert rows(encoder.encode(TEXTS)) == alone
    assert rows(encoder.encode(TEXTS[::-1])) == alone[::-1]
    assert rows(encoder.encode([TEXTS[0]] * 3)) == [alone[0]] * 3
    single = polylex.load(threads=1)
    assert rows(single.encode(TEXTS)) == alone


def test_a_text_without_content_is_the_empty_vector(encoder):
    vectors = encoder.encode(["", "  \n\t", "a"])
    assert [len(row) for row in rows(vectors)][:2] == [0, 0]
    assert rows(vectors)[2]


def test_no_texts_give_no_rows(encoder):
    assert len(encoder.encode([])) == 0


def test_a_single_string_is_one_text(encoder):
    assert rows(encoder.encode_query("Wer darf heiraten?")) == rows(encoder.encode_query(["Wer darf heiraten?"]))


def test_a_long_text_is_the_maximum_of_its_windows_and_as_long_as_they_are(encoder):
    text = "Alle Menschen sind frei. " * 30 + "Die Katze schläft auf dem Sofa. " * 30
    whole = rows(encoder.encode([text], max_length=64))[0]
    (windows,) = encoder.windows([text], max_length=64)
    assert len(windows) > 2
    parts = [encoder._encode_window(window) for window in windows]
    expected: dict[int, float] = {}
    for terms, weights in parts:
        for term, weight in zip(terms.tolist(), weights.tolist(), strict=True):
            expected[term] = max(weight, expected.get(term, 0.0))
    scale = np.mean([np.linalg.norm(weights) for _, weights in parts]) / np.linalg.norm(list(expected.values()))
    assert whole == pytest.approx({term: weight * scale for term, weight in expected.items()}, rel=1e-5)
    assert rows(encoder.encode([text], max_length=64, max_windows=1))[0] == dict(
        zip(*(p.tolist() for p in parts[0]), strict=True)
    )


def test_a_term_points_at_the_word_in_whatever_window_it_stands(encoder):
    text = "Alle Menschen sind frei. " * 60 + "Das Wasser ist kalt."
    assert len(encoder.windows([text])[0]) == 1
    water = encoder.vocab.id("e_water")
    (start, end) = encoder.term_spans(text, [water])[water][0]
    assert text[start:end].strip() in "Wasser"
    longer = text * 3
    spans = encoder.term_spans(longer, [water])[water]
    assert len(encoder.windows([longer])[0]) > 1
    assert "Wasser".startswith(longer[spans[0][0] : spans[0][1]].strip())


def test_an_echoed_token_points_at_all_its_occurrences(encoder):
    text = "Obama traf Merkel. Merkel sprach mit Obama."
    terms, _ = encoder.encode([text]).row(0)
    echoed = [int(term) for term in terms if encoder.vocab.view(int(term)) == "source"]
    spans = encoder.term_spans(text, echoed)
    assert echoed
    for term in echoed:
        piece = encoder.vocab.name(term).removeprefix("m_").removeprefix("▁")
        assert {text[a:b].strip() for a, b in spans[term]} == {piece}
        if piece == "Obama":
            assert [a for a, _ in spans[term]] == [0, text.rindex(" Obama")]


def test_every_shared_term_that_is_spoken_by_a_word_is_found_in_the_text(encoder):
    text = TEXTS[2]
    terms, _ = encoder.encode([text]).row(0)
    spans = encoder.term_spans(text, terms.tolist())
    assert spans.keys() == set(terms.tolist())
    assert all(0 <= a < b <= len(text) for found in spans.values() for a, b in found)


def test_unusable_characters_do_not_stop_encoding(encoder):
    assert encoder.encode(["Nul\x00 und \ud800 halb"]).nnz > 0


def test_pruning_and_progress_are_applied(encoder):
    seen: list[int] = []
    vectors = encoder.encode(TEXTS, prune=Pruning(top_k=5), on_text=seen.append)
    assert np.diff(vectors.indptr).max() <= 5
    assert seen == [1] * len(TEXTS)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"max_length": 4}, "between 8 and the model's 512"), ({"max_windows": 0}, "max_windows must be at least 1")],
)
def test_illegal_options_are_refused(encoder, option, message):
    with pytest.raises(BadInput, match=message):
        encoder.encode(["a"], **option)


# -- finding models --------------------------------------------------------------------------------


def test_an_unknown_model_says_what_was_tried():
    with pytest.raises(ModelNotFound, match=r"no model 'polylex-maxi': not a folder, not bundled \(.*polylex-mini.*\)"):
        polylex.load("polylex-maxi")


@pytest.fixture
def model_copy(encoder, tmp_path):
    """The bundled model, its large file linked."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in encoder.folder.iterdir():
        if file.name == "model.safetensors":
            os.link(file, folder / file.name)
        else:
            shutil.copy(file, folder)
    return folder


def change_config(folder, **changes):
    path = folder / "config.json"
    table = json.loads(path.read_text("utf-8"))
    table.update(changes)
    path.write_text(json.dumps(table), "utf-8")


def test_a_copied_folder_gives_the_same_vectors(encoder, model_copy):
    copied = polylex.load(model_copy)
    assert rows(copied.encode(TEXTS[:2])) == rows(encoder.encode(TEXTS[:2]))
    assert copied.vocab == encoder.vocab


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"config\.json does not exist"),
        (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "is not a Polylex model"),
        (lambda f: change_config(f, version=99), "has format version 99, this release reads 1; upgrade polylex"),
        (lambda f: change_config(f, max_lenght=3), "unknown setting 'max_lenght', did you mean 'max_length'"),
        (lambda f: change_config(f, pivot_speakers="none"), "pivot_speakers must be one of all, content, got 'none'"),
        (lambda f: change_config(f, pivot_vocabulary="nowhere"), "no pivot vocabulary 'nowhere'"),
        (lambda f: (f / "head.onnx").unlink(), r"has no head\.onnx: it is not an exported model"),
        (lambda f: (f / "encoder.onnx").write_bytes(b"\x00" * 100), "ONNX Runtime cannot open"),
        (lambda f: (f / "model.safetensors").unlink(), "ONNX Runtime cannot open"),
    ],
)
def test_a_damaged_model_folder_is_refused_with_the_file_and_the_cure(model_copy, damage, message):
    damage(model_copy)
    with pytest.raises(BadModel, match=message):
        polylex.load(model_copy).vocab  # noqa: B018 - the vocabulary is read when first used


def test_a_hub_id_is_found_in_the_local_cache_without_a_network(model_copy, tmp_path):
    snapshot = tmp_path / "hub" / "models--someone--tiny" / "snapshots" / "0123abc"
    snapshot.parent.mkdir(parents=True)
    model_copy.rename(snapshot)
    refs = tmp_path / "hub" / "models--someone--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0123abc")
    code = "import polylex; print(polylex.load('someone/tiny').encode_query(['Wer darf heiraten?']).nnz > 0)"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


def test_a_hub_id_that_cannot_be_had_is_a_clear_error(tmp_path):
    code = "import polylex; polylex.load('someone/absent')"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "ModelNotFound: 'someone/absent' is neither a folder nor bundled" in done.stderr


def test_the_default_model_is_the_bundled_one():
    assert locate() == locate("polylex-mini")


def test_neither_loading_nor_encoding_imports_torch():
    code = "import sys, polylex; polylex.load().encode_query(['hello']); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_every_public_name_can_be_imported_and_is_listed_in_order():
    assert polylex.__all__ == sorted(polylex.__all__)
    for name in polylex.__all__:
        assert getattr(polylex, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        polylex.nonsense  # noqa: B018
