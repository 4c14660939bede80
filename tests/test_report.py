"""Reports and their plots: whole without the network, and true to every text."""

import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from word_encoder import WordEncoder, collection

from polylex import Pruning
from polylex.assessment import assess
from polylex.errors import MissingExtra
from polylex.pages import Figure, Heading, Link, Paragraph, Table, html, markdown
from polylex.plots import curves, differences, heat_map, histograms, png
from polylex.report import write_report
from polylex.systems import Outcome, Sparse

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<script>alert("1 & 2")</script>'
ARABIC = "من يحق له الزواج؟"
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30)


class Page(HTMLParser):
    """Tags, attributes and texts of a page, and whether every tag is closed in order."""

    VOID = ("meta", "rect", "circle", "path")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def words(self):
        return "".join(self.texts)


# -- pages -------------------------------------------------------------------------------------------


def test_every_text_of_a_page_is_escaped():
    page = Page(html(EVIL, [Heading(1, EVIL, '"><b'), Paragraph(EVIL), Table([EVIL], [[EVIL], [Link(EVIL, '"x')]])]))
    assert "script" not in page.tags
    assert page.words.count(EVIL) == 6


@given(texts)
def test_any_text_comes_out_of_html_as_it_went_in(text):
    page = Page(html("t", [Paragraph(text), Table(["h"], [[text]])]))
    assert page.texts.count(text) == (2 if text else 0) or text in ("t", "h", "\n")


def test_texts_take_their_own_direction_and_numbers_stand_right():
    page = html("t", [Paragraph(ARABIC), Table(["h"], [[ARABIC], [".705"], ["+.031"], ["12 %"]])])
    assert f'<p dir="auto">{ARABIC}</p>' in page
    assert f'<td dir="auto">{ARABIC}</td>' in page
    assert page.count('<td class="number">') == 3


def test_a_page_follows_light_and_dark():
    assert "prefers-color-scheme:dark" in html("t", [])


def test_markdown_keeps_tables_whole_and_means_what_it_says():
    page = markdown([Table(["a|b"], [["x\ny | z"], ["*no* `code` <b> [l](m)"], [Link("see", "there")]])])
    lines = page.splitlines()
    assert lines[0] == r"| a\|b |"
    assert lines[2] == r"| x y \| z |"
    assert lines[3] == r"| \*no\* \`code\` \<b\> \[l\](m) |"
    assert lines[4] == "| [see](report.html#there) |"


def test_markdown_isolates_right_to_left_texts():
    assert markdown([Paragraph(ARABIC)]) == f"\u2068{ARABIC}\u2069\n"
    assert markdown([Figure("curve", "<svg/>")]) == "![curve](plots/curve.svg)\n"


# -- plots -------------------------------------------------------------------------------------------


def svg(text):
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert root.find(f"{SVG}title").text
    assert root.find(f"{SVG}desc").text
    return root


def test_a_heat_map_has_a_rectangle_a_value_and_a_dash_for_none():
    root = svg(heat_map(EVIL, ["ar", "de"], ["en", "zh"], [[0.1, None], [float("nan"), 0.9]]))
    assert len(root.findall(f"{SVG}rect")) == 2
    shown = [each.text for each in root.iter(f"{SVG}text")]
    assert {"ar", "de", "en", "zh", ".100", ".900", EVIL} <= set(shown)
    assert shown.count("–") == 2


def test_the_highest_value_is_the_darkest_and_its_text_is_light():
    root = svg(heat_map("t", ["a"], ["x", "y"], [[0.2, 0.8]]))
    low, high = (rect.get("fill") for rect in root.findall(f"{SVG}rect"))
    assert (low, high) == ("#e8f1fa", "#004980")
    inks = {each.text: each.get("style") for each in root.iter(f"{SVG}text")}
    assert (inks[".200"], inks[".800"]) == ("fill:#111", "fill:#fff")


def test_curves_rise_to_the_top_and_go_right():
    root = svg(curves("t", {"mass": [(10, 0.2), (100, 0.4)], "top_k": [(10, 0.1)]}, axes=("terms", "nDCG@10")))
    first, last = root.findall(f"{SVG}circle")[:2]  # the third is in the legend
    assert float(first.get("cx")) < float(last.get("cx"))
    assert float(first.get("cy")) > float(last.get("cy"))  # y grows downwards
    assert len(root.findall(f"{SVG}rect")) == 2  # the one point of top_k, and its place in the legend


def test_differences_count_wins_and_losses():
    root = svg(differences("t", [0.5, -0.25, 0.0, 1.0], names=("a", "b"), measure="nDCG@10"))
    assert "a is better on 2, worse on 1, equal on 1 queries" in root.find(f"{SVG}desc").text
    heights = [float(rect.get("height")) for rect in root.findall(f"{SVG}rect")]
    assert heights == [110.0, 55.0, 0.0, 27.5]  # sorted, the greatest fills the half


