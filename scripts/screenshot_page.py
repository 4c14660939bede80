"""Take the pictures of the search page in docs/, from a server on the index of `polylex demo`.

polylex demo --quiet
polylex serve ~/.cache/polylex/udhr-*.plx &
python scripts/screenshot_page.py http://127.0.0.1:8765/

Needs playwright and a Chromium (apt-get install chromium), and fonts for all scripts (fonts-noto-core, fonts-noto-cjk).
"""

from __future__ import annotations

import base64
import shutil
import sys
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parent.parent / "docs"
QUALITY = 82

# name: state of the page, the hit to explain as a selector, height, colours
PICTURES = {
    "page-why": ({"q": "教育を受ける権利"}, ".hit:not([data-id^=ja])", 1120, "light"),
    "page-two": ({"q": "من يحق له الزواج؟", "vs": "誰が結婚できますか"}, None, 900, "light"),
    "page-dark": ({"q": "هل التعليم مجاني؟"}, ".hit:is([data-id^=ar], [data-id^=fa], [data-id^=he])", 1010, "dark"),
}


def main() -> None:
    """Take them all."""
    address = sys.argv[1]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        for name, (state, hit, height, scheme) in PICTURES.items():
            context = browser.new_context(viewport={"width": 1240, "height": height}, color_scheme=scheme)
            page = context.new_page()
            page.goto(f"{address}?{urlencode(state)}")
            page.wait_for_selector("html:not(.busy)")
            if hit:
                page.locator(f"{hit} .why-open").first.click()
                page.wait_for_selector(".loom")
                page.mouse.move(2, 2)
                if page.locator(".hit.open .rank").inner_text().split()[-1] != "1":
                    page.evaluate("() => document.querySelector('.hit.open').scrollIntoView()")
            page.wait_for_timeout(800)
            wanted = {"format": "webp", "quality": QUALITY}
            picture = context.new_cdp_session(page).send("Page.captureScreenshot", wanted)
            (DOCS / f"{name}.webp").write_bytes(base64.b64decode(picture["data"]))
            print(name, (DOCS / f"{name}.webp").stat().st_size)
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
