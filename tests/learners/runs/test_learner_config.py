"""Options of a run: every mistake in one line that says what is allowed."""

from __future__ import annotations

import pytest

from finecast.learners.runs.config import run_config
from finecast.problem.files import FormatError
from finecast.problem.toml import read_toml

GOOD = {"learner": "maasn-da", "scenarios": ["x.toml"]}


def test_toml_becomes_dataclasses(tmp_path):
    """Tables of source and options reach their dataclasses; whole numbers serve as numbers."""
    path = tmp_path / "run.toml"
    path.write_text(
        'learner = "maasn-da"\nscenarios = ["x.toml"]\nsteps = 7\n'
        "[source]\ndraws = 9\n[options]\ntemperature = 1\n"
    )
    run = run_config(read_toml(path))
    assert (run.steps, run.source.draws, run.scenarios) == (7, 9, ("x.toml",))
    assert run.learner_options.temperature == 1.0


@pytest.mark.parametrize("learner", ["maasn-da", "qmix", "vdn", "dcg", "mappo", "ippo"])
def test_what_is_given_wins_over_a_preset(learner):
    """The published regime is set as a whole; a single option of it can be changed."""
    given = {**GOOD, "learner": learner, "preset": "published", "options": {"width": 7}}
    run = run_config({**given, "source": {"price_steps": 9}})
    options = run.learner_options
    assert (options.observations, options.in_turn, options.credit) == ("raw", False, "team")
    assert (options.width, run.source.price_steps, run.source.horizon) == (7, 9, 1)
    assert "preset" not in run.as_dict()


def test_scenarios_stand_beside_the_config(tmp_path):
    """A scenario that lies beside the configuration is found there, others are left alone."""
    (tmp_path / "x.toml").write_text("")
    run = run_config({**GOOD, "scenarios": ["x.toml", "data/y.toml"]}, tmp_path)
    assert run.scenarios == (str(tmp_path / "x.toml"), "data/y.toml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepz": 3}, "run: 'stepz' is unknown; did you mean 'steps'"),
        ({"steps": "3"}, "run.steps: '3' is not allowed, must be a whole number"),
        ({"steps": 0}, "steps: 0 is not allowed, must be >= 1"),
        ({"steps": True}, "run.steps: True is not allowed"),
        ({"learner": "maasn"}, "learner: 'maasn' is unknown; did you mean 'maasn-da'"),
        ({"scenarios": []}, "scenarios: is empty"),
        ({"scenarios": "x.toml"}, "run.scenarios: 'x.toml' is not allowed, must be a list"),
        ({"source": 3}, "source: 3 is not allowed, must be a table"),
        ({"source": {"draws": 0}}, "draws: 0 is not allowed"),
        ({"source": {"augmentation": "gan"}}, "augmentation: 'gan' is not allowed"),
        ({"source": {"synthetic": 2.0}}, "synthetic: 2.0 is not allowed"),
        ({"preset": "publishd"}, "preset: 'publishd' is unknown; did you mean 'published'"),
        ({"preset": 3}, "preset: 3 is unknown; known presets: published"),
        (
            {"preset": "published", "learner": "hindsight"},
            "preset: 'published' is not allowed with learner 'hindsight', which has no option",
        ),
        ({"options": {"observations": "all"}}, "observations: 'all' is not allowed, must be one"),
        (
            {"options": {"observations": "raw", "lookahead": True}},
            "lookahead: true is not allowed with observations = 'raw'",
        ),
        ({"options": {"critic": "maddpg"}}, "critic: 'maddpg' is not allowed here"),
        ({"options": {"credit": "all"}}, "credit: 'all' is not allowed, must be one of block"),
        ({"options": {"widht": 3}}, "options: 'widht' is unknown; did you mean 'width'"),
        ({"options": {"temperature": 0.0}}, "temperature: 0.0 is not allowed"),
        ({"options": {"tau": float("nan")}}, "tau: nan is not allowed"),
    ],
)
def test_mistakes(changes, message):
    """Unknown names, wrong kinds, values out of range."""
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as error:
        run_config({**GOOD, **changes})
    assert "\n" not in str(error.value)


def test_no_toml(tmp_path):
    """A file that is not TOML is named."""
    path = tmp_path / "run.toml"
    path.write_text("learner = ")
    with pytest.raises(FormatError, match=r"run\.toml: not valid TOML"):
        read_toml(path)
