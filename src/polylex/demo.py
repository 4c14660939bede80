"""The bundled collection, for a first search: the Universal Declaration of Human Rights in 139 languages.

    documents = load_udhr(["de", "hi", "zh-Hans"])      # 93 documents: 30 articles and the preamble of each
    documents[19].id, documents[19].fields["own_name"]  # "de-19", "Deutsch"

Its origin and terms are in assets/UDHR-NOTICE.md, its making in scripts/build_udhr.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from polylex.corpus import Document, read_documents
from polylex.errors import BadInput

UDHR = Path(__file__).parent / "assets" / "udhr.jsonl.gz"

# Every script that the collection has, every large family of languages, every language of SAMPLE_QUERIES.
_FOR_DEMO = """
am ar bn de el en es fa fi fr gu he hi hu hy id it ja ka km kn ko lo ml my nl pa pl pt ru si sw ta te th tr uk ur vi
zh-Hans zh-Hant
"""
DEMO_LANGUAGES: tuple[str, ...] = tuple(_FOR_DEMO.split())


class SampleQuery(NamedTuple):
    """A question that one article answers.

    language  of the question; the answer may be in any
    text      the question
    article   the article that answers it, as in the field "article" of a document
    meaning   the question in English
    """

    language: str
    text: str
    article: int
    meaning: str


SAMPLE_QUERIES = (
    SampleQuery("ar", "هل يجوز سجن شخص دون سبب؟", 9, "May someone be imprisoned without a reason?"),
    SampleQuery("bn", "আমি কি আমার ধর্ম বদলাতে পারি?", 18, "May I change my religion?"),
    SampleQuery("de", "Darf der Staat meine Briefe lesen?", 12, "May the state read my letters?"),
    SampleQuery("el", "Έχουν όλοι δικαίωμα στη ζωή;", 3, "Has everyone a right to life?"),
    SampleQuery("en", "Who may marry?", 16, "Who may marry?"),
    SampleQuery("es", "¿Puedo ser castigado por lo que pienso?", 19, "Can I be punished for what I think?"),
    SampleQuery("fa", "آیا همه می‌توانند رأی بدهند؟", 21, "Can everyone vote?"),
    SampleQuery("fr", "Ai-je le droit de quitter mon pays ?", 13, "Have I the right to leave my country?"),
    SampleQuery("he", "האם כולם שווים בפני החוק?", 7, "Is everyone equal before the law?"),
    SampleQuery("hi", "क्या सबको भोजन और इलाज का अधिकार है?", 25, "Has everyone a right to food and medical care?"),
    SampleQuery("id", "Bolehkah kami berkumpul dengan damai?", 20, "May we assemble peacefully?"),
    SampleQuery("it", "La scuola deve essere gratuita?", 26, "Must school be free of charge?"),
    SampleQuery("ja", "有罪が証明されるまでは無罪ですか。", 11, "Is one innocent until proved guilty?"),
    SampleQuery("ko", "쉬거나 휴가를 갈 권리가 있나요?", 24, "Is there a right to rest or take holidays?"),
    SampleQuery("nl", "Mag iemand als slaaf worden gehouden?", 4, "May anyone be held as a slave?"),
    SampleQuery("pl", "Czy mogę założyć związek zawodowy?", 23, "May I found a trade union?"),
    SampleQuery("pt", "Podem tirar-me a minha nacionalidade?", 15, "Can my nationality be taken from me?"),
    SampleQuery("ru", "Можно ли пытать заключённого?", 5, "May a prisoner be tortured?"),
    SampleQuery("sw", "Nani ana haki ya kuoa au kuolewa?", 16, "Who has the right to marry?"),
    SampleQuery("ta", "எனக்கு வேலை செய்ய உரிமை உண்டா?", 23, "Have I a right to work?"),
    SampleQuery("th", "ใครมีสิทธิแต่งงานได้บ้าง", 16, "Who has the right to marry?"),
    SampleQuery("tr", "Malım mülküm elimden alınabilir mi?", 17, "Can my property be taken from me?"),
    SampleQuery("uk", "Хто може просити притулку в іншій країні?", 14, "Who may seek asylum in another country?"),
    SampleQuery("vi", "Ai cũng được xét xử công bằng phải không?", 10, "Does everyone get a fair trial?"),
    SampleQuery("zh-Hans", "作者对自己的作品有什么权利?", 27, "What rights has an author in a work?"),
)


def load_udhr(languages: Sequence[str] | None = None, *, preamble: bool = True) -> list[Document]:
    """The declaration in some languages, one document an article.

    languages  by tag (BCP 47), such as DEMO_LANGUAGES; None takes all 139
    preamble   False leaves it out: it speaks of everything, so it comes up for every question

    The fields of a document: id ("de-19"), lang ("de"), language ("German"), own_name ("Deutsch"), script ("Latn"),
    article (0 is the preamble), title (the heading; null where the translation has none), text. They come sorted by
    tag and article. Raises BadInput for a language that is not there, naming those that are.
    """
    documents = [document for document in read_documents(UDHR) if preamble or document.fields["article"] != 0]
    if languages is None:
        return documents
    known = dict.fromkeys(str(document.fields["lang"]) for document in documents)
    wrong = [languages] if isinstance(languages, str) else [tag for tag in languages if tag not in known]
    if wrong:
        raise BadInput(
            f"languages must be a list of tags that the declaration is in, got {', '.join(wrong)}; "
            f"known: {' '.join(known)}"
        )
    return [document for document in documents if document.fields["lang"] in languages]
