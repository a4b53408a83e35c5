"""Suites: what a file may say, what it draws, and that a drifted generator is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from repository import ROOT

from finecast.compare.runs.suite import (
    draw,
    draw_all,
    freeze,
    hashes_path,
    instance_hash,
    parse_seeds,
    read_suite,
    scenario_of,
)
from finecast.problem.files import FormatError

SHIPPED = sorted((ROOT / "data" / "suites").glob("*.toml"))

TEXT = """
name = "two"
version = 3
[scenario]
slots = 2
library.synthetic = { models = 3, blocks = 9 }
nodes = { count = 2, antennas = 2 }
users.count = 3
channel.error = 0.05
[[methods]]
method = "greedy"
[[methods]]
label = "coarse"
method = "greedy"
restrict = "coarse"
[[classes]]
name = "a"
seeds = "0-1"
[[classes]]
name = "b"
seeds = [5]
methods = ["coarse"]
time_limit_s = 7.0
scenario.nodes.count = 3
"""


def written(folder: Path, text: str = TEXT) -> Path:
    path = folder / "two.toml"
    path.write_text(text)
    return path


def test_classes_merge_over_the_suite(tmp_path: Path) -> None:
    """A class changes one key of the suite's scenario and keeps the others."""
    suite = read_suite(written(tmp_path))
    a, b = (scenario_of(suite, one) for one in suite.classes)
    assert (a.nodes.count, b.nodes.count) == (2, 3)
    assert (a.nodes.antennas, b.nodes.antennas) == (2, 2)
    assert (a.slots, b.slots) == (2, 2)
    assert (a.name, b.name) == ("a", "b")
    assert [e.label for e in suite.entries(suite.classes[1])] == ["coarse"]


def test_base_files_are_found_from_where_they_are_named(tmp_path: Path) -> None:
    """`base` is relative to the suite, and the library it names relative to the base file."""
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "base.toml").write_text(
        f'slots = 4\n[library]\nfile = "{os.path.relpath(ROOT / "data", tmp_path / "scenarios")}'
        '/libraries/tiny.json"\n[nodes]\ncount = 2\n[users]\ncount = 2\n'
    )
    text = TEXT.replace('library.synthetic = { models = 3, blocks = 9 }',
                        'base = "scenarios/base.toml"')  # fmt: skip
    suite = read_suite(written(tmp_path, text))
    drawn = draw(suite, suite.classes[0], 0)
    assert drawn.instance.blocks == 6  # of tiny.json
    assert drawn.instance.slots == 2  # the suite's word, over the file's 4


def test_frozen_hashes_hold(tmp_path: Path) -> None:
    """Freezing twice changes nothing, and what is drawn then is what was frozen."""
    path = written(tmp_path)
    first = freeze(read_suite(path)).read_text()
    suite = read_suite(path)
    assert freeze(suite).read_text() == first
    for drawn in draw_all(suite):
        assert suite.frozen_hash(drawn.instance_class, drawn.seed, drawn.path) == drawn.hash


def test_a_drifted_generator_is_refused_by_name(tmp_path: Path) -> None:
    """Another hash than the frozen one: the error says suite, class, seed and both hashes."""
    path = written(tmp_path)
    hashes = freeze(read_suite(path))
    content = json.loads(hashes.read_text())
    true = content["hashes"]["a"]["1"]
    content["hashes"]["a"]["1"] = "0" * 64
    hashes.write_text(json.dumps(content))
    suite = read_suite(path)
    draw(suite, suite.classes[0], 0)
    with pytest.raises(FormatError) as refused:
        list(draw_all(suite))
    for word in ("'two' version 3", "'a'", "seed 1", true, "0" * 64):
        assert word in str(refused.value)
    with pytest.raises(FormatError, match="seed 1"):
        freeze(suite)  # the same version cannot be frozen to something else
    path.write_text(TEXT.replace("version = 3", "version = 4"))
    freeze(read_suite(path))  # a new one can
    assert json.loads(hashes.read_text())["hashes"]["a"]["1"] == true


def test_a_changed_scenario_is_drift(tmp_path: Path) -> None:
    """A number changed in the suite's own file, with the old hashes, is refused as well."""
    path = written(tmp_path)
    freeze(read_suite(path))
    path.write_text(TEXT.replace("blocks = 9", "blocks = 10"))
    with pytest.raises(FormatError, match="has changed"):
        list(draw_all(read_suite(path)))


