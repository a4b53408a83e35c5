"""Sphinx: the pages of this folder (MyST) and the API from the docstrings (numpydoc).

`sphinx-build -W docs docs/_build/html` builds them; no network is needed to build or to read.
Notebooks are stored without outputs and run anew by every build, which fails where a cell fails.
Formulas stand in code blocks, as in the code, so that no page loads MathJax.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import GenericAlias
from typing import Any

from jinja2.sandbox import SandboxedEnvironment
from numpydoc import docscrape_sphinx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from finecast.compare.runs.best_known import read_best_known  # noqa: E402
from finecast.compare.runs.reference import Standing, all_suites, standings  # noqa: E402
from finecast.compare.runs.suite import draw  # noqa: E402
from finecast.problem.shipped import find  # noqa: E402
from finecast.problem.version import FINECAST_VERSION  # noqa: E402
from finecast.solvers.registry import BUILT_IN  # noqa: E402

project = "finecast"
author = "The finecast developers"
project_copyright = "the finecast developers, MIT licence"
version = release = FINECAST_VERSION

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
exclude_patterns = ["_build", "_generated", "_templates"]
templates_path = ["_templates"]
nitpicky = False
default_role = "literal"  # in docstrings `name` is code
highlight_language = "none"  # what is not said to be code is a formula

myst_heading_anchors = 3

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 300  # seconds of a cell
nb_execution_show_tb = True  # a cell that fails is a warning, an error under -W
nb_merge_streams = True

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "no-value": True}
autodoc_type_aliases = {
    name: name for name in ("BoolArray", "ComplexArray", "FloatArray", "IntArray", "Table")
}
python_use_unqualified_type_names = True
python_display_short_literal_types = True
maximum_signature_line_length = 88
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "furo"
html_title = f"finecast {FINECAST_VERSION}"
html_static_path = ["_static"]
html_css_files = ["finecast.css"]
html_copy_source = False
html_show_sphinx = False


def as_rest(lines: list[str]) -> list[str]:
    """Return the lines of one of our docstrings, which are plain text, as reStructuredText.

    An indented paragraph after a blank line is a formula or code: a literal block. Elsewhere only
    `code` and the bullets of lists are markup, so `*`, `|` and a trailing `_` are escaped.
    """
    out: list[str] = []
    before, literal = 0, None
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            out.append(line)
            continue
        if literal is not None and indent >= literal:
            out.append(line)
            continue
        literal = None
        marked = any(text.rstrip().endswith("::") for text in out[-2:])
        if out and not out[-1].strip() and indent > before:
            literal = indent
            if not marked:
                out += [" " * before + "::", ""]
            out.append(line)
            continue
        before = indent
        bullet = line[: indent + 2] if line[indent:].startswith("* ") else ""
        parts = re.split(r"(`[^`]*`)", line[len(bullet) :])
        out.append(
            bullet
            + "".join(
                part if part.startswith("`") else re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part)
                for part in parts
            )
        )
    return out


def docstring_to_rest(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Replace a docstring's lines in place, before numpydoc reads them."""
    lines[:] = as_rest(lines)


def skip_aliases(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out type aliases such as `tuple[float, ...]`, which autodoc takes for classes."""
    return True if isinstance(obj, GenericAlias) else None


def write_method_table() -> None:
    """Write the table of methods from the registry, so that it cannot rot."""
    rows = [
        "| method | setting | what it does | starts from a solution | source |",
        "|---" * 5 + "|",
    ]
    for method in BUILT_IN:
        starts = "yes" if method.warm_starts else ""
        cells = (f"`{method.name}`", method.setting, method.summary, starts, method.reference)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    folder = HERE / "_generated"
    folder.mkdir(exist_ok=True)
    (folder / "methods.md").write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_suite_tables() -> None:
    """Write a table of every shipped suite from its instances and the best known values."""
    file = find("data/best_known.json")
    known = read_best_known(file)
    for suite in all_suites():
        found = standings(suite, known)
        rows = [
            "| instance | N | K | J | T | best delay, s | best bound, s | gap, % | state | by |"
        ]
        rows.append("|---" * 10 + "|")
        for instance_class in suite.classes:
            seed, path = suite.draws(instance_class)[0]
            drawn = draw(suite, instance_class, seed, path).instance
            size = (drawn.nodes, drawn.users, drawn.blocks, drawn.slots)
            for one in found:
                if one.instance_class == instance_class.name:
                    rows.append(suite_row(one, size))
        (HERE / "_generated" / f"suite-{suite.name}.md").write_text(
            "\n".join(rows) + "\n", encoding="utf-8"
        )


def suite_row(one: Standing, size: tuple[int, ...]) -> str:
    """Return the row of an instance."""
    by = one.delay_from["label"] if one.delay_from else ""
    when = one.delay_from["started_at"][:10] if one.delay_from else ""
    figures = ["" if value is None else f"{value:.6g}" for value in (one.delay, one.lower_bound)]
    gap = "" if one.gap is None else f"{100 * one.gap:.4f}"
    cells = [f"`{one.name}`", *map(str, size), *figures, gap, one.state, f"{by} {when}".strip()]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def collapse_navigation(
    app: Any, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Open no branch of the sidebar but that of the page.

    With the 350 pages of the API in each of them, sidebars took two fifths of the build.
    """
    if "toctree" in context:
        whole = context["toctree"]
        context["toctree"] = lambda **options: whole(**{**options, "collapse": True})


def read_template_once() -> None:
    """Let numpydoc compile its template once, not for every docstring: an eighth of the build."""
    kept: list[Any] = []

    def environment(**options: Any) -> Any:
        if not kept:
            kept.append(SandboxedEnvironment(**options))
        return kept[0]

    docscrape_sphinx.SandboxedEnvironment = environment


def setup(app: Any) -> None:
    """Connect the above."""
    read_template_once()
    # Before the theme asks for the sidebar.
    app.connect("html-page-context", collapse_navigation, priority=400)
    write_method_table()
    write_suite_tables()
    app.connect("autodoc-skip-member", skip_aliases)
    app.connect("autodoc-process-docstring", docstring_to_rest, priority=100)
