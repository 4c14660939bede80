import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polylex import words as words_module
from polylex.errors import MissingExtra
from polylex.words import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wer darf heiraten?", ["wer", "darf", "heiraten"]),
        ("  ", []),
        ("!?", []),
        ("ﬁne ＡＢＣ", ["fine", "abc"]),  # NFKC
        ("誰が結婚できますか", ["誰が", "が結", "結婚", "婚で", "でき", "きま", "ます", "すか"]),
        ("犬", ["犬"]),
        ("结婚", ["结婚"]),
        ("東京都 Tokyo 2020年", ["東京", "京都", "tokyo", "2020", "年"]),
        ("第16条", ["第", "16", "条"]),
        ("결혼할 수", ["결혼", "혼할", "수"]),
        ("กินข้าว", ["กิ", "ิน", "นข", "ข้", "้า", "าว"]),
        ("ភាសា", ["ភា", "ាស", "សា"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs are part of a word
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("ICE-Züge", ["ice", "züge"]),
    ],
)
def test_words_of_a_text_in_any_script(text, expected):
    assert words(text) == [unicodedata.normalize("NFKC", word) for word in expected]


def test_a_language_stems_and_only_english_loses_stop_words():
    assert words("Die Männer heirateten", "de") == ["die", "mann", "heirat"]
    assert words("The men are marrying", "en") == words("The men are marrying", "en-GB") == ["men", "marri"]
    assert words("結婚する people", "ja") == ["結婚", "婚す", "する", "people"]
    assert words("The men", "") == words("The men", "xx") == ["the", "men"]


def test_stems_need_their_package_and_plain_words_do_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    words_module._stemmer.cache_clear()
    assert words("The men") == ["the", "men"]
    with pytest.raises(MissingExtra, match=r"polylex\[hybrid\]"):
        words("The men", "en")


@given(st.text(), st.sampled_from(["", "de", "en", "ja"]))
def test_no_word_is_empty_or_has_a_space_whatever_the_text(text, language):
    assert all(word and not any(char.isspace() for char in word) for word in words(text, language))


@given(st.text("あ結婚한국ไท កខab1 ", max_size=8))
def test_no_letter_gets_lost(text):
    assert set("".join(words(text))) == set(unicodedata.normalize("NFKC", text)) - {" "}
