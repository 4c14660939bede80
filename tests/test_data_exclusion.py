import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polylex.errors import BadInput
from polylex.train import exclusion as module
from polylex.train.exclusion import Exclusion, normalise

SENTENCE = "The quick brown fox jumps over the lazy dog while the early bird catches the worm"  # 82 characters


def test_normalising_keeps_letters_marks_and_digits_and_folds_case_and_width():
    assert normalise("  Straße — No.５!  ") == "strasse no 5"
    assert normalise("हिन्दी, २०२४") == "हिन्दी २०२४"  # the vowel signs are marks, and part of the word
    assert normalise("…!?") == ""


def test_a_text_that_differs_in_case_and_punctuation_only_is_an_exact_leak():
    exclusion = Exclusion.of(["Who may marry?", "Another text."])
    assert exclusion.leaks(["who MAY marry", "Who may not marry?", "another   text"]) == ["exact", "", "exact"]
    assert len(exclusion) == 2


def test_fifty_shared_characters_are_a_leak_and_forty_nine_are_none():
    exclusion = Exclusion.of([SENTENCE])
    inside = normalise(SENTENCE)[7:57]
    assert len(inside) == 50
    assert exclusion.leaks([f"xx{inside}yy", f"xx{inside[:-1]}#yy", f"xx{inside[1:]}yy"]) == ["window", "", ""]


def test_twenty_shared_characters_are_enough_in_chinese():
    text = "北京是中华人民共和国的首都也是全国的政治文化中心和国际交往中心"
    shared = text[5:25]
    exclusion = Exclusion.of([text])
    assert exclusion.leaks([f"今天{shared}很好", f"今天{shared[:-1]}很好"]) == ["window", ""]


def test_a_window_that_is_half_latin_is_not_held_to_the_chinese_limit():
    mixed = "abcdefghij一二三四五六七八九十"  # 10 + 10: not more than half
    assert Exclusion.of([mixed]).leaks([f"xx{mixed}yy"]) == [""]


def test_blank_texts_are_no_leaks_even_where_a_collection_holds_one():
    assert Exclusion.of(["", "..."]).leaks(["", "!!", "word"]) == ["", "", ""]


def test_nothing_excluded_finds_nothing():
    assert Exclusion.of([]).leaks(["a", SENTENCE]) == ["", ""]


def test_windows_do_not_reach_across_texts():
    half = SENTENCE[:40], SENTENCE[40:]
    assert Exclusion.of([SENTENCE]).leaks(list(half)) == ["", ""]


def test_impossible_windows_are_refused():
    with pytest.raises(BadInput, match="1 <= cjk_window <= window, got 60 and 50"):
        Exclusion.of([], cjk_window=60)


def obvious(excluded, text, window):
    """The rule by its words, for scripts that are not CJK."""
    wanted, held = normalise(text), [normalise(one) for one in excluded]
    if wanted and wanted in held:
        return "exact"
    pieces = {wanted[i : i + window] for i in range(len(wanted) - window + 1)}
    return "window" if any(piece in one for piece in pieces for one in held) else ""


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("ab -", max_size=30), max_size=6), st.lists(st.text("ab -", max_size=30), max_size=6))
def test_hashing_finds_what_comparing_every_window_finds(excluded, texts):
    exclusion = Exclusion.of(excluded, window=6, cjk_window=4)
    assert exclusion.leaks(texts) == [obvious(excluded, text, 6) for text in texts]


def test_the_size_of_blocks_makes_no_difference(monkeypatch):
    rng = random.Random(3)
    texts = ["".join(rng.choices("abc ", k=rng.randint(0, 40))) for _ in range(200)]
    whole = Exclusion.of(texts[:100], window=7, cjk_window=4).leaks(texts[50:])
    monkeypatch.setattr(module, "_BLOCK", 64)
    assert Exclusion.of(texts[:100], window=7, cjk_window=4).leaks(texts[50:]) == whole
    assert "window" in whole and "" in whole