def test_many_queries_are_drawn_as_at_most_400_bars():
    root = svg(differences("t", [i / 5000 for i in range(5000)], names=("a", "b"), measure="m"))
    assert len(root.findall(f"{SVG}rect")) == 400


def test_histograms_scale_each_group_to_itself():
    root = svg(histograms("t", {"few": [0.0, 1.0], "many": [0.0] * 50 + [1.0] * 50}, axis="score", bins=2))
    few, many = (each.get("d") for each in root.findall(f"{SVG}path")[1:3])
    assert few == many


@pytest.mark.parametrize(
    "drawn",
    [
        heat_map("t", [], [], []),
        heat_map("t", ["a"], ["b"], [[0.5]]),
        curves("t", {}, axes=("x", "y")),
        curves("t", {"one": [(5, 0.5)]}, axes=("x", "y"), level=("all", 0.5)),
        differences("t", [], names=("a", "b"), measure="m"),
        differences("t", [0.0], names=("a", "b"), measure="m"),
        histograms("t", {}, axis="x"),
        histograms("t", {"none": [], "one": [3.0]}, axis="x"),
    ],
)
def test_a_plot_of_nearly_nothing_is_a_plot(drawn):
    assert "nan" not in drawn.lower()
    svg(drawn)


@given(texts)
def test_any_name_can_stand_in_a_plot(text):
    root = svg(heat_map("t", [text], ["x"], [[1.0]]))
    assert text == "" or any(each.text == text for each in root.iter(f"{SVG}text"))


def test_png_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(MissingExtra, match=r'pip install "polylex\[plots\]"'):
        png(heat_map("t", ["a"], ["b"], [[0.5]]))


def test_png_is_a_png():
    pytest.importorskip("resvg_py")
    assert png(heat_map("t", ["a"], ["b"], [[0.5]])).startswith(b"\x89PNG")


# -- a whole report ----------------------------------------------------------------------------------


class Other:
    name = "other <b>"

    def search(self, collection, k):
        return Outcome({"ar-q": [("en-2", 3.0)], "en-q": [("en-1", 1.0)]})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    pytest.importorskip("ir_measures")
    documents = {"ar-1": f"{EVIL} sun sun moon", "en-1": "sun moon", "en-2": "sea"}
    queries = {"ar-q": f"{ARABIC} sun", "en-q": f"sea {EVIL}"}
    tiny = collection(documents, queries, {"ar-q": {"ar-1": 1}, "en-q": {"en-2": 1}}, name="tiny/<i>")
    model = Sparse(WordEncoder("sun moon sea"))
    systems = [model, model.pruned(Pruning(top_k=1)), model.pruned(Pruning(mass=0.9)), Other()]
    folder = tmp_path_factory.mktemp("report")
    write_report(folder, assess(systems, [tiny], ["nDCG@10", "R@5"], draws=50), systems)
    return folder


def test_a_report_needs_nothing_but_itself(written):
    page = Page((written / "report.html").read_text("utf-8"))
    for name, value in page.attributes:
        if name in ("href", "src", "xlink:href", "action", "data"):
            assert value.startswith("#"), value
    assert {"script", "link", "img", "iframe", "object"}.isdisjoint(page.tags)
    assert not re.search(r"@import|url\(", (written / "report.html").read_text("utf-8"))


def test_every_link_of_a_report_has_its_place(written):
    page = Page((written / "report.html").read_text("utf-8"))
    places = [value for name, value in page.attributes if name == "id"]
    assert len(places) == len(set(places))
    links = {value[1:] for name, value in page.attributes if name == "href"}
    assert links
    assert links <= set(places)


def test_a_report_explains_a_query_that_was_won(written):
    page = Page((written / "report.html").read_text("utf-8"))
    assert f"ar-q: {ARABIC} sun" in page.texts
    assert "ar-1 (rank 1, relevant, score 2.00)" in page.texts
    assert "2.00" in page.words
    assert EVIL in page.words


def test_a_report_has_its_plots_as_files_too(written):
    names = {path.stem for path in (written / "plots").glob("*.svg")}
    assert {"tiny--i--pruning", "tiny--i--scores", "tiny--i--languages-words"} <= names
    for path in (written / "plots").glob("*.svg"):
        svg(path.read_text("utf-8"))
    page = (written / "report.md").read_text("utf-8")
    for name in re.findall(r"\(plots/(.+?\.svg)\)", page):
        assert (written / "plots" / name).is_file()


def test_both_forms_of_a_report_have_the_same_figures(written):
    numbers = re.compile(r"\.\d{3}\b")
    markdown_numbers = numbers.findall((written / "report.md").read_text("utf-8"))
    page = re.sub(r"<(svg|style).*?</\1>", "", (written / "report.html").read_text("utf-8"), flags=re.DOTALL)
    assert markdown_numbers == numbers.findall(" ".join(Page(page).texts))
