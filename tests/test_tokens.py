import gzip
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from polylex.errors import BadModel
from polylex.runtime.tokens import Tokens
from polylex.text import Preparation

PLAIN = Preparation()


def tokenizer() -> Tokenizer:
    """One token a word; <s> 0, </s> 1, unknown words 2."""
    words = Tokenizer(WordLevel({"<s>": 0, "</s>": 1, "?": 2, "a": 3, "b": 4, "c": 5, "d": 6, "e": 7}, unk_token="?"))
    words.pre_tokenizer = Whitespace()
    words.add_special_tokens(["<s>", "</s>"])
    words.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    return words


@pytest.fixture
def tokens():
    return Tokens(tokenizer())


def test_a_short_text_is_one_window_with_special_tokens_around_it(tokens):
    ((window,),) = tokens.windows(["a  bc d"], PLAIN, 8, 2)
    assert window.ids.tolist() == [0, 3, 2, 6, 1]
    assert window.content.tolist() == [False, True, True, True, False]
    assert window.spans.tolist() == [[0, 0], [0, 1], [3, 5], [6, 7], [0, 0]]


def test_a_long_text_is_cut_into_overlapping_windows_that_miss_nothing(tokens):
    # 8 tokens, room for 5 (7 less two special tokens), 2 shared: [0, 5), [3, 8)
    (windows,) = tokens.windows(["a b c d e a b c"], PLAIN, 7, 2)
    assert [w.ids.tolist() for w in windows] == [[0, 3, 4, 5, 6, 7, 1], [0, 6, 7, 3, 4, 5, 1]]
    assert windows[1].spans[1].tolist() == [6, 7]  # the "d" of the whole text


def test_a_text_that_just_fits_is_not_cut(tokens):
    assert [len(w) for w in tokens.windows(["a b c d e", "a b c d e a"], PLAIN, 7, 2)] == [1, 2]


def test_an_empty_text_is_a_window_of_special_tokens(tokens):
    ((window,), (blank,)) = tokens.windows(["", " \n"], PLAIN, 8, 2)
    assert window.ids.tolist() == blank.ids.tolist() == [0, 1]
    assert not window.content.any()


def test_special_tokens_spelled_out_in_a_text_are_text(tokens):
    ((window,),) = tokens.windows(["a </s> b"], PLAIN, 16, 2)
    assert window.ids[0] == 0
    assert window.ids[-1] == 1
    assert not {0, 1} & set(window.ids[1:-1].tolist())


def test_spans_do_not_count_the_prompt(tokens):
    ((window,),) = tokens.windows(["a b"], Preparation("e: "), 16, 2)
    text = "a b"
    assert [text[s:e] for s, e in window.spans[window.content].tolist()] == ["", "", "a", "b"]  # "e" and ":" are prompt


def test_a_window_too_small_for_its_stride_is_refused(tokens):
    with pytest.raises(BadModel, match="leaves 2 tokens, which must be more than the stride 2"):
        tokens.windows(["a"], PLAIN, 4, 2)


def test_a_tokenizer_is_read_plain_or_packed_and_a_broken_one_is_named(tmp_path):
    with pytest.raises(BadModel, match=r"has no tokenizer\.json"):
        Tokens.read(tmp_path)
    packed = tmp_path / "tokenizer.json.gz"
    packed.write_bytes(gzip.compress(tokenizer().to_str().encode()))
    assert Tokens.read(tmp_path).names[:4] == ("<s>", "</s>", "?", "a")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BadModel, match="cannot be read"):
        Tokens.read(tmp_path)


@given(st.lists(st.sampled_from("abcde"), max_size=60), st.integers(8, 20), st.integers(0, 4))
def test_windows_put_together_are_the_text(words, max_length, stride):
    text = " ".join(words)
    (windows,) = Tokens(tokenizer()).windows([text], PLAIN, max_length, stride)
    spans = {tuple(span) for w in windows for span in w.spans[w.content].tolist()}
    assert sorted(spans) == [(2 * i, 2 * i + 1) for i in range(len(words))]
    assert all(len(w.ids) <= max_length for w in windows)
    for before, after in pairwise(windows):
        shared = set(map(tuple, before.spans[before.content])) & set(map(tuple, after.spans[after.content]))
        assert len(shared) == stride


@given(st.text(st.characters()))
def test_any_text_at_all_gives_spans_inside_it(text):
    (windows,) = Tokens(tokenizer()).windows([text], Preparation("a ", lowercase=True), 16, 4)
    spans = np.concatenate([w.spans for w in windows])
    assert ((spans >= 0) & (spans <= len(text))).all()
