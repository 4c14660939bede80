"""Adapters to search engines that already run, one file an engine; each imports only its own client package.

`polylex.engine` has what they share. docs/engines.md says what was tested against what.
"""
