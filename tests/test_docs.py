"""Every snippet of README and docs runs, and prints what the page says it prints."""

import re
import subprocess
import sys
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
# Packages that are not for every Python version.
NEEDS = {"interop": "mteb"}
BLOCK = re.compile(r"^```(\w+)?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(page: Path) -> list[tuple[str, str]]:
    """(code, printed) of a page's Python blocks; a ```text block right after one is what it prints."""
    text = page.read_text("utf-8")
    blocks = list(BLOCK.finditer(text))
    found = []
    for block, after in zip_longest(blocks, blocks[1:]):
        language, flags, code = block.groups()
        if language != "python" or "skip" in flags:
            continue
        follows = after is not None and after[1] == "text" and not text[block.end() : after.start()].strip()
        found.append((code, after[3] if follows else ""))
    return found


def test_the_readme_has_a_snippet_with_its_output():
    assert any(printed for _, printed in snippets(ROOT / "README.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_snippets_of_a_page_run_one_after_another_and_print_what_it_says(page, tmp_path):
    found = snippets(page)
    if not found:
        return  # a page of prose
    if page.stem in NEEDS and find_spec(NEEDS[page.stem]) is None:
        pytest.skip(f"needs {NEEDS[page.stem]}")
    mark = "<<end of snippet>>"
    script = f"\nprint({mark!r})\n".join(code for code, _ in found) + f"\nprint({mark!r})\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = [part.strip() for part in done.stdout.split(mark)[:-1]]
    for (code, expected), actual in zip(found, printed, strict=True):
        if expected:
            assert actual == expected.strip(), code


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "LOG.md"], ids=lambda page: page.stem)
def test_links_inside_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
