"""The page of the report in a real browser, and its sentences."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import Chromium
from synthetic_records import synthetic_records

from finecast.compare.report.comparison import Comparison, compare_runs
from finecast.compare.report.curves import (
    delay_ratios,
    profile_data,
    profiles,
    times_to_target,
)
from finecast.compare.report.page import Contents, contents, html_report, text_report
from finecast.compare.runs.records import Status

EVIL = "</script><script>window.broken=1</script><img src='http://example.org/x' onerror=broken=1>"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """A hundred and twenty runs of ten methods, one with a name and an error to beware of."""
    records = synthetic_records(12)
    renamed = {"lru": f'lru "{EVIL}'}
    records = [replace(r, label=renamed.get(r.label, r.label)) for r in records]
    records[0] = replace(records[0], status=Status.FAILED, delay=None, error=EVIL, trace=())
    return compare_runs(records)


@pytest.fixture(scope="module")
def what(comparison: Comparison) -> Contents:
    """Its tables and sentences."""
    return contents(comparison)


@pytest.fixture(scope="module")
def page(what: Contents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page in a file."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html_report(what, commands=[f"finecast report {EVIL}"]))
    return path


@pytest.fixture
def opened(browser: Chromium, page: Path) -> Chromium:
    """The page, freshly loaded, with nothing said or asked for yet."""
    browser.resize(1200, 900)
    browser.messages.clear()
    browser.requests.clear()
    browser.open(page)
    return browser


COLUMN = "Array.from(document.querySelectorAll('#table-methods tbody tr'), r => r.cells[{}].{})"


def test_the_page_says_nothing_and_fetches_nothing(opened: Chromium, page: Path):
    """No message, no request but for itself, nothing of a record's text ran."""
    assert opened.messages == []
    assert opened.requests == [page.as_uri()]
    assert opened.run("window.broken") is None
    assert opened.run("document.images.length") == 0
    assert opened.run("document.querySelectorAll('script').length") == 2


def test_nothing_can_be_fetched_from_the_page(opened: Chromium):
    """Even a script that got in could not: the policy refuses it, and inline handlers too."""
    opened.run("document.body.insertAdjacentHTML('beforeend', '<img src=http://localhost:9/a>')")
    sent = "fetch('http://localhost:9/b').then(() => 'sent', () => 'refused')"
    assert opened.run(sent) == "refused"
    opened.run("document.body.insertAdjacentHTML('beforeend', '<p onclick=\"broken=1\">')")
    opened.run("document.body.lastChild.click()")
    assert len(opened.messages) >= 2
    assert all("Content Security Policy" in message for message in opened.messages)
    assert opened.run("window.broken") is None


def test_sorting_by_click(opened: Chromium):
    """Up, then down, by number; what has no value stays last, and the state is told."""
    head = "document.querySelectorAll('#table-methods thead th')[6]"
    for direction, sign in (("ascending", 1), ("descending", -1)):
        opened.run(f"{head}.querySelector('button').click()")
        assert opened.run(f"{head}.getAttribute('aria-sort')") == direction
        keys = opened.run(COLUMN.format(6, "dataset.v"))
        numbers = [float(k) for k in keys if k]
        assert len(numbers) > 3
        assert numbers == sorted(numbers, key=lambda v: sign * v)
        assert keys.index("") == len(numbers)
        assert direction in opened.run("document.getElementById('status').textContent")
    others = opened.run(
        "Array.from(document.querySelectorAll('#table-methods th[aria-sort=none]')).length"
    )
    columns = opened.run("document.querySelectorAll('#table-methods thead th').length")
    assert others == columns - 1
    assert opened.messages == []


def test_sorting_by_keyboard(opened: Chromium):
    """A column's head takes the focus, and Enter and the space bar sort by it."""
    opened.run("document.querySelector('#table-methods thead button').focus()")
    opened.press("Enter", 13, "\r")
    names = opened.run(COLUMN.format(0, "textContent"))
    assert names == sorted(names, key=str.lower)
    opened.press(" ", 32, " ")
    assert opened.run(COLUMN.format(0, "textContent")) == names[::-1]


