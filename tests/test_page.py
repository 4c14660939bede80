"""The search page, in a real browser, on a real server; what a server says when it is unwell is made up."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import polylex
from polylex.corpus import as_document
from polylex.demo import load_udhr

FOLDER = Path(str(resources.files("polylex"))) / "server" / "page"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# One question each in five scripts, none of them Latin, and what runs from right to left among them.
QUESTIONS = {
    "hi": "क्या सबको भोजन और इलाज का अधिकार है?",
    "th": "ใครมีสิทธิแต่งงานได้บ้าง",
    "ja": "有罪が証明されるまでは無罪ですか。",
    "ar": "هل يجوز سجن شخص دون سبب؟",
    "ru": "Можно ли пытать заключённого?",
}
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


# -- without a browser ---------------------------------------------------------------------------------


def test_all_that_the_page_loads_is_in_its_folder():
    wanted = re.findall(r'(?:src|href)="([^"#]+)"', (FOLDER / "index.html").read_text("utf-8"))
    for module in FOLDER.glob("*.js"):
        wanted += re.findall(r'^import .* from "\./([^"]+)";$', module.read_text("utf-8"), re.MULTILINE)
    assert {"style.css", "main.js", "icon.svg", "why.js"} <= set(wanted)
    assert [name for name in wanted if name != "." and not (FOLDER / name).is_file()] == []


def test_nothing_in_the_page_is_inline_or_from_elsewhere_or_parses_html():
    for path in FOLDER.iterdir():
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://[a-z]|@import|url\(", text), path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|DOMParser", text), (
            path.name
        )
    html = (FOLDER / "index.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", html)


# -- with one ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    if find_spec("playwright") is None:
        pytest.skip("needs playwright: pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        path = next(filter(None, map(shutil.which, BROWSERS)), own if Path(own).exists() else None)
        if path is None:
            pytest.skip("needs a browser: apt-get install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--disable-dev-shm-usage"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server on five articles of the declaration in nine languages, and on a document that means harm."""
    pytest.importorskip("starlette", reason="needs the extra polylex[server]")
    documents = [
        each for each in load_udhr([*QUESTIONS, "de", "en", "es", "he"]) if each.fields["article"] in (5, 9, 11, 16, 25)
    ]
    table = {
        "id": "a'b\"<c>",
        "title": HOSTILE,
        "text": f"{HOSTILE} torture 😀 punishment",
        "page": "javascript:alert(1)",
        "source": "https://example.org/a?b=c",
        "tags": ["<b>law</b>", "x"],
    }
    folder = tmp_path_factory.mktemp("page") / "rights.plx"
    polylex.Retriever.build(folder, [*documents, as_document(table)]).close()
    command = [sys.executable, "-m", "polylex", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8") as server:
        line = ""
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", line)):
            line = server.stderr.readline()
            assert line, "the server ended"
        drain = subprocess.Popen(["cat"], stdin=server.stderr, stdout=subprocess.DEVNULL)
        yield found[0] + "/"
        server.terminate()
        server.wait(30)
        drain.wait(30)


class Visit:
    """A tab of the page; at the end it has asked nobody but the server, and nothing has gone wrong in it."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **options}
        )
        self.page = self.context.new_page()
        self.address = address
        self.asked, self.faults = [], []
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda message: self.faults.append(message.text) if "Policy" in message.text else None)

    def open(self, **state):
        self.page.goto(self.address + ("?" + urlencode(state, doseq=True) if state else ""))
        return self.rest()

    def rest(self):
        self.page.wait_for_selector("html:not(.busy)")
        return self.page

    def ask(self, query):
        self.page.locator("#query").fill(query)
        self.page.keyboard.press("Enter")
        return self.rest()

    def fake(self, path, body, status=200, **headers):
        """Answer a path of the API with this from now on."""

        def answer(route):
            route.fulfill(status=status, body=json.dumps(body), headers={"Content-Type": "application/json", **headers})

        self.page.unroute_all()
        self.page.route(f"{self.address}{path}", answer)

    def state(self):
        return parse_qs(urlsplit(self.page.url).query)

    def ids(self, column=0):
        return [
            each.get_attribute("data-id") for each in self.page.locator(".column").nth(column).locator(".hit").all()
        ]

    def close(self):
        self.context.close()
        assert [url for url in self.asked if not url.startswith(self.address)] == []
        assert self.faults == []


@pytest.fixture
def visit(browser, address):
    visit = Visit(browser, address)
    yield visit
    visit.close()


def call(address, path, **body):
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def match(term, product, query_words, document_words, view="pivot"):
    """A match of a made-up explanation with a score of 10; words are (start, text)."""

    def spans(words):
        return [{"start": start, "end": start + len(text), "text": text} for start, text in words]

    weights = {"query_weight": product / 2, "document_weight": 2.0, "product": product, "share": product / 10}
    words = {"query_words": spans(query_words), "document_words": spans(document_words)}
    return {"term": term, "view": view, **weights, **words}


def found(*hits, terms=(), documents=100, **more):
    """A made-up answer to a search; hits are (id, fields)."""
    listed = [
        {"rank": rank, "id": id, "score": 10.0 / rank, "fields": fields, "explanation": None}
        for rank, (id, fields) in enumerate(hits, 1)
    ]
    query = {"text": "q", "language": None, "terms": [{"term": t, "view": "pivot", "weight": w} for t, w in terms]}
    return {"hits": listed, "query": query, "facets": {}, "pruned": None, "documents": documents, "encode_ms": 1.0,
            "search_ms": 0.5, **more}  # fmt: skip


@pytest.mark.parametrize("lang", QUESTIONS)
def test_a_question_in_another_script_shows_the_hits_of_the_api_in_their_own_scripts(visit, lang):
    visit.open()
    page = visit.ask(QUESTIONS[lang])
    answer = call(visit.address, "search", query=QUESTIONS[lang])
    assert visit.ids() == [hit["id"] for hit in answer["hits"]] != []
    assert visit.state() == {"q": [QUESTIONS[lang]]}
    language = answer["query"]["language"]
    assert page.locator("#query-language").inner_text() == (language["name"] if language else "")
    for element, hit in zip(page.locator(".hit").all(), answer["hits"], strict=True):
        text = element.locator(".text")
        shown, meant = text.text_content(), " ".join(hit["fields"]["text"].split())
        assert meant.startswith(shown.removesuffix(" …"))
        assert text.get_attribute("lang") == hit["fields"].get("lang")
        rtl = hit["fields"].get("lang") in ("ar", "he")
        assert text.evaluate("element => getComputedStyle(element).direction") == ("rtl" if rtl else "ltr")
    assert "hits in" in page.locator("#status").text_content()


def test_the_query_runs_as_its_script_does(visit):
    page = visit.open(q=QUESTIONS["ar"])
    assert page.locator("#query").evaluate("element => getComputedStyle(element).direction") == "rtl"
    page = visit.ask(QUESTIONS["th"])
    assert page.locator("#query").evaluate("element => getComputedStyle(element).direction") == "ltr"


def test_why_lights_up_the_words_of_query_and_document_and_joins_them_by_their_terms(visit):
    visit.open(q="Who may be tortured?", where="lang = 'de'")
    id = visit.ids()[0]
    card = visit.page.locator(f'.hit[data-id="{id}"]')
    card.get_by_role("button", name="Why?").click()
    visit.rest()
    assert visit.state()["why"] == [id]
    explained = call(visit.address, "explain", query="Who may be tortured?", id=id, limit=100)
    heaviest = explained["matches"][:12]
    terms = card.locator("button.term")
    assert terms.count() == len(heaviest)
    said = " ".join(term.get_attribute("aria-label") for term in terms.all())
    assert all(f" {each['term'][2:].replace('##', '…')}, " in said for each in heaviest if each["view"] == "pivot")
    lit = {mark.text_content() for mark in card.locator(".text mark, h3 mark").all()}
    assert lit == {word["text"] for each in heaviest if each["query_words"] for word in each["document_words"]}
    assert card.locator(".sum b").text_content() == f"{explained['score']:.2f}"
    assert card.locator(".strand").count() >= 2 * len(heaviest)
    assert all(path.get_attribute("d").startswith("M") for path in card.locator(".strand").all())
    card.get_by_role("button", name="Why?").click()
    visit.rest()
    assert card.locator(".why").is_hidden() and card.locator("mark").count() == 0
    assert "why" not in visit.state()


@pytest.fixture
def explained(visit):
    """A page with a made-up explanation, worked by hand: 😀 is one character to the server and two to the browser."""
    read = "😀 Titel Anna sah Haus und Hütte"
    fields = {"title": "😀 Titel", "text": "Anna sah Haus und Hütte", "lang": "de"}
    matches = [
        match("e_house", 5.0, [(2, "casa")], [(17, "Haus"), (26, "Hütte")]),
        match("m_▁Anna", 2.0, [(7, "Anna")], [(8, "Anna")], "source"),
        match("e_##ing", 1.5, [(2, "casa")], [(2, "Titel")]),
        match("e_the", 1.0, [], [(13, "sah")]),
    ]
    why = {"query": "😀 casa Anna", "document": read, "document_id": "1", "score": 10.0, "matches": matches}
    visit.fake("search", found(("1", fields), ("2", fields)))
    visit.page.route(f"{visit.address}explain", lambda route: route.fulfill(json=why))
    visit.open(q="😀 casa Anna", why="1")
    return visit


def test_marks_stand_where_the_server_says_whatever_counts_as_a_character(explained):
    card = explained.page.locator(".hit").first
    texts = [
        (mark.text_content(), mark.get_attribute("data-hue"), mark.get_attribute("class"))
        for mark in card.locator("h3 mark, .text mark").all()
    ]
    assert texts == [("Titel", "1", None), ("Anna", "2", "echo"), ("Haus", "1", None), ("Hütte", "1", None)]
    assert card.locator("h3").text_content() == "😀 Titel"
    assert card.locator(".text").text_content() == "Anna sah Haus und Hütte"
    assert [mark.text_content() for mark in card.locator(".asked-line mark").all()] == ["casa", "Anna"]


def test_shares_of_the_score_add_up_by_word_and_tell_echoes_apart(explained):
    shares = [" ".join(each.text_content().split()) for each in explained.page.locator(".shares li").all()]
    assert shares == ["casa 65 %", "whole query 10 %", "echo 20 %", "lighter terms 5 %", "score 10.00"]


def test_terms_come_by_the_word_of_the_query_and_say_in_words_what_the_picture_shows(explained):
    labels = [term.get_attribute("aria-label") for term in explained.page.locator("button.term").all()]
    assert labels == [
        "Term house, 50 % of the score: weight 2.50 from casa, 2.00 from Haus, Hütte.",
        "Term …ing, 15 % of the score: weight 0.75 from casa, 2.00 from Titel.",
        "Echo Anna, 20 % of the score: weight 1.00 from Anna, 2.00 from Anna.",
        "Term the, 10 % of the score: weight 0.50 from the whole query, 2.00 from sah.",
    ]
    echoes = explained.page.locator(".strand.echo")
    assert echoes.count() == 2  # one to each side


def test_pointing_at_a_word_lights_its_partners_and_a_click_on_a_term_keeps_them(explained):
    page = explained.page

    def hot():
        return [mark.text_content() for mark in page.locator("mark.hot").all()]

    page.locator(".text mark", has_text="Hütte").hover()
    assert hot() == ["Haus", "Hütte", "casa"]
    page.mouse.move(2, 2)
    assert hot() == []
    term = page.get_by_role("button", name=re.compile("^Echo Anna"))
    term.click()
    page.mouse.move(2, 2)
    page.locator("#query").focus()
    assert hot() == ["Anna", "Anna"] and term.get_attribute("aria-pressed") == "true"
    term.focus()
    page.keyboard.press("Escape")
    page.locator("#query").focus()
    assert hot() == [] and "why" in explained.state()  # the first Esc lets go, a second one closes


def test_the_slider_searches_an_index_pruned_so_and_shows_what_that_saves(visit):
    page = visit.open(q="Who may marry?")
    page.locator("#keep").fill("40")
    page.wait_for_url(re.compile("keep=40"))
    visit.rest()
    answer = call(visit.address, "search", query="Who may marry?", prune={"mass": 0.4})
    whole = call(visit.address, "search", query="Who may marry?")
    assert visit.ids() == [hit["id"] for hit in answer["hits"]]
    pruned, facts = answer["pruned"], page.locator("#keep-facts").inner_text()
    assert f"{1 - pruned['bytes'] / pruned['bytes_before']:.0%}".replace("%", " % smaller") in facts
    assert f"{pruned['terms_per_document_before']:.0f} → {pruned['terms_per_document']:.0f} terms a document" in facts
    stay = {hit["id"] for hit in answer["hits"]} & {hit["id"] for hit in whole["hits"]}
    assert f"{len(stay)} of 10 hits stay" in facts
    before = {hit["id"]: hit["rank"] for hit in whole["hits"]}
    moved = {hit["id"] for hit in answer["hits"] if before.get(hit["id"]) != hit["rank"]}
    assert {each.get_attribute("data-id") for each in page.locator(".hit", has=page.locator(".moved")).all()} == moved
    page.locator(".why-open").first.click()
    visit.rest()
    score = float(page.locator(".why .sum b").text_content())
    assert score == pytest.approx(answer["hits"][0]["score"], abs=0.006)  # of the pruned document, not of the whole one


def test_a_drag_of_the_slider_asks_once_it_rests_and_is_one_step_back(visit):
    page = visit.open(q="Who may marry?")
    asked = []
    page.on(
        "request", lambda request: asked.append(request.post_data_json) if request.url.endswith("/search") else None
    )
    page.evaluate("""() => {
        const slider = document.getElementById("keep");
        for (const value of [90, 80, 70, 60, 50]) { slider.value = value; slider.dispatchEvent(new Event("input")); }
    }""")
    page.wait_for_url(re.compile("keep=50"))
    visit.rest()
    page.locator("#keep").fill("30")
    page.wait_for_url(re.compile("keep=30"))
    visit.rest()
    assert [each["prune"] for each in asked] == [{"mass": 0.5}, {"mass": 0.3}]
    page.go_back()
    visit.rest()
    assert "keep" not in visit.state() and page.locator("#keep").input_value() == "100"


def test_a_late_answer_to_an_earlier_question_is_given_up(visit):
    visit.open()
    held = []

    def answer(route):
        if route.request.post_data_json["query"] == "slow":
            held.append(route)
        else:
            route.fulfill(json=found(("quick", {"text": "quick"})))

    visit.page.route(f"{visit.address}search", answer)
    given_up = []
    visit.page.on("requestfailed", lambda request: given_up.append(request.post_data_json["query"]))
    visit.page.locator("#query").fill("slow")
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_selector(".ghost")
    visit.ask("quick")
    assert visit.ids() == ["quick"] and given_up == ["slow"] and len(held) == 1


def test_nothing_jumps_when_the_hits_arrive(visit):
    page = visit.open()
    held = []
    page.route(f"{visit.address}search", lambda route: held.append(route))
    page.locator("#query").fill("q")
    page.keyboard.press("Enter")
    page.wait_for_selector(".ghost")

    def places():
        return [
            page.locator(each).bounding_box()
            for each in ("#query", "#keep", "#where", "ol.hits >> nth=0 >> li >> nth=0")
        ]

    before = places()
    held[0].fulfill(
        json=found(*((str(n), {"title": "T", "text": "word " * 80}) for n in range(6)), terms=[("e_word", 2.0)])
    )
    visit.rest()
    after = places()
    for one, other in zip(before, after, strict=True):
        for side in ("x", "y", "width"):
            assert one[side] == pytest.approx(other[side], abs=0.5)  # of a pixel


def test_a_bad_filter_is_shown_with_the_place_of_the_mistake(visit):
    page = visit.open(q="Who may marry?")
    page.locator("#where").fill("lang = de")
    page.keyboard.press("Enter")
    visit.rest()
    assert page.locator(".caret").text_content() == "lang = de"
    assert page.locator(".caret mark").text_content() == "d"  # character 8, from 1
    assert "expected a value" in page.locator("#where-error .reason").text_content()
    assert page.locator("#where").get_attribute("aria-invalid") == "true"
    assert len(visit.ids()) == 10  # what was there stays
    page.locator("#where").fill("lang = 'de'")
    page.keyboard.press("Enter")
    visit.rest()
    assert page.locator("#where-error").text_content() == ""
    assert visit.ids() and all(id.startswith("de-") for id in visit.ids())


def test_the_mistake_is_found_behind_chosen_facets_and_odd_characters_too(visit):
    page = visit.open(**{"q": "Who may marry?", "where": "title = '😀' and lang = de", "is.lang": "de"})
    assert page.locator(".caret mark").text_content() == "d"


def test_facets_narrow_the_search_and_the_back_button_widens_it_again(visit):
    page = visit.open(q="Who may marry?")
    all_ids = visit.ids()
    languages = page.get_by_role("group", name="lang")
    chip = languages.get_by_role("button", name="English")
    chip.click()
    visit.rest()
    assert visit.state()["is.lang"] == ["en"]
    assert visit.ids() and all(id.startswith("en-") for id in visit.ids())
    assert chip.get_attribute("aria-pressed") == "true"
    assert chip.evaluate("element => element === document.activeElement")
    languages.get_by_role("button", name="Spanish").click()  # still offered: within a facet, values are alternatives
    visit.rest()
    assert {id[:3] for id in visit.ids()} == {"en-", "es-"}
    page.go_back()
    page.go_back()
    visit.rest()
    assert visit.ids() == all_ids and "is.lang" not in visit.state()


def test_side_by_side_counts_what_two_languages_have_in_common(visit):
    page = visit.open(q="Who may marry?")
    page.get_by_role("button", name="Side by side").click()
    page.locator("#versus").fill(QUESTIONS["th"])
    page.keyboard.press("Enter")
    visit.rest()
    one, other = (call(visit.address, "search", query=query) for query in ("Who may marry?", QUESTIONS["th"]))
    assert visit.ids(0) == [hit["id"] for hit in one["hits"]]
    assert visit.ids(1) == [hit["id"] for hit in other["hits"]]
    both = {hit["id"] for hit in one["hits"]} & {hit["id"] for hit in other["hits"]}
    figures = page.locator(".figure").all_inner_texts()
    assert figures[0] == f"{len(both)} of 10 hits are the same"
    a, b = ({term["term"]: term["weight"] for term in each["query"]["terms"]} for each in (one, other))
    norm = (sum(w * w for w in a.values()) * sum(w * w for w in b.values())) ** 0.5
    assert figures[1].startswith(f"{len(a.keys() & b.keys())} of {len(a.keys() | b.keys())} terms")
    assert figures[2] == f"{sum(a[t] * b[t] for t in a.keys() & b.keys()) / norm:.2f} cosine of the two"
    assert page.locator("#columns > .strands .strand").count() == len(both)
    assert page.locator(".meeting").count() == 2 * len(both)
    assert visit.state() == {"q": ["Who may marry?"], "vs": [QUESTIONS["th"]]}


def test_an_address_brings_everything_back(visit, browser, address):
    visit.open(
        **{"q": "Who may marry?", "where": "article = 16", "is.lang": ["de", "en"], "keep": "60", "why": "de-16"}
    )
    other = Visit(browser, address)
    page = other.open(**{key: value for key, value in visit.state().items()})
    assert other.ids() == visit.ids() == ["en-16", "de-16"] or other.ids() == visit.ids() == ["de-16", "en-16"]
    assert page.locator("#where").input_value() == "article = 16"
    assert page.locator("#keep").input_value() == "60"
    assert page.locator('.hit[data-id="de-16"] .loom').is_visible()
    assert [chip.locator("bdi").inner_text() for chip in page.locator('.chip[aria-pressed="true"]').all()] == [
        "German",
        "English",
    ]
    other.close()


STATES = st.fixed_dictionaries(
    {
        "query": st.text(max_size=20),
        "versus": st.none() | st.text(max_size=20),
        "where": st.text(max_size=20),
        "picks": st.dictionaries(
            st.text(min_size=1, max_size=8),
            st.lists(st.text(max_size=8) | st.booleans() | st.integers(-999, 999), min_size=1, max_size=3),
            max_size=2,
        ),
        "keep": st.integers(4, 20).map(lambda n: n / 20),
        "k": st.integers(1, 1000),
        "why": st.tuples(st.none() | st.text(max_size=8), st.none()).map(list),
    }
)


@pytest.fixture(scope="module")
def modules(browser, address):
    """A tab in which functions of the page's modules can be called."""
    visit = Visit(browser, address)
    yield visit.open()
    visit.close()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(STATES)
def test_a_state_survives_its_address(modules, state):
    code = "async (state) => { const { read, write } = await import('./address.js'); return read(write(state)); }"
    text = json.dumps(state)
    if re.search(r"\\ud[89a-f]", re.sub(r"\\ud[89ab]..\\ud[c-f]..", "", text)):
        return  # half a character has no address
    assert modules.evaluate(code, state) == state


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=12), st.text(min_size=1, max_size=12) | st.integers() | st.booleans())
def test_a_chosen_value_makes_a_filter_that_means_it(modules, value, name):
    from polylex.filters import holds, parse

    name = str(name)
    if name == "id" or not name:
        return  # means the id of the document, or nothing
    code = "async (picks) => (await import('./address.js')).filterOf({ where: '', picks })"
    expression = parse(modules.evaluate(code, {name: [value, "other"]}))
    assert holds(expression, "1", {name: value}) and holds(expression, "1", {name: ["x", "other"]})
    assert not holds(expression, "1", {name: value + "x"})


