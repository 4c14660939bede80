from hypothesis import given
from hypothesis import strategies as st

from polylex.text import Preparation, clean, lower


def test_lone_surrogates_and_nuls_become_one_replacement_character_each():
    assert clean("a\x00b\ud800c\x1bd\x7f") == "a\ufffdb\ufffdc\ufffdd\ufffd"


def test_line_breaks_tabs_and_real_astral_characters_stay():
    assert clean("a\tb\nc\r\n🙂 मराठी") == "a\tb\nc\r\n🙂 मराठी"


def test_lower_casing_never_changes_the_length():
    assert lower("İSTANBUL") == "İstanbul"  # İ would become two characters
    assert lower("ÄRGER") == "ärger"


def test_the_prompt_stands_before_the_prepared_text():
    assert Preparation("query: ", lowercase=True)("Où\x00") == "query: où\ufffd"


@given(st.text(st.characters()))
def test_a_prepared_text_can_always_be_encoded_and_keeps_its_length(text):
    for lowercase in (False, True):
        prepared = Preparation("", lowercase)(text)
        assert len(prepared) == len(text)
        prepared.encode("utf-8")
