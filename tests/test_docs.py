"""What the documentation tells people to type works, and what it names is there."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from repository import DATA, ROOT

import finecast
from finecast.cli.main import COMMANDS
from finecast.testing import CHECKS

DOCS = ROOT / "docs"
FINECAST = "from finecast.cli.main import main; main()"
BUILT = {"_build", "_generated", "generated"}
"""Folders of docs/ that Sphinx writes."""

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(page for page in DOCS.rglob("*.md") if not BUILT & set(page.parts)),
    *sorted((ROOT / "examples").rglob("*.md")),
    *sorted(DATA.rglob("*.md")),
]
RELATIVE = 5e-3
"""Room for another processor's last digits, in figures of four digits."""

every_page = pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES]
)


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


def run(*arguments: str, cwd: Path) -> str:
    """Run Python in a folder and return what it printed."""
    outcome = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Return a folder with the scenario that the first page tells people to write."""
    folder = tmp_path_factory.mktemp("start")
    (scenario,) = blocks("start.md", "toml")
    (folder / "mine.toml").write_text(scenario)
    return folder


def test_first_page_in_python(mine):
    """The Python of the first page runs on the scenario of the first page."""
    (program,) = blocks("start.md", "python")
    *summary, figures, ratio_line = run("-c", program, cwd=mine).splitlines()
    delay, bound, gap, ratio = map(float, f"{figures} {ratio_line}".split())
    assert any(line.split()[:2] == ["lower", "bound"] for line in summary)
    assert delay * (1 + 1e-9) >= bound > 0
    assert gap == pytest.approx(delay / bound - 1)
    assert ratio >= 1 - gap  # the online method cannot beat the bound


def test_first_page_commands(mine):
    """The commands of the first page run on its scenario; the picture is there."""
    commands = [
        shlex.split(line)[1:]
        for block in blocks("start.md", "sh")
        for line in block.splitlines()
        if "mine.toml" in line
    ]
    assert [command[0] for command in commands] == ["solve", "show"]
    for command in commands:
        run("-c", FINECAST, *command, cwd=mine)
    assert (mine / "mine.png").stat().st_size > 1000


def test_every_check_is_explained():
    """The page on adding a method has a row for each check, and for no other."""
    rows = re.findall(r"^\| (`check_.*?) \|", (DOCS / "add-a-method.md").read_text(), re.M)
    named = re.findall(r"check_\w+", " ".join(rows))
    assert named == [check.__name__ for check in CHECKS]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MyST make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@every_page
def test_links_lead_somewhere(page):
    """Every relative link names a file or folder that is there, and a heading that it has."""
    for link in re.findall(r"\]\(([^()\s]+(?:\([^()]*\)[^()\s]*)?)\)", page.read_text()):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links {link}"


@every_page
def test_names_of_code_are_there(page):
    """Every `finecast.a.b` on a page is a module or a name in one, every `a/b.py` is a file.

    The entry point group `finecast.methods` has the name of a function by chance.
    """
    text = page.read_text()
    for name in sorted(set(re.findall(r"\bfinecast(?:\.[A-Za-z_]\w*)+", text))):
        value = import_module("finecast")
        place = ROOT / "finecast"
        for part in name.split(".")[1:]:
            place /= part
            if place.is_dir() or place.with_suffix(".py").exists():
                value = import_module(".".join(place.relative_to(ROOT).parts))
            else:
                assert hasattr(value, part), f"{page.name} names {name}"
                value = getattr(value, part)
    rooms = "problem|solvers|learners|compare|finecast|data|examples|tests|benchmarks|docs"
    pattern = rf"(?<![\w/.])(?:{rooms})(?:/[\w.-]+)*/[\w-]+\.\w+"
    for path in sorted(set(re.findall(pattern, text))):
        assert (ROOT / path).exists() or (page.parent / path).exists(), f"{page.name}: {path}"


@every_page
def test_commands_have_these_options(page):
    """Every `finecast ...` line in a page's blocks is taken by the parser of its command."""
    pattern = re.compile(r"^```(?:sh)?\n(.*?)^```|((?:^    .*\n)+)", re.M | re.S)
    lines = "\n".join("".join(block) for block in pattern.findall(page.read_text())).splitlines()
    for line in lines:
        for part in line.split("&&"):
            words = shlex.split(part, comments=True) if "finecast " in part else []
            if not words or Path(words[0]).name != "finecast":
                continue
            assert words[1] in COMMANDS, line
            command = import_module(f"finecast.cli.{words[1].replace('-', '_')}").command
            with click.Context(command) as context:
                command.make_parser(context).parse_args(words[2:])


@every_page
def test_calls_in_python_fit(page):
    """Every `finecast.name(...)` in a page's Python has arguments that the function takes."""
    for program in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
        if ", ..., " in program:  # the sketch of a signature
            continue
        for call in ast.walk(ast.parse(program)):
            if isinstance(call, ast.Call) and (name := _public_name(call.func)):
                keywords = {keyword.arg: None for keyword in call.keywords}
                inspect.signature(getattr(finecast, name)).bind(*call.args, **keywords)


def _public_name(function: ast.expr) -> str:
    """Return x of an expression `finecast.x`, "" of any other."""
    if isinstance(function, ast.Attribute) and ast.unparse(function.value) == "finecast":
        return function.attr
    return ""


def sample(text: str) -> dict[str, str]:
    """Return the rows of a table that `finecast solve` printed, by their labels."""
    return {
        label.strip(): value.strip() for label, value in re.findall(r"^│(.*?)│(.*?)│$", text, re.M)
    }


def numbers(text: str) -> list[float]:
    """Return the numbers in a text."""
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


def test_readme_shows_what_the_command_prints(tmp_path):
    """README's first command prints the table below it; only the clock may differ.

    The search may end in another plan of the same delay on another machine, so that gaps of a
    thousandth of a percent, the times of single users and the seconds are compared in form only.
    """
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"<!-- solve-command -->\n```sh\n(.*?)\n```", readme)
    shown = re.search(r"<!-- solve-output -->\n```\n(.*?)\n```", readme, re.S)
    arguments = shlex.split(command[1].split("&&")[-1])
    assert Path(arguments[0]).name == "finecast"
    printed = run("-c", FINECAST, *arguments[1:], cwd=ROOT)
    assert printed.splitlines()[0].strip() == shown[1].splitlines()[0]
    expected, actual = sample(shown[1]), sample(printed)
    assert list(actual) == list(expected)
    for label, value in expected.items():
        assert re.sub(r"[\d.]+", "#", actual[label]) == re.sub(r"[\d.]+", "#", value)
        if label not in ("gap", "of which", "user completion", "time"):
            assert numbers(actual[label]) == pytest.approx(numbers(value), rel=RELATIVE), label
    landing = sample((DOCS / "index.md").read_text())
    assert landing
    assert landing.items() <= expected.items()


def test_no_two_test_files_have_one_name() -> None:
    """Pytest collects the first of two files of one name, and a run of one folder hides that."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
