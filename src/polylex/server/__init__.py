"""The HTTP server behind `polylex serve`: an ASGI application, and what runs it. Needs the extra polylex[server]."""
