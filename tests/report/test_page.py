"""The HTML page is self-contained, valid and accessible; JSON, CSV and figures are complete."""

import csv
import json
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from bayes_share.cli import main
from bayes_share.reports.document import Cell, Column, Figure, Panel, Report, Section, Table
from bayes_share.reports.drawing import Line, line_drawing, line_style, thinned
from bayes_share.reports.export import write_csv, write_figures, write_json
from bayes_share.reports.html_page import html_page
from bayes_share.reports.svg import inline_svg


class Elements(HTMLParser):
    """All elements of a page with their attributes, and unclosed elements."""

    VOID = frozenset({"meta", "link", "img", "br", "path", "use", "rect", "line", "stop", "image"})

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.astray: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.astray.append(tag)


@pytest.fixture(scope="module")
def made(report: Report) -> str:
    return html_page(report)


@pytest.fixture(scope="module")
def elements(made: str) -> Elements:
    parser = Elements()
    parser.feed(made)
    return parser


def test_the_page_loads_nothing(made: str, elements: Elements) -> None:
    sources = [
        value for _, attributes in elements.found for name, value in attributes.items() if name in ("src", "href")
    ]
    assert sources
    assert all(str(source).startswith(("data:", "#")) for source in sources)
    assert set(re.findall(r"https?://[^\s\"'<)]+", made)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert "@import" not in made


def test_elements_are_closed_and_ids_are_unique(elements: Elements) -> None:
    assert not elements.astray
    assert not elements.open
    ids = Counter(attributes["id"] for _, attributes in elements.found if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    for _, attributes in elements.found:
        if (target := str(attributes.get("href", ""))).startswith("#"):
            assert target[1:] in ids


def test_images_and_drawings_have_text_alternatives(elements: Elements) -> None:
    pictures = [attributes for tag, attributes in elements.found if tag == "img"]
    drawings = [attributes for tag, attributes in elements.found if tag == "svg"]
    assert pictures
    assert drawings
    assert all(attributes.get("alt") for attributes in pictures)
    assert all(attributes.get("aria-label") or attributes.get("aria-hidden") for attributes in drawings)


def test_rows_and_columns_of_tables_have_headers(elements: Elements, report: Report) -> None:
    scopes = Counter(attributes.get("scope") for tag, attributes in elements.found if tag == "th")
    tables = report.blocks(Table)
    assert scopes == {"col": sum(len(t.columns) for t in tables), "row": sum(len(t.rows) for t in tables)}


def test_predictions_of_images_have_text_alternatives(elements: Elements) -> None:
    opinions = [found for _, found in elements.found if (found.get("class") or "").startswith("opinion")]
    assert {found.get("class") for found in opinions} == {"opinion", "opinion whole"}
    for found in opinions:
        if found["class"] == "opinion":
            assert found["role"] == "img"
            assert re.match(r"(member|draw) \d+: .* \d+%", found["aria-label"] or "")


def test_markup_in_names_is_escaped(made: str) -> None:
    assert "<title>Three &lt;b&gt;runs&lt;/b&gt; &amp; more</title>" in made
    assert "<b>" not in made


def test_the_same_runs_give_the_same_page(made: str, report: Report) -> None:
    assert html_page(report) == made


def test_drawings_use_theme_colours_and_keep_their_text() -> None:
    draw = line_drawing(
        "is 0.123456 & $x$", "x", "y", [Line("a", [0.0, 1.0], [0.0, 1.0], 0), Line("b", [0.0, 1.0], [1.0, 0.0], 5)]
    )
    text = inline_svg(draw(False), "one", 'says "it" & more')
    assert "var(--line-0)" in text
    assert not re.search("#0072b2|#000000", text, re.IGNORECASE)
    assert "is 0.123456 &amp; $x$" in text
    assert 'aria-label="says &quot;it&quot; &amp; more"' in text
    assert all(name.startswith("one-") for name in re.findall(r'\bid="([^"]+)"', text))
    assert not re.search(r' d="[^"]*\.\d{3}', text)


def test_line_styles_are_distinct_and_long_lines_are_thinned() -> None:
    styles = [str(sorted(line_style(place).items(), key=str)) for place in range(36)]
    assert len(set(styles)) == 36
    assert thinned(3) == [0, 1, 2]
    chosen = thinned(10_000, 100)
    assert len(chosen) == 100
    assert (chosen[0], chosen[-1]) == (0, 9_999)


def test_json_and_csv_contain_all_numbers_of_the_tables(report: Report, tmp_path: Path) -> None:
    write_json(report, tmp_path / "report.json")
    tables = json.loads((tmp_path / "report.json").read_text())["tables"]
    write_csv(report, tmp_path / "report.csv")
    with (tmp_path / "report.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for table in report.blocks(Table):
        numbers = [cell for row in table.rows for cell in row.values() if isinstance(cell.value, int | float)]
        assert len(tables[table.name]) == len(table.rows)
        written = [float(line["value"]) for line in lines if line["table"] == table.name]
        assert written == [float(cell.value) for cell in numbers]
    overview = tables["overview"][1]
    assert overview["run"] == "ensemble"
    assert set(overview["nll"]) == {"value", "error"}


def test_infinite_numbers_are_null_in_json(tmp_path: Path) -> None:
    rows = [{"run": Cell("one"), "rhat": Cell(math.inf), "ess": Cell(2.0, math.nan)}]
    tables = [Table("mixing", "Mixing", (Column("run", "run"), Column("rhat", "r-hat"), Column("ess", "ESS")), rows)]
    write_json(Report("", "", [Section("all", "All", [], tables)]), tmp_path / "report.json")

    def refuse(number: str) -> None:
        raise AssertionError(f"{number} is not JSON")

    content = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert content["tables"]["mixing"] == [{"run": "one", "rhat": None, "ess": {"value": 2.0, "error": None}}]


def test_figures_are_written_as_png_and_svg(report: Report, tmp_path: Path) -> None:
    paths = write_figures(report, tmp_path)
    panels = [panel for figure in report.blocks(Figure) for panel in figure.panels]
    assert len(paths) == 2 * len(panels) == len(list(tmp_path.iterdir()))
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert min(image.size) > 300
        else:
            assert path.read_text(encoding="utf-8").startswith("<?xml")


def test_similar_run_names_give_distinct_files_and_ids(tmp_path: Path) -> None:
    def draw(name: str) -> Panel:
        return Panel(f"curve-{name}", name, line_drawing(name, "x", "y", [Line(name, [0.0, 1.0], [0.0, 1.0], 0)]))

    panels = [draw(name) for name in ("SGD", "sgd", "sgd ", "sgd-2")]
    report = Report("", "", [Section("all", "All", [], [Figure("Curves", panels, "")])])
    assert len(write_figures(report, tmp_path)) == len(list(tmp_path.iterdir())) == 8
    ids = Counter(re.findall(r'\bid="([^"]+)"', html_page(report)))
    assert ids
    assert max(ids.values()) == 1


def test_the_command_writes_page_and_json(
    paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "page.html"
    arguments = ["report", str(paths[-1]), "-o", str(out), "--json", str(tmp_path / "a.json"), "--title", "Mine"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"report: {out}\n"
    assert "<h1>Mine</h1>" in out.read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text())["title"] == "Mine"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere"], "nowhere is not a run: there is no such folder"),
        (["--pictures", "-1", "nowhere"], "--pictures must be at least 0, and is -1"),
        ([], "no run given: list run folders"),
    ],
)
def test_invalid_input_is_rejected(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_column_tooltips_say_what_is_better(made: str) -> None:
    assert 'title="mean negative log-likelihood of the right classes; lower is better">' in made
    assert 'title="share of examples whose most probable class is right; higher is better">' in made
