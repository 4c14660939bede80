"""`python -m polylex` is the command `polylex`."""

from polylex.cli import main

main()