def test_profiles_are_computed_anew_in_the_page(opened: Chromium, comparison: Comparison):
    """With a method hidden, a class chosen and another tolerance, as Python computes them."""
    data = profile_data(comparison)
    assert len(data.labels) == 5

    def in_page(name: str) -> list[list[float]]:
        return opened.run(
            f"Array.from(document.querySelectorAll('#values-{name} tbody tr:not([hidden])'), r => "
            "Array.from(r.querySelectorAll('td'), c => [Number(c.dataset.x), "
            "Number(c.textContent.replace('%', ''))]))"
        )

    def check(shown_methods: list[int], of_class: int | None, tolerance: float) -> None:
        ratios = delay_ratios(data, shown_methods, of_class)
        times = times_to_target(data, shown_methods, tolerance, of_class)
        for name, values in (("quality", ratios), ("data", times)):
            rows = in_page(name)
            assert len(rows) == len(shown_methods)
            for row, steps in zip(rows, profiles(values), strict=True):
                for x, percent in row:
                    assert percent == pytest.approx(100 * float(steps(x)), abs=0.051)

    drawn = opened.run("document.querySelector('#chart-quality path.line').getAttribute('d')")
    check([0, 1, 2, 3, 4], None, 0.01)
    opened.run("document.querySelectorAll('#methods-shown input')[1].click()")
    assert comparison.labels[1] == "exact"
    check([0, 2, 3, 4], None, 0.01)
    assert drawn != opened.run(
        "document.querySelector('#chart-quality path.line').getAttribute('d')"
    )
    for control, index in (("profile-class", 2), ("profile-tolerance", 0)):
        opened.run(
            f"(() => {{ const s = document.getElementById('{control}'); s.selectedIndex = {index};"
            " s.dispatchEvent(new Event('change')); })()"
        )
    check([0, 2, 3, 4], 1, 0.1)
    hidden = opened.run("document.querySelectorAll('#table-methods tr[hidden]').length")
    assert hidden == 1
    assert opened.messages == []


def test_profiles_of_python_and_page_are_drawn_alike(opened: Chromium):
    """Hiding and showing again brings back, to a tenth of a pixel, what Python drew."""
    paths = "Array.from(document.querySelectorAll('#{} path.line'), p => p.getAttribute('d'))"
    for name in ("chart-quality", "chart-speed", "chart-data"):
        before = opened.run(paths.format(name))
        opened.run("document.querySelectorAll('#methods-shown input')[0].click()")
        opened.run("document.querySelectorAll('#methods-shown input')[0].click()")
        after = opened.run(paths.format(name))
        for one, other in zip(before, after, strict=True):
            assert re.sub(r"[\d.]+", "", one) == re.sub(r"[\d.]+", "", other)
            numbers = [[float(v) for v in re.findall(r"[\d.]+", path)] for path in (one, other)]
            assert numbers[0] == pytest.approx(numbers[1], abs=0.11)


