"""Client of a Polylex server (`polylex serve`), for plain and for asynchronous programs.

    with Client("http://127.0.0.1:8765", key="...") as client:
        for hit in client.search("¿Quién puede casarse?", k=3, where="lang = 'de'"):
            print(hit.score, hit.id, hit.fields["text"])

    async with AsyncClient("http://127.0.0.1:8765") as client:
        hits = await client.search("¿Quién puede casarse?", k=3)

Needs the extra polylex[client].
"""

from __future__ import annotations

from polylex.errors import MissingExtra

try:
    import httpx2  # noqa: F401
except ImportError:
    raise MissingExtra("httpx2", "client", "The client of a Polylex server") from None

from polylex.client.answers import Answer, Changed, Language, PrunedSize, ServerInfo, Term
from polylex.client.attempts import Retries
from polylex.client.client import AsyncClient, Client

__all__ = ["Answer", "AsyncClient", "Changed", "Client", "Language", "PrunedSize", "Retries", "ServerInfo", "Term"]