# -- what can go wrong ---------------------------------------------------------------------------------


def test_a_server_that_went_away_is_told_and_asked_again_until_it_is_back(visit):
    page = visit.open()
    page.route(f"{visit.address}search", lambda route: route.abort())
    visit.ask("Who may marry?")
    notice = page.get_by_role("alert").first
    assert "Server away" in notice.inner_text() and "does not answer" in notice.inner_text()
    assert re.search(r"again in \d+ s", notice.inner_text())
    page.unroute_all()
    page.wait_for_selector(".hit")  # nobody clicked
    assert notice.inner_text() == ""


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_given_the_time_it_asks_for(visit, status):
    page = visit.open()
    visit.fake("search", {"detail": "Too many requests."}, status, **{"Retry-After": "7"})
    visit.ask("Who may marry?")
    text = page.locator("#notice").inner_text()
    assert "Server busy" in text and "Too many requests." in text and re.search(r"again in [67] s", text)
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector(".hit")
    assert page.locator("#notice").inner_text() == ""


def test_a_key_is_asked_for_and_sent_and_never_in_the_address(visit):
    visit.fake("info", {"detail": "A valid API key is needed."}, 401)
    page = visit.open(q="Who may marry?")
    assert "Key needed" in page.locator("#notice").inner_text()
    page.unroute_all()
    with page.expect_request(f"{visit.address}info") as asked:
        page.get_by_label("API key").fill("secret")
        page.keyboard.press("Enter")
    assert asked.value.headers["authorization"] == "Bearer secret"
    page.wait_for_selector(".hit")
    assert "secret" not in page.url


