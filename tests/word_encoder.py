"""An encoder that anyone can follow: every word is a term, its weight is how often it stands there."""

from collections import Counter

from polylex.collection import Collection
from polylex.trec import Query
from polylex.vectors import SparseVectors
from polylex.vocab import Vocab


class WordEncoder:
    """Words outside `words` mean nothing. Query and document are encoded alike."""

    name = "words"
    weights_id = "0"

    def __init__(self, words):
        self.vocab = Vocab(words.split(), ())
        self.encoded = 0

    def encode(self, texts, *, kind="document"):
        self.encoded += len(texts)
        known = set(self.vocab.pivot)
        rows = [Counter(f"e_{word}" for word in text.split() if word in known) for text in texts]
        return SparseVectors.from_dicts(rows, self.vocab)

    def term_spans(self, text, terms, *, kind="document"):
        words = {term: self.vocab.name(term)[2:] for term in terms}
        return {term: [(text.find(word), text.find(word) + len(word))] for term, word in words.items() if word in text}


def collection(documents, queries, judgments, *, name="c", languages=None):
    """A collection from {id: text} twice and {query: {document: grade}}. An id may begin with a language and a dash."""
    spoken = languages or (lambda id: id.partition("-")[0] if "-" in id else "")
    return Collection(
        name=name,
        ids=tuple(documents),
        texts=tuple(documents.values()),
        languages=tuple(map(spoken, documents)),
        queries=tuple(Query(id, text, spoken(id)) for id, text in queries.items()),
        judgments=judgments,
    )