def test_hash_sees_content_and_not_rounding(tmp_path: Path) -> None:
    """The last bits of channels do not matter; a part in a thousand, a request, a byte do."""
    suite = read_suite(written(tmp_path))
    instance = draw(suite, suite.classes[0], 0).instance
    known = instance_hash(instance)
    rng = np.random.default_rng(0)
    noise = 1 + 1e-14 * rng.standard_normal(instance.channel_true.shape)
    shaken = replace(
        instance,
        channel_true=instance.channel_true * noise,
        channel_estimate=instance.channel_estimate * noise,
    )
    assert shaken.content_hash != instance.content_hash
    assert instance_hash(shaken) == known
    assert instance_hash(replace(instance, name="other", seed=99)) == known

    def differs(**changes: object) -> bool:
        return instance_hash(replace(instance, **changes)) != known  # type: ignore[arg-type]

    requests = np.array(instance.requests)
    requests[0, 0] = (requests[0, 0] + 1) % instance.models
    size = np.array(instance.library.block_size)
    size[3] += 1
    assert differs(requests=requests)
    assert differs(library=replace(instance.library, block_size=size))
    assert differs(channel_error=instance.channel_error + 1e-3 * instance.channel_error.max())
    assert differs(delivery="spatial")
    turned = np.exp(1e-3j) * instance.channel_estimate
    assert differs(channel_estimate=turned, channel_true=turned)


def test_hash_is_the_same_on_another_processor() -> None:
    """Without AVX-512 and AVX2, numpy ends in other bits; the frozen hashes hold all the same."""
    script = (
        "from finecast.compare.runs.suite import *\n"
        f"suite = read_suite({str(ROOT / 'data' / 'suites' / 'mid.toml')!r})\n"
        "print([d.hash for d in draw_all(suite)][-1], end='')\n"
    )
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL",
        "OPENBLAS_CORETYPE": "Prescott",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    suite = read_suite(ROOT / "data" / "suites" / "mid.toml")
    assert done.stdout == suite.frozen_hash(suite.classes[-1], suite.classes[-1].seeds[-1])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_suites_draw_what_was_frozen(path: Path) -> None:
    """Every shipped instance is frozen and still drawn; methods and options exist."""
    from finecast.compare.runs.runner import check_entry

    suite = read_suite(path)
    assert suite.name == path.stem
    for drawn in draw_all(suite):
        assert suite.frozen_hash(drawn.instance_class, drawn.seed, drawn.path) == drawn.hash
    for entry in suite.methods:
        check_entry(entry)


def test_the_suites_that_are_promised_are_there() -> None:
    """The names of the documentation, and no others."""
    promised = (
        "city exact large llm mid online paper persist persist-slow slow-links small-hard smoke"
    )
    assert " ".join(sorted(path.stem for path in SHIPPED)) == promised


def test_the_same_instance_twice_is_refused(tmp_path: Path) -> None:
    """Two classes that draw the same would make their rows one: the suite is wrong."""
    text = TEXT.replace("scenario.nodes.count = 3", "").replace("seeds = [5]", "seeds = [1]")
    with pytest.raises(FormatError, match="class 'b', seed 1 is the same as class 'a', seed 1"):
        list(draw_all(read_suite(written(tmp_path, text))))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version = 3", "version = 0", "version: 0"),
        ("version = 3", "versoin = 3", "versoin: unknown key"),
        ('seeds = "0-1"', 'seeds = "1-0"', "classes.0.seeds"),
        ('seeds = "0-1"', "seeds = []", "classes.0.seeds"),
        ('seeds = "0-1"', 'seeds = "0-99999999"', "classes.0.seeds"),
        ('label = "coarse"', "", "'greedy' stands twice"),
        ('methods = ["coarse"]', 'methods = ["fine"]', "'fine' is none of greedy, coarse"),
        ('restrict = "coarse"', "options.seed = 1", "'seed' is set by the runner"),
        ("scenario.nodes.count = 3", "scenario.nodes.count = -3", "classes.b.scenario.nodes.count"),
        ("scenario.nodes.count = 3", "scenario.base = 'none.toml'", "no such file"),
        ("scenario.nodes.count = 3", "scenario.nodes.storage_gb = [1.0]", "storage_gb has 1"),
        ("version = 3", "version = = 3", "not valid TOML"),
    ],
)
def test_bad_suites_are_refused_in_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    """The message names the file and what is wrong with it."""
    path = written(tmp_path, TEXT.replace(old, new, 1))
    with pytest.raises(FormatError) as refused:
        list(draw_all(read_suite(path)))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_hashes_of_another_suite_are_refused(tmp_path: Path) -> None:
    """A hash file that was copied from another suite is not silently used."""
    path = written(tmp_path)
    hashes_path(read_suite(path)).write_text(
        json.dumps({"suite": "one", "version": 3, "hashes": {}})
    )
    with pytest.raises(FormatError, match="is of suite 'one'"):
        read_suite(path)


def test_seed_lists() -> None:
    """Ranges include both ends; a seed named twice or a word is refused."""
    assert parse_seeds("0-3,7, 9 - 10") == [0, 1, 2, 3, 7, 9, 10]
    assert parse_seeds([4]) == [4]
    for bad in ("", "a", "3-1", "1,1", "-1", "0-2,2", "1.5"):
        with pytest.raises(ValueError, match=r"seed|not allowed"):
            parse_seeds(bad)
