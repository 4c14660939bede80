import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from dataclasses import replace  # noqa: E402

import numpy as np  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tiny_milco import TEXTS, dense, encode, tiny_milco  # noqa: E402

from polylex.errors import BadInput, BadModel  # noqa: E402
from polylex.model import SparseModel  # noqa: E402
from polylex.model.tokens import TokenBatch  # noqa: E402
from polylex.prune import Pruning  # noqa: E402

# Letters of several scripts, digits, spaces, emoji, and what no tokenizer expects.
scripts = st.text(st.sampled_from("ab Zß é陌乐 ですバ한국 بتا हिन ไทย Ωж 1 9\n\t🙂\x00\ud800<>/s"), max_size=40)


def changed(placement="encoder", **changes):
    """The tiny model with another configuration and fresh, repeatable weights."""
    model = tiny_milco()
    torch.manual_seed(0)
    config = replace(model.config, echo_placement=placement, **changes)
    return SparseModel(config, model.tokens, model.vocab.pivot).eval()


@given(st.lists(scripts, min_size=1, max_size=5), st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_a_text_s_vector_depends_on_nothing_but_the_text(texts, batch_size):
    model = tiny_milco()
    together = dense(encode(model, texts, batch_size=batch_size), len(model.vocab))
    for row, text in zip(together, texts, strict=True):
        np.testing.assert_allclose(row, dense(encode(model, [text]), len(model.vocab))[0], rtol=0, atol=1e-5)


def test_order_and_duplicates_of_texts_are_kept():
    model = tiny_milco()
    rows = dense(encode(model, ["music", "陌陌", "music"]), len(model.vocab))
    reverse = dense(encode(model, ["陌陌", "music"]), len(model.vocab))
    np.testing.assert_allclose(rows, [reverse[1], reverse[0], reverse[1]], rtol=0, atol=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 0.1


@pytest.mark.parametrize("padding", [1, 7, 40])
@pytest.mark.parametrize("placement", ["encoder", "head", "none"])
def test_padding_changes_nothing(placement, padding):
    model = changed(placement)
    window = model.windows(["陌陌直播 Tesla"])[0][0]
    alone = TokenBatch.of([window], model.encoder.pad)
    wider = {"ids": 1, "real": False, "content": False}
    padded = TokenBatch(
        *(torch.nn.functional.pad(getattr(alone, name), (0, padding), value=value) for name, value in wider.items())
    )
    with torch.no_grad():
        a, b = model(alone), model(padded)
    torch.testing.assert_close(a.peaks, b.peaks, rtol=0, atol=1e-5)
    if placement == "none":
        assert a.source is None and b.source is None
    else:
        torch.testing.assert_close(a.source, b.source[:, : len(window.ids)], rtol=0, atol=1e-6)
        assert not b.source[:, len(window.ids) :].any()


def test_an_echo_in_the_head_reads_the_decoder_s_input():
    model = changed("head")
    batch = TokenBatch.of(model.windows(["Tesla"])[0], model.encoder.pad)
    with torch.no_grad():
        hidden = model.hidden(batch)
        row = hidden.pivot @ model.source_head.linear.weight[0] + model.source_head.linear.bias
    torch.testing.assert_close(hidden.source, row.relu())


def test_content_speakers_leave_special_tokens_out_of_both_views():
    model = changed(pivot_speakers="content", source_speakers="content")
    hidden = model.hidden(TokenBatch.of(model.windows(["Tesla"])[0], model.encoder.pad))
    assert hidden.speaks[0].tolist() == [False] + [True] * (hidden.speaks.shape[1] - 2) + [False]
    assert not hidden.source[0, 0] and not hidden.source[0, -1]
    assert not {"m_<s>", "m_</s>"} & {name for name, _ in model.encode("Tesla").decode(model.vocab)[0]}


def test_an_empty_text_is_the_empty_vector_unless_the_config_lets_it_speak():
    model = changed(empty_speaks=False)
    vectors = model.encode(["", "  ", "music"])
    assert [len(vectors.row(i)[0]) > 0 for i in range(3)] == [False, False, True]
    assert tiny_milco().encode([""]).nnz > 0


def test_no_texts_are_no_rows():
    assert len(tiny_milco().encode([])) == 0


def test_a_string_is_one_text():
    assert len(tiny_milco().encode("two words")) == 1


def test_a_long_text_is_the_maximum_over_its_windows_and_as_long_as_they_are():
    model = tiny_milco()
    text = "the net " * 20 + "net " * 60  # words of one token each, so that no window begins inside a word
    windows = model.windows([text])[0]
    assert len(windows) > 1 and all(len(window.ids) <= 64 for window in windows)
    # Each window by itself, as the text that its tokens' characters spell.
    pieces = [text[w.spans[w.content][0, 0] : w.spans[w.content][-1, 1]] for w in windows]
    parts = dense(encode(model, pieces), len(model.vocab))
    most = parts.max(axis=0)
    expected = most * np.linalg.norm(parts, axis=1).mean() / np.linalg.norm(most)
    np.testing.assert_allclose(dense(model.encode([text]), len(model.vocab))[0], expected, rtol=0, atol=1e-5)


def test_max_windows_cuts_a_long_text_off():
    model = tiny_milco()
    first = model.encode("the " * 70 + "net " * 70, max_windows=1)
    assert "m_▁net" not in dict(first.decode(model.vocab)[0])


def test_prompts_stand_before_queries_and_documents():
    model = changed(query_prompt="query: ", document_prompt="passage: ")
    plain = changed()
    for encode_kind, prompt in ((model.encode_query, "query: "), (model.encode_document, "passage: ")):
        a, b = dense(encode_kind("Tesla"), len(model.vocab)), dense(plain.encode(prompt + "Tesla"), len(model.vocab))
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def test_pruning_is_applied_to_the_result():
    assert [len(tiny_milco().encode(TEXTS[:3], prune=Pruning(top_k=7)).row(i)[0]) for i in range(3)] == [7, 7, 7]


def test_every_text_is_reported_once_with_its_windows():
    told = []
    tiny_milco().encode(["a", "the " * 100, ""], batch_size=2, on_text=told.append)
    assert sorted(told) == [1, 1, 2]


def test_encoding_leaves_training_mode_as_it_was():
    model = changed()
    model.train()
    model.encode("x")
    assert model.training and model.connector.linear.weight.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"max_length": 65}, "max_length must be between 8 and the model's 64 tokens, got 65"),
        ({"max_windows": 0}, "max_windows must be at least 1, got 0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(BadInput, match=message):
        tiny_milco().encode(["x"], **options)


def test_sizes_that_do_not_fit_are_refused():
    model = tiny_milco()
    with pytest.raises(BadModel, match="pivot_size is 2505, the pivot vocabulary has 2 terms"):
        SparseModel(model.config, model.tokens, ("a", "b"))
    small = {**model.config.encoder, "vocab_size": 100}
    with pytest.raises(BadModel, match="the tokenizer has 14005 tokens, the encoder embeds 100"):
        SparseModel(replace(model.config, encoder=small), model.tokens, model.vocab.pivot)


@pytest.mark.parametrize("encoder", [{}, {"model_type": "no-such-thing"}])
def test_an_encoder_that_transformers_does_not_know_is_refused(encoder):
    model = tiny_milco()
    with pytest.raises(BadModel, match="cannot be built"):
        SparseModel(replace(model.config, encoder=encoder), model.tokens, model.vocab.pivot)
