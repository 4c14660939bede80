import unicodedata
from collections import defaultdict

import pytest

from polylex.demo import DEMO_LANGUAGES, SAMPLE_QUERIES, UDHR, load_udhr
from polylex.errors import BadInput

EXPECTED = "en de fr es it pt ru uk ar he fa hi bn ta te th ja ko zh-Hans vi tr pl el sw id"


@pytest.fixture(scope="module")
def documents():
    return load_udhr()


@pytest.fixture(scope="module")
def by_language(documents):
    found = defaultdict(dict)
    for document in documents:
        found[document.fields["lang"]][document.fields["article"]] = document
    return found


def test_the_declaration_is_there_in_139_languages_and_25_scripts(documents, by_language):
    assert len(by_language) == 139
    assert len({document.fields["script"] for document in documents}) == 25
    assert set(EXPECTED.split()) <= set(by_language)
    assert UDHR.stat().st_size < 1_000_000


def test_every_language_has_all_30_articles_and_all_but_two_the_preamble(by_language):
    without = {tag for tag, articles in by_language.items() if set(articles) == set(range(1, 31))}
    assert without == {"am", "gn"}
    assert all(set(articles) == set(range(31)) for tag, articles in by_language.items() if tag not in without)


def test_articles_are_tidy_text_with_ids_of_language_and_number(documents):
    for document in documents:
        fields = document.fields
        assert document.id == f"{fields['lang']}-{fields['article']}"
        assert list(fields) == ["id", "lang", "language", "own_name", "script", "article", "title", "text"]
        assert fields["language"] and fields["own_name"]
        assert unicodedata.is_normalized("NFC", document.text)
        assert fields["text"].strip() == fields["text"] and "  " not in fields["text"]
        assert not set(document.text) & set("&<>[]\ufffd\ufeff\u00ad\u200b")


def test_no_two_languages_share_a_translation(by_language):
    longest = {tag: articles[2].text for tag, articles in by_language.items()}
    assert len(set(longest.values())) == len(longest)


def test_articles_stand_under_their_numbers(by_language):
    # Article 4 forbids slavery, 15 is about nationality: words that any reader of the language can check.
    words = {
        4: {"de": "Sklaverei", "es": "esclavitud", "ru": "рабств", "hi": "ग़ुलामी", "zh-Hans": "奴隶", "el": "δουλεία"},
        15: {
            "de": "Staatsangehörigkeit",
            "fr": "nationalité",
            "ja": "国籍",
            "ko": "국적",
            "th": "สัญชาติ",
            "tr": "uyrukluk",
        },
    }
    for number, expected in words.items():
        for tag, word in expected.items():
            assert word in by_language[tag][number].text


def test_languages_can_be_chosen():
    documents = load_udhr(["de", "hi", "zh-Hans"])
    assert len(documents) == 93
    assert documents[19].id == "de-19" and documents[19].fields["own_name"] == "Deutsch"
    assert [document.id for document in load_udhr(["de"], preamble=False)] == [f"de-{n}" for n in range(1, 31)]


@pytest.mark.parametrize("languages", [["de", "xx"], "de"])
def test_unknown_languages_are_refused_with_a_list_of_the_known(languages):
    with pytest.raises(BadInput, match=r"list of tags .*, got (xx|de); known: af am ar .* zh-Hant zu"):
        load_udhr(languages)


def test_the_demo_languages_cover_every_script_and_every_sample_query(documents, by_language):
    assert set(DEMO_LANGUAGES) <= set(by_language)
    assert list(DEMO_LANGUAGES) == sorted(set(DEMO_LANGUAGES)) and len(DEMO_LANGUAGES) >= 40
    scripts = {document.fields["script"] for document in documents}
    assert {document.fields["script"] for document in documents if document.fields["lang"] in DEMO_LANGUAGES} == scripts
    assert {query.language for query in SAMPLE_QUERIES} <= set(DEMO_LANGUAGES)


def test_sample_queries_are_one_a_language_and_name_an_article():
    assert len({query.language for query in SAMPLE_QUERIES}) == len(SAMPLE_QUERIES) >= 12
    assert all(1 <= query.article <= 30 and query.text and query.meaning for query in SAMPLE_QUERIES)
