"""Page, JSON, CSV and figures with hostile names are valid, and contain the names and all numbers."""

import csv
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hostile import NAMES

from bayes_share.analysis.comparison import compare
from bayes_share.cli import main
from bayes_share.io.terminal import printable
from bayes_share.reports.document import (
    Cell,
    Column,
    Figure,
    Gallery,
    Listing,
    Opinion,
    Panel,
    Picture,
    Report,
    Section,
    Share,
    Table,
)
from bayes_share.reports.drawing import Line, line_drawing
from bayes_share.reports.export import file_names, write_csv, write_figures, write_json
from bayes_share.reports.html_page import html_page
from bayes_share.reports.out_of_distribution import _draw_histogram
from bayes_share.reports.svg import inline_svg

Captured = pytest.CaptureFixture[bytes]
SHORT = [name for name in NAMES.values() if len(name) < 1000]
NUMBERS = [-3.2, -1, 0.0, 1e-30, 12345678, -1e300]


def panel(names: Sequence[str]) -> Panel:
    lines = [Line(name, [0.0, 1.0], [0.0, 1.0], number) for number, name in enumerate(names)]
    return Panel(names[0], names[0], line_drawing(names[0], "x", "y", lines))


def report_on(names: Sequence[str]) -> Report:
    """A report with each name in every place where a name can occur, and some numbers."""
    columns = [Column("run", "run"), Column("number", "number"), *(Column(f"accuracy/{name}", name) for name in names)]
    rows = [
        {"run": Cell(name), "number": Cell(NUMBERS[number % len(NUMBERS)], -0.5), f"accuracy/{name}": Cell(-3.2)}
        for number, name in enumerate(names)
    ]
    gallery = [
        Gallery(name, [Picture("data:,", name, [Opinion(name, [Share(name, 0.5, True)])] * 2)], name) for name in names
    ]
    figures = [Figure(name, [panel([name])], name, [name]) for name in names]
    tables = [Table(f"members-{name}", name, columns, rows, name) for name in names[:3]]
    listings = [Listing(name, f"a: 1\nb: {name}\n") for name in names]
    return Report(names[0], names[0], [Section("all", "All", names, [*tables, *figures, *gallery, *listings])])


