"""Words of a text, as lexical search counts them, in any script.

words("Die Männer heirateten 2019 in 東京都", "de")      # needs PyStemmer for the stems
['die', 'mann', 'heiratet', '2019', 'in', '東京', '京都']
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

from polylex.errors import MissingExtra

# Scripts written without spaces, and Hangul, where endings are joined to the words: Thai, Lao, Burmese, Khmer, Hangul,
# kana, Han. Taken by script, not by language, so that mixed texts and queries of unknown language are cut alike.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Snowball's algorithm for each language that has one.
_ALGORITHMS = {
    "ar": "arabic", "ca": "catalan", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english",
    "es": "spanish", "et": "estonian", "eu": "basque", "fa": "persian", "fi": "finnish", "fr": "french", "ga": "irish",
    "hi": "hindi", "hu": "hungarian", "hy": "armenian", "id": "indonesian", "it": "italian", "lt": "lithuanian",
    "ne": "nepali", "nl": "dutch", "no": "norwegian", "pl": "polish", "pt": "portuguese", "ro": "romanian",
    "ru": "russian", "sr": "serbian", "sv": "swedish", "ta": "tamil", "tr": "turkish", "yi": "yiddish",
}  # fmt: skip
# Lucene's English stop words; the other languages keep theirs, as the usual reference figures do.
_STOP = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not",
    "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was",
    "will", "with",
})  # fmt: skip


def words(text: str, language: str = "") -> list[str]:
    """The words of a text, in order, repeats included; never an empty one.

    language  a tag such as "de" or "zh-Hans". Where Snowball knows the language, words are stemmed, and English loses
              its stop words; "" or any other language leaves words as they are

    Text is normalised (NFKC) and lower-cased. Chinese, Japanese, Thai, Lao, Burmese, Khmer and Korean characters give
    overlapping pairs (one alone stands for itself), everything else words of letters, marks and digits.
    Raises MissingExtra for a language that is stemmed, without PyStemmer.
    """
    language = language.partition("-")[0].lower()
    found = _runs(unicodedata.normalize("NFKC", text).lower())
    if language == "en":
        found = [word for word in found if word not in _STOP]
    if language in _ALGORITHMS:
        found = _stemmer(_ALGORITHMS[language]).stemWords(found)
    return found if text.isascii() else [piece for word in found for piece in _pieces(word)]


def _runs(text: str) -> list[str]:
    """Runs of an unspaced script, and of all other letters, marks and digits."""
    if text.isascii():
        return _ASCII.findall(text)
    found: list[str] = _patterns()[0].findall(text)
    if _patterns()[1].search(text) is None:
        return found
    return [run for word in found for run in _patterns()[2].findall(word)]


def _pieces(word: str) -> list[str]:
    """The word, or the pairs of characters of one in an unspaced script."""
    if len(word) < 3 or not _patterns()[1].match(word):
        return [word]
    return [word[at : at + 2] for at in range(len(word) - 1)]


_ASCII = re.compile(r"\w+", re.ASCII)


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """A word, a character of an unspaced script, and a run of such characters or of others."""
    # Python's \w leaves combining marks out, which would cut words of Hindi, Tamil, Hebrew, ... into pieces.
    marks = "".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.category(chr(code)).startswith("M"))
    return re.compile(rf"[\w{marks}]+"), re.compile(f"[{_UNSPACED}]"), re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")


@cache
def _stemmer(algorithm: str) -> Any:  # noqa: ANN401 - the package is optional
    try:
        import Stemmer
    except ImportError:
        raise MissingExtra("PyStemmer", "hybrid", "Stemming words for BM25") from None
    return Stemmer.Stemmer(algorithm)