def test_runs_are_found_and_paged(opened: Chromium, comparison: Comparison):
    """Fifty rows at a time, filtered by words, sorted over all pages."""
    rows = "document.querySelectorAll('#table-runs tbody tr').length"
    assert opened.run(rows) == 50
    opened.run("document.getElementById('runs-next').click()")
    opened.run("document.getElementById('runs-next').click()")
    assert opened.run(rows) == 20
    opened.run(
        "(() => { const f = document.getElementById('runs-filter'); f.value = 'greedy mid';"
        " f.dispatchEvent(new Event('input')); })()"
    )
    expected = [r for r in comparison.of("greedy") if r.instance_class == "mid"]
    assert opened.run(rows) == len(expected)
    opened.run("document.querySelectorAll('#table-runs thead button')[5].click()")
    delays = opened.run(
        "Array.from(document.querySelectorAll('#table-runs tbody tr'), r => r.cells[5].dataset.v)"
    )
    assert [float(d) for d in delays] == pytest.approx(
        sorted(r.delay for r in expected if r.delay), rel=1e-5
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_only_tables_scroll(opened: Chromium, scheme: str):
    """At 360 pixels the page is no wider than the screen; colours follow the system."""
    opened.send(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    opened.resize(360, 740, mobile=True)
    assert opened.run("document.documentElement.scrollWidth") <= 360
    assert opened.run(
        "Array.from(document.querySelectorAll('.scroll')).some(b => b.scrollWidth > b.clientWidth)"
    )
    paper = opened.run("getComputedStyle(document.body).backgroundColor")
    ink = opened.run("getComputedStyle(document.querySelector('#chart-quality text')).fill")
    light, dark = "rgb(255, 255, 255)", "rgb(20, 24, 29)"
    assert paper == (light if scheme == "light" else dark)
    assert _luminance(ink) < 0.2 if scheme == "light" else _luminance(ink) > 0.7


def test_what_a_screen_reader_needs(opened: Chromium):
    """Every chart has a title and a description, every table a caption, every control a name."""
    tree = opened.send("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "checkbox", "combobox", "searchbox", "image", "table", "region"}
    found = [n for n in tree if not n["ignored"] and n["role"]["value"] in controls]
    assert {n["role"]["value"] for n in found} == controls
    assert [n["role"]["value"] for n in found if not n.get("name", {}).get("value")] == []
    charts = "Array.from(document.querySelectorAll('svg.chart'))"
    assert opened.run(f"{charts}.length") >= 6
    assert opened.run(f"{charts}.every(c => c.querySelector('title') && c.querySelector('desc'))")
    assert opened.run("Array.from(document.querySelectorAll('table')).every(t => t.caption)")
    assert opened.run("document.documentElement.lang") == "en"


def _luminance(colour: str) -> float:
    red, green, blue = (int(v) / 255 for v in re.findall(r"\d+", colour)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_answer_in_sentences(what: Contents):
    """Which method, how far from optimal, how fast, what failed, what the claims come to."""
    text = " ".join(what.answer)
    assert re.match(r"Closest to optimal is \S+: its delay is at most [\d.]+% \(", text)
    assert re.search(r"Fastest is lru .*: 0\.\d+ s a run", text)
    assert "of 120 runs failed" in text
    assert "Fine-grained against coarse-grained caching:" in text


def test_the_same_records_give_the_same_page(what: Contents, comparison: Comparison):
    """Intervals are drawn from a fixed seed."""
    assert html_report(contents(comparison)) == html_report(what)


def test_text_formats_of_all_tables(what: Contents):
    """Each table is there; a single one is had by its name, and an unknown one refused."""
    assert text_report(what, "markdown").count("\n## ") == 4
    assert text_report(what, "latex").count(r"\begin{table}") == 5
    rows = list(csv.DictReader(io.StringIO(text_report(what, "csv", "runs"))))
    assert len(rows) == 120
    assert rows[1]["command"].startswith("finecast solve out/instances/")
    with pytest.raises(ValueError, match="table: 'x' is not there"):
        text_report(what, "csv", "x")


def test_labels_of_shipped_methods_fit_their_charts(browser: Chromium, tmp_path: Path):
    """No text of a chart lies outside of it, and no caption outside of its table's box."""
    names = {"greedy": "trimcaching-gen", "popularity": "trimcaching-spec", "lru": "own-savings"}
    records = [replace(r, label=names.get(r.label, r.label)) for r in synthetic_records(12)]
    path = tmp_path / "report.html"
    path.write_text(html_report(contents(compare_runs(records))))
    for width in (1400, 390):
        browser.resize(width, 900)
        browser.open(path)
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        outside = browser.run(
            """[...document.querySelectorAll('svg.chart text')].filter(t => {
                const box = t.ownerSVGElement.getBoundingClientRect();
                const r = t.getBoundingClientRect();
                return r.width && (r.left < box.left - 1 || r.right > box.right + 1);
            }).map(t => t.textContent)"""
        )
        assert outside == []
        wide = browser.run(
            """[...document.querySelectorAll('caption')].filter(c =>
                c.getBoundingClientRect().right
                > c.closest('.scroll').getBoundingClientRect().right + 1).length"""
        )
        assert wide == 0
