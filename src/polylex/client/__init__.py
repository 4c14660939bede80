"""Client of a Polylex server (`polylex serve`), for plain and for asynchronous programs. Needs the extra polylex[client].

    from polylex.client import Client

    with Client("http://127.0.0.1:8080", key="...") as client:
        for hit in client.search("¿Quién puede casarse?", k=3, where="lang = 'de'"):
            print(hit.score, hit.id, hit.fields["text"])

    async with AsyncClient("http://127.0.0.1:8080") as client:
        hits = await client.search("¿Quién puede casarse?", k=3)
"""

from __future__ import annotations

from polylex.client.answers import Answer, Changed, Language, PrunedSize, Term
from polylex.client.attempts import Retries
from polylex.client.client import AsyncClient, Client

__all__ = ["Answer", "AsyncClient", "Changed", "Client", "Language", "PrunedSize", "Retries", "Term"]