def test_other_problems_are_shown_in_the_words_of_the_server(visit):
    visit.open()
    visit.fake("search", {"detail": "the query has 5,000 characters, at most 4,000 are allowed"}, 413)
    visit.ask("Who may marry?")
    assert "at most 4,000 are allowed" in visit.page.locator("#notice").inner_text()


def test_an_answer_that_is_no_json_is_a_problem_and_not_a_crash(visit):
    visit.open()
    visit.page.route(f"{visit.address}search", lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    visit.ask("Who may marry?")
    assert "The server answered 502." in visit.page.locator("#notice").inner_text()


def test_an_answer_of_another_release_is_told_and_not_swallowed(visit):
    visit.open()
    visit.fake("search", {"hits": [{}]})
    visit.ask("Who may marry?")
    assert "of another release" in visit.page.locator("#notice").inner_text()
    assert len(visit.faults) == 1  # it is in the console too
    visit.faults.clear()


def test_a_browser_that_keeps_nothing_is_no_hindrance(visit):
    visit.context.add_init_script("""for (const name of ["localStorage", "sessionStorage"])
        Object.defineProperty(window, name, { get() { throw new DOMException("no", "SecurityError"); } });""")
    page = visit.open(q="Who may marry?")
    page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "Light" and len(visit.ids()) == 10


def test_an_empty_index_and_a_search_without_hits_say_what_to_do(visit):
    visit.fake("info", {"documents": 0, "fields": [], "model": {"name": "m"}, "languages": None})
    page = visit.open()
    assert "This index is empty" in page.locator("#results").inner_text()
    page.unroute_all()
    visit.open(q="Who may marry?", where="lang = 'xx'")
    assert "No document that passes the filter" in page.locator("#results").inner_text()
    page.get_by_role("button", name="Search without the filter").click()
    visit.rest()
    assert len(visit.ids()) == 10 and "where" not in visit.state()


def test_what_is_in_a_document_is_never_more_than_text(visit):
    page = visit.open(q="torture punishment", where="exists page")
    assert visit.ids() == ["a'b\"<c>"]
    page.get_by_role("button", name="Why?").click()
    visit.rest()
    card = page.locator(".hit")
    assert card.locator("h3").text_content() == HOSTILE
    assert HOSTILE in card.locator(".text").text_content()
    assert card.locator("img, script, b:not(.shares b)").count() == 0
    assert [link.get_attribute("href") for link in card.locator("a").all()] == ["https://example.org/a?b=c"]
    assert card.locator("a").get_attribute("rel") == "noopener noreferrer nofollow"
    assert page.title() != "owned"
    page.locator("#query").fill(HOSTILE)
    page.keyboard.press("Enter")
    visit.rest()
    assert page.locator("main img, main script").count() == 0 and "owned" not in page.title().split(" – ")[-1]


# -- without a mouse, on any screen --------------------------------------------------------------------


def test_every_hit_can_be_reached_and_explained_with_keys(visit):
    page = visit.open(q="Who may marry?")

    def focused():
        return page.evaluate("document.activeElement.closest('.hit')?.dataset.id ?? document.activeElement.id")

    ids = visit.ids()
    page.keyboard.press("/")
    assert focused() == "query"
    page.keyboard.press("ArrowDown")
    assert focused() == ids[0]
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("k")
    assert focused() == ids[1]
    page.keyboard.press("Enter")
    visit.rest()
    assert visit.state()["why"] == [ids[1]] and focused() == ids[1]
    page.keyboard.press("Escape")
    visit.rest()
    assert "why" not in visit.state() and focused() == ids[1]
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.get_by_label("Single characters are keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    assert focused() != "query"


def test_a_key_typed_into_a_field_is_text(visit):
    page = visit.open(q="Who may marry?")
    page.locator("#where").press("j")
    page.locator("#where").press("/")
    assert page.locator("#where").input_value() == "j/"


SCENES = {
    "welcome": {},
    "hits": {"q": QUESTIONS["ru"]},
    "why": {"q": "¿Quién puede casarse?", "why": "de-16", "keep": "70"},
    "right to left": {"q": QUESTIONS["ar"], "why": "ar-9"},
    "side by side": {"q": "Who may marry?", "vs": QUESTIONS["ja"]},
    "mistake": {"q": "Who may marry?", "where": "lang = de"},
}


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_axe_finds_nothing_to_complain_about(browser, address, scheme, width):
    axe = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python")
    code = (Path(axe.__file__).parent / "axe.min.js").read_text("utf-8")
    visit = Visit(browser, address, color_scheme=scheme, viewport={"width": width, "height": 800})
    complaints = {}
    for name, state in SCENES.items():
        page = visit.open(**state)
        page.evaluate(code)
        report = page.evaluate("axe.run(document)")
        assert len(report["passes"]) > 15
        complaints[name] = [
            f"{each['id']}: {node['html'][:150]} {node['failureSummary'][:300]}"
            for each in report["violations"]
            for node in each["nodes"]
        ]
    visit.close()
    assert {name: found for name, found in complaints.items() if found} == {}


@pytest.mark.parametrize("width", [320, 768, 1440])
def test_nothing_is_wider_than_the_screen(browser, address, width):
    visit = Visit(browser, address, viewport={"width": width, "height": 800})
    for state in SCENES.values():
        page = visit.open(**state)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    visit.close()


def test_colours_can_be_chosen_and_stay_chosen(visit):
    page = visit.open()

    def paper():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = paper()
    page.locator("#theme").click()
    assert paper() == light
    page.locator("#theme").click()
    dark = paper()
    assert dark != light
    page.reload()
    visit.rest()
    assert paper() == dark