class Page(HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        self.words += [value for _, value in attributes if value is not None]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(text: str) -> Page:
    parser = Page()
    parser.feed(text)
    parser.close()
    return parser


def test_a_page_contains_hostile_names_as_text_only() -> None:
    text = html_page(report_on(SHORT))
    text.encode()
    assert all(c == "\n" or c.isprintable() for c in text)
    found, plain = read(text), read(html_page(report_on(["plain"])))
    assert found.tags == plain.tags
    assert found.attributes == plain.attributes
    assert text.count("<script>") == 1
    words = "\n".join(found.words)
    assert [name for name in SHORT if printable(name) not in words] == []


def test_a_listing_keeps_its_lines() -> None:
    assert '<pre tabindex="0">a: 1\nb: x&#39;\\x1b\n</pre>' in html_page(report_on(["x'\x1b"]))


def test_long_names_are_shortened_on_the_page() -> None:
    assert len(html_page(report_on(["x" * 100_000])).encode()) < 600_000


def test_text_in_a_drawing_is_not_rewritten_as_svg_code() -> None:
    name = ' id="x" x="0.123456" url(#p0) #0072B2'
    text = inline_svg(panel([name]).draw(True), "one", "\x00 it")
    root = ElementTree.fromstring(text)
    assert sum((node.text or "").strip() == name.strip() for node in root.iter()) == 2  # title and legend
    assert root.attrib["aria-label"] == r"\x00 it"


def test_a_logarithmic_axis_has_plain_numbers() -> None:
    import torch

    drawing = _draw_histogram("run", [("test images", torch.rand(50)), ("_other", torch.rand(50))])(True)
    text = inline_svg(drawing, "one", "")
    assert "mathdefault" not in text
    assert {"0.1", "1", "10", "100", "_other"} <= {
        (node.text or "").strip() for node in ElementTree.fromstring(text).iter()
    }


def test_json_contains_names_unchanged_and_all_numbers(tmp_path: Path) -> None:
    names = list(NAMES.values())
    write_json(report_on(names), tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes().isascii()
    assert b"\x1b" not in (tmp_path / "a.json").read_bytes()
    rows = json.loads((tmp_path / "a.json").read_text())["tables"][f"members-{names[0]}"]
    assert [row["run"] for row in rows] == names
    assert [row["number"]["value"] for row in rows] == [NUMBERS[i % len(NUMBERS)] for i in range(len(names))]
    assert all(row[f"accuracy/{row['run']}"] == -3.2 for row in rows)


def test_csv_contains_names_as_text_and_all_numbers(tmp_path: Path) -> None:
    names = list(NAMES.values())
    write_csv(report_on(names), tmp_path / "a.csv")
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    assert all(c == "\n" or c.isprintable() for c in text)
    lines = list(csv.reader(text.splitlines(), strict=True))
    assert all(len(line) == 5 for line in lines)
    of_first = [line for line in lines if line[0] == lines[1][0] and line[2] == "number"]
    assert [float(line[3]) for line in of_first] == [NUMBERS[i % len(NUMBERS)] for i in range(len(names))]
    assert [line[3] for line in of_first[:2]] == ["-3.2", "-1"]
    assert {line[4] for line in of_first} == {"-0.5"}
    ends = [printable(name)[-9:].replace("'", "") for name in names]
    assert all(line[1].replace("'", "").endswith(end) for line, end in zip(of_first, ends, strict=True))


def cells_that_compute(line: Sequence[str]) -> Iterator[str]:
    """The cells that a spreadsheet would interpret as formulas, for any separator."""
    for cell in line:
        for part in cell.split(";"):
            if part.strip(" \"'\t\r\n")[:1] in tuple("=+-@＝＋－＠") and not part.startswith("'"):
                try:
                    float(part)
                except ValueError:
                    yield cell


def test_no_csv_cell_is_a_formula(tmp_path: Path) -> None:
    write_csv(report_on([*NAMES.values(), "-3.2", "+1"]), tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert [cell for line in lines for cell in cells_that_compute(line)] == []
    of = {line[1] for line in lines}
    assert {"'-3.2", "'+1", '\'=HYPERLINK("http://x","y")', "a;'=1+1"} <= of  # a name that looks like a number, too


def test_infinite_and_missing_numbers_in_csv(tmp_path: Path) -> None:
    rows = [{"run": Cell("a"), "x": Cell(value, error)} for value, error in ((-math.inf, math.nan), (-0.5, None))]
    tables = [Table("t", "", [Column("run", ""), Column("x", "")], rows)]
    write_csv(Report("", "", [Section("s", "", [], tables)]), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "table,of,measure,value,error\nt,a,x,-inf,nan\nt,a,x,-0.5,\n"


def test_figure_files_are_distinct_and_stay_in_their_folder(tmp_path: Path) -> None:
    names = list(NAMES.values())
    found = list(file_names(report_on([*names, "ﬁ", "fi", "FI", "straße", "STRASSE"])).values())
    assert len(found) == len(names) + 5 == len({name.casefold() for name in found})
    assert all(name and "/" not in name and not name.startswith(".") and len(name.encode()) < 200 for name in found)
    chosen = [NAMES[what] for what in ("path", "dots", "NUL", "long in bytes", "not UTF-8", "underscore")]
    paths = write_figures(report_on(chosen), tmp_path / "figures")
    assert sorted((tmp_path / "figures").iterdir()) == sorted(paths)
    assert len(paths) == 2 * len(chosen)


def test_a_legend_of_many_long_names_fits() -> None:
    drawing = panel([f"{number} {'x' * 300}" for number in range(40)]).draw(True)
    figure = ElementTree.fromstring(inline_svg(drawing, "one", ""))  # matplotlib warns where there is none
    height = float(figure.attrib["viewBox"].split()[3])
    assert height > 40 * 8


def test_runs_with_hostile_names_are_compared(paths: Sequence[Path], tmp_path: Path) -> None:
    names = [NAMES[what] for what in ("mathematics", "escape sequence", "line breaks", "not UTF-8", "empty", "long")]
    said = compare(dict.fromkeys(names, paths[0]), tmp_path / "a.png")
    assert said.replace("\n", "").isprintable()
    assert len(said.split("\n")) == 2 * (2 + len(names)) + 3  # two tables and what is between them
    assert max(map(len, said.split("\n"))) < 250


def test_a_run_folder_can_have_a_hostile_name(paths: Sequence[Path], tmp_path: Path, capfdbinary: Captured) -> None:
    name = "=1+1;$x_\x1b[2J\n# <script>\udce9\"'|`" + "x" * 150
    shutil.copytree(paths[-1], tmp_path / name)
    out = [tmp_path / name for name in ("a.html", "a.json", "a.csv")]
    asked = ["--json", str(out[1]), "--csv", str(out[2]), "--pictures", "1"]
    assert main(["report", str(tmp_path / name), "-o", str(out[0]), *asked, "--title", name]) == 0
    assert b"\x1b" not in b"".join(capfdbinary.readouterr())
    found = read(out[0].read_text(encoding="utf-8"))
    assert found.words.count(printable(name)) > 20
    assert not any(line.startswith("# <script>") for words in found.words for line in words.split("\n"))
    overview = json.loads(out[1].read_text())["tables"]["overview"][0]
    assert overview["run"] == name
    lines = list(csv.reader(out[2].read_text(encoding="utf-8").splitlines()[1:]))
    assert float(lines[0][3]) == overview["accuracy"]["value"]
    assert not [cell for line in lines for cell in cells_that_compute(line)]
