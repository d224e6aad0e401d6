"""The HTML report: complete, self-contained, escaped, and reproducible from its own last lines."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from numpy.testing import assert_allclose
from report_cases import HOSTILE, comparison, hostile

import hierlmm as hl
from hierlmm.compare import Agreement
from hierlmm.errors import FileError
from hierlmm.report.html import write

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; refuses tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(result: hl.Comparison, tmp_path, **options: str) -> tuple[Page, str]:
    text = write(result, tmp_path / "out.html", **options).read_text(encoding="utf-8")
    return Page(text), text


@pytest.mark.parametrize("name", ["milk", "sleepstudy", "dyestuff2", "politeness/slopes", "penicillin"])
def test_page_is_well_formed_and_links_lead_somewhere(name, tmp_path):
    """Tags closed in order, no id twice, every link of the contents to a heading that exists."""
    page, _ = page_of(comparison(name), tmp_path)

    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert page.open == []
    assert len(ids) == len(set(ids))
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)


@pytest.mark.parametrize("make", [lambda: comparison("milk"), hostile])
def test_page_loads_nothing_from_anywhere(make, tmp_path):
    """Images are data URIs, nothing else refers outside; the page's own policy forbids the rest."""
    page, text = page_of(make(), tmp_path)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]

    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    sources = [value for _, attributes in page.tags for key, value in attributes.items() if key in ("src", "href")]
    assert all(value.startswith(("#", "data:image/svg+xml;base64,")) for value in sources)
    assert "url(" not in style
    assert "@import" not in style
    assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in page.tags)


def test_images_are_svg_without_references(tmp_path):
    """Each picture parses as XML, has no script, and links only to parts of itself."""
    page, _ = page_of(hostile(), tmp_path)
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]

    assert len(images) >= 7
    for image in images:
        root = ElementTree.fromstring(base64.b64decode(image.partition(",")[2]))
        for element in root.iter():
            assert not element.tag.endswith(("}script", "}image", "}foreignObject"))
            links = [value for key, value in element.attrib.items() if key.endswith("href")]
            assert all(link.startswith("#") for link in links)


def test_names_are_text_and_never_markup(tmp_path):
    """HOSTILE 50: areas, levels and commands named as markup appear letter for letter."""
    page, _ = page_of(hostile(), tmp_path, command="hierlmm compare '<script>alert(2)</script>'")

    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    for name in (HOSTILE[0], HOSTILE[4], HOSTILE[5], HOSTILE[6]):
        assert name in page.text
    assert "<i>one</i> (reference)" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "<script>alert(2)</script>" in page.text
    assert set(HOSTILE) <= set(hostile().fit.areas["area"])


def test_page_says_what_was_left_out_of_the_data(tmp_path):
    """The row with a missing x, the column that x determines, the area without a direct estimate."""
    page, _ = page_of(hostile(), tmp_path)

    assert "1 row was left out because a value that the model needs is missing (row: columns): 40: x" in page.text
    assert "Columns left out because earlier ones determine them: twice" in page.text
    assert "1 area without a direct estimate or variance" in page.text
    assert "60 of 78 are shown" in page.text


def test_page_shows_the_numbers_of_both_analyses(tmp_path):
    """Milk: REML and posterior of A and of the intercept, to the digits their errors carry (reference/sae, milk)."""
    page, _ = page_of(comparison("milk"), tmp_path)

    for number in ("0.01855", "0.00752", "0.9682", "0.0694", "−0.2413", "0.0816", "5.165619", "−15.35494"):
        assert number in page.text
    for line in comparison("milk").posterior.priors.describe():
        assert line in page.text
    for sentence in comparison("milk").findings:
        assert sentence in page.text


@pytest.mark.parametrize("agreement", [Agreement.NOT_CONVERGED, Agreement.SAMPLER])
def test_no_conclusion_comes_before_anything_else(agreement, tmp_path):
    """The sentence stands before the model, in a box that is marked."""
    page, text = page_of(replace(comparison("milk"), agreement=agreement), tmp_path)

    assert 'class="verdict failed"' in text
    assert page.text.index(agreement.value) < page.text.index("How each analysis ended")


def test_a_fit_at_zero_says_what_its_errors_are_where_they_are_shown(tmp_path):
    """Eight schools: Â = 0, where no expansion of the mean squared error holds; milk: its formula, and its variance."""
    page, _ = page_of(comparison("eight-schools"), tmp_path)

    assert comparison("eight-schools").fit.A_hat == 0
    assert "Â is 0, where an expansion around Â does not hold" in page.text
    assert "at zero" in page.text
    assert "variance of Â behind g3: 2/Σ V⁻²" in page_of(comparison("milk"), tmp_path)[0].text


def test_last_lines_reproduce_the_analysis(tmp_path, monkeypatch):
    """The Python lines, run beside a data.csv, give the numbers again; the command stands above them."""
    page, text = page_of(comparison("milk"), tmp_path, command="hierlmm compare milk --seed 1")
    code = [pre for pre in re.findall(r"<pre>(.*?)</pre>", text, re.DOTALL) if "hl.compare" in pre]
    lines = code[-1].replace("&#39;", "'").replace("&#34;", '"').replace("&lt;", "<").replace("&gt;", ">")
    hl.load("milk").data.to_csv(tmp_path / "data.csv", index=False)
    monkeypatch.chdir(tmp_path)

    scope: dict[str, object] = {}
    exec(lines, scope)

    assert page.text.index("hierlmm compare milk --seed 1") > page.text.index("Run it again")
    assert_allclose(scope["posterior"].areas["estimate"], comparison("milk").posterior.areas["estimate"], rtol=1e-12)
    assert_allclose(scope["posterior"].sample.variables["A"][1], comparison("milk").posterior.sample.variables["A"][1])


def test_lines_of_a_mixed_model_state_every_prior(tmp_path, monkeypatch):
    """Sleepstudy with priors of every kind: read back from the lines, they are equal."""
    result = comparison(
        "sleepstudy", "reml", "sd(Subject:Days)=halft(3, 7.123456789)", "correlation=lkj(2)", "fixed=normal(0, 100)"
    )
    from hierlmm.report.reproduce import python_lines

    hl.load("sleepstudy").data.to_csv(tmp_path / "data.csv", index=False)
    monkeypatch.chdir(tmp_path)

    scope: dict[str, object] = {}
    exec(python_lines(result), scope)

    assert scope["posterior"].priors == result.posterior.priors
    assert scope["spec"] == result.spec
    assert (tmp_path / "report.html").exists()


def test_the_same_comparison_gives_the_same_bytes(tmp_path):
    """No dates and no random identifiers."""
    one = write(comparison("dyestuff"), tmp_path / "a.html", code="x").read_bytes()
    two = write(comparison("dyestuff"), tmp_path / "b.html", code="x").read_bytes()

    assert one == two


def test_a_missing_folder_is_refused_by_name(tmp_path):
    """Nothing is created, and the message says what to do."""
    with pytest.raises(FileError, match=r"folder that exists; found none at .*nowhere.*Create it"):
        write(comparison("dyestuff"), tmp_path / "nowhere" / "out.html")

    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_opened_is_refused(tmp_path):
    """A folder in place of the file."""
    with pytest.raises(FileError, match="written to a file that can be opened"):
        write(comparison("dyestuff"), tmp_path)
