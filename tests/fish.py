"""Four documents and what a word encoder finds in them, for the adapters; and a source that can only be awaited."""

from word_encoder import WordEncoder

import polylex

DOCUMENTS = [
    {"_id": "1", "title": "One", "text": "red fish", "lang": "en", "year": 1960, "tags": ["dr", "rhyme"]},
    {"_id": "2", "title": "Two", "text": "blue blue fish", "lang": "en", "year": 1970},
    {"_id": "3", "text": "red red red", "lang": "de", "author": {"name": "O'Hara"}},
    {"_id": "4", "text": "black", "lang": "de", "year": 1980},
]
ENCODER = WordEncoder("red blue fish black")


def build(folder, documents=DOCUMENTS, **options):
    return polylex.Retriever.build(folder, documents, ENCODER, **options)


class Awaited:
    """An AsyncClient as far as the adapters know it."""

    def __init__(self, retriever):
        self._retriever = retriever

    async def search(self, query, k=10, *, where=None):
        return self._retriever.search(query, k, where=where)
