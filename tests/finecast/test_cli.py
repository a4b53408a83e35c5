"""The command line as users meet it: real processes, their exit codes, what they print."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import finecast
from interrupts import interruptible
from repository import ROOT
from safetensors.numpy import save_file

SCENARIOS = ROOT / "data" / "scenarios"


def refused(outcome: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check exit code 2 and one line on stderr that holds all the words."""
    assert outcome.returncode == 2, outcome
    assert outcome.stdout == ""
    lines = outcome.stderr.strip().splitlines()
    assert len(lines) == 1, outcome.stderr
    assert "Traceback" not in lines[0]
    for word in words:
        assert word in lines[0], (word, lines[0])


def test_help_lists_every_command():
    """Every registered command appears in --help and has a help page of its own."""
    outcome = finecast("--help")
    assert outcome.returncode == 0
    for name in ("generate", "show", "library", "solve", "evaluate", "bound", "methods"):
        assert name in outcome.stdout
        assert finecast(name, "--help").returncode == 0


def test_help_imports_nothing_heavy():
    """--help must answer fast: none of the numerical libraries may be imported for it."""
    code = (
        "import sys; sys.argv = ['finecast', '--help']\n"
        "from finecast.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'scipy', 'torch', 'cvxpy', 'pydantic', 'matplotlib', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, env=environment)


def test_solve_evaluate_and_show_agree(tmp_path):
    """generate -> solve -o -> evaluate gives one and the same delay; show and bound fit in."""
    instance, solution, picture = tmp_path / "a.npz", tmp_path / "s.npz", tmp_path / "a.png"
    assert (
        finecast("generate", SCENARIOS / "tiny.toml", "--seed", 3, "-o", instance).returncode == 0
    )
    solved = json.loads(finecast("solve", instance, "-o", solution, "--json").stdout)
    assert solved["feasible"] is True
    assert solved["violations"] == []
    assert 0 < solved["lower_bound"] <= solved["delay"]
    assert solved["gap"] == pytest.approx(solved["delay"] / solved["lower_bound"] - 1)
    assert (1 + solved["beamforming_gap"]) * (1 + solved["placement_gap"]) == pytest.approx(
        1 + solved["gap"]
    )
    judged = json.loads(finecast("evaluate", instance, solution, "--json").stdout)
    assert judged["delay"] == solved["delay"]
    assert judged["instance_hash"] == solved["instance_hash"]
    assert judged["made_for_another_instance"] is False
    bound = json.loads(finecast("bound", instance, "--json").stdout)
    assert bound["lower_bound"] <= solved["delay"]
    shown = finecast("show", instance, "--solution", solution, "--plot", picture, "--json")
    assert json.loads(shown.stdout)["instance_hash"] == solved["instance_hash"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(finecast("show", solution, "--json").stdout)["kind"] == "solution"


def test_restricted_solutions_can_be_judged(tmp_path):
    """A coarse solution is for the instance with whole models, as it says itself."""
    instance, solution = tmp_path / "a.npz", tmp_path / "s.npz"
    finecast("generate", SCENARIOS / "tiny.toml", "-o", instance)
    names = "coarse,no-comp"
    solved = finecast("solve", instance, "--restrict", names, "-o", solution, "--json")
    for setting in ((), ("--set", f"restrict={names}")):
        judged = json.loads(finecast("evaluate", instance, solution, *setting, "--json").stdout)
        assert judged["delay"] == json.loads(solved.stdout)["delay"]
    assert not json.loads(finecast("evaluate", instance, solution, "--json").stdout)[
        "made_for_another_instance"
    ]


def test_generate_repeats_itself(tmp_path):
    """The same scenario and seed give the same hash; --count numbers the files by seed."""
    scenario = SCENARIOS / "vision-horizon.toml"
    hashes = []
    for name in ("a.npz", "b.npz"):
        outcome = finecast("generate", scenario, "--seed", 3, "-o", tmp_path / name, "--json")
        hashes.append(json.loads(outcome.stdout)["instances"][0]["instance_hash"])
    assert hashes[0] == hashes[1]
    outcome = finecast(
        "generate", scenario, "--seed", 2, "--count", 2, "-o", tmp_path / "c.npz", "--json"
    )
    drawn = json.loads(outcome.stdout)["instances"]
    assert [Path(row["file"]).name for row in drawn] == ["c-seed2.npz", "c-seed3.npz"]
    assert drawn[1]["instance_hash"] == hashes[0]
    assert drawn[0]["instance_hash"] != hashes[0]


def test_evaluate_says_no(tmp_path):
    """A solution that breaks rules: exit code 1 and the violations, by name."""
    from finecast.problem.instance import read_instance
    from finecast.problem.solution import Solution, read_solution, write_solution

    instance, solution = tmp_path / "a.npz", tmp_path / "s.npz"
    finecast("generate", SCENARIOS / "tiny.toml", "-o", instance)
    finecast("solve", instance, "-o", solution)
    good = read_solution(solution)
    everything = np.ones_like(good.cache)
    assert (everything @ read_instance(instance).library.block_size).min() > read_instance(
        instance
    ).network.storage.max()
    write_solution(
        solution,
        Solution(everything, good.source, good.broadcasts, instance_hash=good.instance_hash),
    )
    outcome = finecast("evaluate", instance, solution)
    assert outcome.returncode == 1
    assert "violation: storage: slot 0, node 0" in outcome.stdout
    judged = json.loads(finecast("evaluate", instance, solution, "--json").stdout)
    assert judged["feasible"] is False
    assert judged["delay"] is None


def test_library_of_families(tmp_path):
    """A library from the command line holds the published bytes and can be shown."""
    target = tmp_path / "l.json"
    outcome = finecast(
        *("library", "vit-b-16", "--variants", 3, "--granularity", 3, "-o", target, "--json")
    )
    built = json.loads(outcome.stdout)
    assert built["models"] == 3
    assert built["separate_bytes"] == 3 * 4 * 86_567_656
    shown = json.loads(finecast("show", target, "--json").stdout)
    assert shown["library_hash"] == built["library_hash"]


def test_shipped_files_are_found_from_anywhere(tmp_path):
    """`data/...` names a shipped file from any folder; what is nowhere says where it was sought."""
    assert finecast("show", "data/scenarios/tiny.toml", cwd=tmp_path).returncode == 0
    refused(
        finecast("show", "data/scenarios/none.toml", cwd=tmp_path),
        "data/scenarios/none.toml",
        "no such file",
        "shipped",
    )


def scenario_with(tmp_path: Path, text: str) -> Path:
    """Write a scenario on the tiny library."""
    path = tmp_path / "bad.toml"
    shutil.copy(ROOT / "data" / "libraries" / "tiny.json", tmp_path / "tiny.json")
    path.write_text(f'library = {{file = "tiny.json"}}\n{text}\n')
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slots = [", ("not valid TOML",)),
        ("slot = 3", ("slot", "unknown key", "'slots'")),
        ("[radio]\nbandwith_mhz = 10", ("radio.bandwith_mhz", "'bandwidth_mhz'")),
        ("slots = 0", ("slots", "0", "greater than or equal to 1")),
        ("slots = 1.5", ("slots", "1.5", "integer")),
        ("[nodes]\nstorage_gb = -1.0", ("nodes.storage_gb", "-1.0")),
        ("[nodes]\nstorage_gb = [1.0, 2.0]", ("nodes", "2 entries", "count is 4")),
        ("[nodes]\npower_dbm = nan", ("nodes.power_dbm", "finite")),
        ("[nodes]\npower_dbm = inf", ("nodes.power_dbm", "finite")),
        ("[links]\ncloud_gbps = 0.0", ("links.cloud_gbps", "0.0")),
        ("[links]\ncloud_gbps = [2.0, 1.0]", ("links", "[2.0, 1.0]", "low")),
        ("[channel]\nerror = -0.1", ("channel.error", "-0.1")),
        ("[channel]\nenvironment = 'umx'", ("channel.environment", "'umx'", "'umi'")),
        ("[channel]\nfile = 'none.npz'", ("none.npz", "no such file")),
        ("[demand]\npersistence = 1.5", ("demand.persistence", "1.5")),
        ("[demand]\ntrace = 'none.csv'", ("none.csv", "no such file")),
    ],
)
def test_bad_scenarios_are_one_line(tmp_path, text, words):
    """Exit code 2, one line with file, field and what is allowed, and no file written."""
    target = tmp_path / "out.npz"
    outcome = finecast("generate", scenario_with(tmp_path, text), "-o", target)
    refused(outcome, *words, str(tmp_path))
    assert not target.exists()


def test_channels_that_no_path_reaches(tmp_path):
    """`show`, `solve` and `bound` name user and slot; gains above one get a note everywhere."""
    channel = np.full((1, 3, 2, 2), 1e-5, complex)
    channel[0, 2] = 0.0
    np.savez(tmp_path / "c.npz", channel=channel)
    scenario = tmp_path / "s.toml"
    scenario.write_text(
        "slots = 1\n[library.synthetic]\nmodels = 3\nblocks = 6\ntotal_gb = 0.5\n"
        "[nodes]\ncount = 2\nantennas = 2\n[users]\ncount = 3\n"
        '[channel]\nfile = "c.npz"\n'
    )
    shown = finecast("show", scenario, "--json")
    assert json.loads(shown.stdout)["without_channel"] == [[0, 2]]
    for command in ("show", "solve", "bound"):
        outcome = finecast(command, scenario)
        assert outcome.returncode == (1 if command == "solve" else 0)
        assert "user 2 in slot 0" in outcome.stdout
        assert "errors" not in outcome.stdout
    np.savez(tmp_path / "c.npz", channel=np.full((1, 3, 2, 2), -80.0))
    for command in ("show", "solve", "bound"):
        outcome = finecast(command, scenario)
        assert outcome.returncode == 0
        assert "6 of 6 channel gains are above one" in " ".join(
            outcome.stdout.replace("\u2502", " ").split()
        )


def test_library_from_checkpoints(tmp_path):
    """Blocks of a size that fits, a note for what is passed over, and no option without effect."""
    rng = np.random.default_rng(0)
    trunk = {f"layers.{i}.w": rng.random(1000) for i in range(3)}
    for name in ("cats", "dogs"):
        (tmp_path / "models" / name).mkdir(parents=True)
        own = {**trunk, "head.w": rng.random(10)}
        save_file(own, tmp_path / "models" / name / "model.safetensors")
    (tmp_path / "models" / "dogs" / "q4.gguf").write_text("x")
    target = tmp_path / "l.json"
    build = ("library", "--from-checkpoints", tmp_path / "models", "-o", target)
    for options, blocks in (
        ((), 5),
        (("--granularity", "largest"), 3),
        (("--granularity", "2"), 4),
        (("--max-block-mb", "0.0041"), 8),
    ):
        outcome = finecast(*build, "--json", *options)
        assert outcome.returncode == 0
        assert json.loads(outcome.stdout)["blocks"] == blocks
        assert "note: 'dogs/q4.gguf': skipped, only .safetensors files are read" in outcome.stderr
    target.unlink()
    for options, words in (
        (("--granularity", "tensor"), ("granularity", "'tensor'", "'layer'")),
        (("--max-block-mb", "0"), ("--max-block-mb", "0.0")),
        (("--max-block-mb", "nan"), ("--max-block-mb", "nan")),
        (("--variants", "3"), ("--variants", "families only")),
        (("--dtype", "float16"), ("--dtype", "families only")),
    ):
        refused(finecast(*build, *options), *words)
    outcome = finecast("library", "vit-b-16", "--max-block-mb", "1", "-o", target)
    refused(outcome, "--max-block-mb is for --from-checkpoints and --from-config only")
    assert not target.exists()


def test_show_names_blocks_that_fit_into_no_node(tmp_path):
    """A block above every node's storage is cached nowhere, which the picture cannot show."""
    text = (
        "slots = 1\n[library.synthetic]\nmodels = 3\nblocks = 6\ntotal_gb = 0.5\n"
        "[nodes]\ncount = 2\nstorage_gb = {}\n[users]\ncount = 1\n"
    )
    for storage, blocks in ((0.01, 6), (1, 0)):
        (tmp_path / "s.toml").write_text(text.format(storage))
        assert json.loads(finecast("show", tmp_path / "s.toml", "--json").stdout)[
            "blocks_too_large"
        ] == blocks  # fmt: skip
        shown = finecast("show", tmp_path / "s.toml").stdout
        assert ("fit into no node" in shown) == ("never cached" in shown) == (blocks > 0)
        assert "1 slot, 1 user, 2 nodes x 4 antennas" in shown


def test_library_from_config_refuses(tmp_path):
    """Two sources, options of another source, foreign code: one line each, nothing written."""
    refused(finecast("library", "vit-b-16", "--from-config", tmp_path), "give one of families")
    refused(finecast("library", "vit-b-16", "--frozen", "2"), "--frozen is for --from-config only")
    asked = ("library", "--from-config", tmp_path, "-o", tmp_path / "l.json")
    refused(finecast(*asked, "--variants", 3), "--variants is for families only")
    (tmp_path / "config.json").write_text('{"model_type": "llama", "auto_map": {}}')
    refused(finecast(*asked), "config.json", "auto_map: asks for code of its own")
    assert not (tmp_path / "l.json").exists()


def test_library_is_shown_without_a_file(tmp_path):
    """Every model with its bytes, the whole path above the table, and nothing written."""
    rng = np.random.default_rng(0)
    folder = tmp_path / ("models of a name that no table is wide enough for" * 2)
    (folder / "base").mkdir(parents=True)
    save_file({f"l.{i}.w": rng.random(128) for i in range(6)}, folder / "base/model.safetensors")
    for name in ("law", "med"):
        (folder / name).mkdir()
        save_file({name: rng.random(128)}, folder / name / "adapter_model.safetensors")
        (folder / name / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    files = sorted(tmp_path.rglob("*"))
    outcome = finecast("library", "--from-checkpoints", folder)
    assert outcome.returncode == 0, outcome
    lines = outcome.stdout.splitlines()
    assert lines[0] == str(folder)
    told = {
        cells[1].strip(): cells[2].strip() for cells in (line.split("│") for line in lines[2:-1])
    }
    assert told["models"] == "3"
    assert told["all models apart"] == "20.480 kB"
    assert told["each block once"] == "8.192 kB, saves 60.0 %"
    assert told["base"] == "6.144 kB, 100.0 % of it in several models"
    assert told["law"] == told["med"] == "7.168 kB, 85.7 % of it in several models"
    asked = json.loads(finecast("library", "--from-checkpoints", folder, "--json").stdout)
    assert asked["model_bytes"] == {"base": 6144, "law": 7168, "med": 7168}
    assert sorted(tmp_path.rglob("*")) == files
    long = finecast("library", "vit-b-16", "--variants", 30).stdout
    assert "vit-b-16/task10 " in long
    assert "19 more models" in long


def test_bad_files_are_one_line(tmp_path):
    """Every kind of wrong file for every command that reads one."""
    tiny = SCENARIOS / "tiny.toml"
    instance, cut, text = tmp_path / "a.npz", tmp_path / "cut.npz", tmp_path / "text.npz"
    finecast("generate", tiny, "-o", instance)
    cut.write_bytes(instance.read_bytes()[:700])
    text.write_text("hello")
    library = tmp_path / "l.json"
    library.write_text('{"format": "finecast-library", "version": 1, "blocks": [')
    for command in ("solve", "show", "bound"):
        refused(finecast(command, tmp_path / "none.npz"), "none.npz", "no such file")
        refused(finecast(command, cut), "cut.npz")
        refused(finecast(command, text), "text.npz")
        refused(finecast(command, tmp_path), str(tmp_path), "directory")
    refused(finecast("show", library), "l.json", "not valid JSON")
    refused(finecast("generate", instance, "-o", tmp_path / "b.npz"), "a.npz", ".toml")
    refused(finecast("generate", tiny, "-o", tmp_path / "b.bin"), "b.bin", ".npz")
    refused(finecast("library", "vit-b-16", "-o", tmp_path / "l.txt"), "l.txt", ".json")
    refused(finecast("evaluate", instance, instance), "a.npz", "finecast-solution")
    refused(finecast("evaluate", instance, cut), "cut.npz")
    refused(finecast("solve", instance, "-o", tmp_path / "none" / "s.npz"), "does not exist")
    refused(finecast("solve", instance, "-o", tmp_path), "directory")
    refused(finecast("solve", instance, "-o", tmp_path / "s.csv"), "'.csv', expected '.npz'")
    refused(finecast("library", "--from-checkpoints", tmp_path / "none", "-o", library), "none")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "cut.npz", "l.json", "text.npz"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "gredy"), ("gredy", "'greedy'")),
        (("--set", "beam=sca"), ("beam", "beamforming")),
        (("--set", "beamforming"), ("KEY=VALUE",)),
        (("--set", "beamforming=magic"), ("magic", "sca")),
        (("--set", "schedule=later"), ("schedule", "later", "pipelined")),
        (("--time-limit", "-1"), ("time_limit", "-1")),
        (("--time-limit", "nan"), ("time_limit", "nan")),
        (("--gap", "inf"), ("gap", "inf")),
        (("--seed", "-1"), ("--seed", "-1")),
        (("--colour",), ("--colour",)),
        (("--set", "seed=1"), ("'seed'", "--help")),
        (("--set", "restrict=1"), ("restrict", "list of texts")),
        (("--set", "rate_cache=[1]"), ("rate_cache", "text")),
        (("--method", "mpc", "--set", "horizon=abc"), ("horizon", "whole number")),
        (("--restrict", "coarse,nothing"), ("'nothing'", "no-comp")),
    ],
)
def test_bad_options_are_one_line(arguments, words):
    """Unknown methods and options suggest the right one; numbers out of range say the range."""
    refused(finecast("solve", SCENARIOS / "tiny.toml", *arguments), *words)


def test_inputs_are_not_overwritten(tmp_path):
    """An instance or measured channels are not replaced by what is made from them."""
    instance, channels = tmp_path / "i.npz", tmp_path / "c.npz"
    finecast("generate", "tiny", "-o", instance)
    np.savez(channels, channel=np.zeros(3))
    for command in (
        ("solve", instance, "-o", instance),
        ("solve", tmp_path / ".." / tmp_path.name / "i.npz", "-o", instance),
        ("solve", "tiny", "-o", channels),
        ("generate", "tiny", "-o", channels),
    ):
        before = Path(command[-1]).read_bytes()
        refused(finecast(*command), str(command[-1]), "would replace")
        assert Path(command[-1]).read_bytes() == before
    solution = tmp_path / "s.npz"
    solution.touch()  # as mktemp leaves it
    for _ in range(2):  # a solution may be replaced by a better one
        assert finecast("solve", instance, "-o", solution).returncode == 0


def test_a_full_disk_keeps_what_is_printed(tmp_path):
    """The solution cannot be written: delay and gap stand on stdout all the same, and exit is 2."""
    code = (
        "import errno, os\n"
        "def full(handle): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "os.fsync = full\n"
        "from finecast.cli.main import main; main()\n"
    )
    target, environment = tmp_path / "s.npz", {**os.environ, "PYTHONPATH": str(ROOT)}
    for more, found in (([], "delay"), (["--json"], '"feasible": true')):
        outcome = subprocess.run(
            [sys.executable, "-c", code, "solve", "tiny", "-o", str(target), *more],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert outcome.returncode == 2
        assert found in outcome.stdout
        assert "solution written" not in outcome.stdout
        assert outcome.stderr == (
            f"finecast: error: {target}: cannot be written: No space left on device\n"
        )
    assert list(tmp_path.iterdir()) == []


def test_rates_that_cannot_be_kept_cost_a_note(tmp_path):
    """A rate cache in the place of a file: the solve is done, and a note says what is not kept."""
    (tmp_path / "file").touch()
    outcome = finecast("solve", "tiny", "--set", f"rate_cache={tmp_path / 'file' / 'cache'}")
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr.startswith("finecast: note: rate_cache: the rates are not kept: ")
    assert outcome.stderr.count("\n") == 1


def test_ctrl_c_keeps_the_best_of_one_solve():
    """Ctrl-C during the placement: the best so far is printed, and the exit code is 130."""
    code = (
        "import signal, finecast.solvers.solve as solving\n"
        "real = solving.solve\n"
        "def pressed(*given, callback, **options):\n"
        "    told = []\n"
        "    def tell(progress):\n"
        "        told.append(progress.stage)\n"
        "        if told.count('placement') > 12: signal.raise_signal(signal.SIGINT)\n"
        "    return real(*given, callback=tell, **options)\n"
        "solving.solve = pressed\n"
        "from finecast.cli.main import main; main()\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code, "solve", "vision-horizon", "--json"], capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=interruptible,
    )  # fmt: skip
    assert outcome.returncode == 130, outcome.stderr
    solved = json.loads(outcome.stdout)
    assert solved["termination"] == "interrupted"
    assert solved["feasible"]


def test_ctrl_c_ends_a_loop_over_solve():
    """In a loop of somebody's program, Ctrl-C ends the loop and not one solve of it."""
    loop = (
        "import sys, finecast\n"
        "instance = finecast.read_scenario(sys.argv[1]).generate(0)\n"
        "print('begun', flush=True)\n"
        "while True: finecast.solve(instance, 'lagrangian')\n"
    )
    scenario = str(SCENARIOS / "vision-horizon.toml")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    looping = subprocess.Popen(
        [sys.executable, "-c", loop, scenario], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=environment, preexec_fn=interruptible,
    )  # fmt: skip
    looping.stdout.readline()
    time.sleep(1.0)
    looping.send_signal(signal.SIGINT)
    _, said = looping.communicate(timeout=60)
    assert looping.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")


def test_paths_of_a_scenario(tmp_path):
    """Another path has another instance; an instance file has one path alone."""
    tiny = SCENARIOS / "tiny.toml"
    outcome = finecast(
        "generate", tiny, "--path", 2, "--count", 2, "-o", tmp_path / "a.npz", "--json"
    )
    drawn = json.loads(outcome.stdout)["instances"]
    assert [(one["seed"], one["path"]) for one in drawn] == [(0, 2), (0, 3)]
    solved = json.loads(finecast("solve", tiny, "--path", 3, "--method", "lru", "--json").stdout)
    assert solved["instance_hash"] == drawn[1]["instance_hash"]
    bound = json.loads(finecast("bound", tiny, "--path", 2, "--json").stdout)
    assert bound["instance_hash"] == drawn[0]["instance_hash"]
    for command in ("solve", "bound"):
        refused(finecast(command, drawn[0]["file"], "--path", 2), "a-path2.npz", "scenario")


def test_online_bound(tmp_path):
    """The figures of a scenario, and the distance of a method; less is said of one path."""
    more = ("--networks", 2, "--paths", 1, "--methods", "lru", "--json")
    told = json.loads(finecast("bound", "tiny", "--online", *more).stdout)
    assert told["interval"][0] < told["online_bound"] < told["interval"][1]
    difference = told["online_bound"] - told["hindsight_bound"]
    assert told["value_of_information"] == pytest.approx(difference)
    assert [network["seed"] for network in told["networks"]] == [0, 1]
    assert told["methods"]["lru"]["least_gap"] >= 0
    one = ("--networks", 1, "--paths", 1, "--kappa", 0)
    shown = finecast("bound", "tiny", "--online", *one)
    assert shown.returncode == 0
    assert "one path: no interval" in shown.stdout


def test_online_bound_refusals(tmp_path):
    """One line and exit code 2 for what has no online bound, before any work."""
    finecast("generate", "tiny", "-o", tmp_path / "a.npz")
    online = ("bound", "tiny", "--online")
    refused(finecast("bound", tmp_path / "a.npz", "--online"), "a.npz", "--online needs a scenario")
    refused(finecast("bound", "tiny", "--paths", 3), "--paths: only with --online")
    refused(finecast(*online, "--path", 3), "--path: not with --online")
    refused(finecast(*online, "--methods", "rollin"), "did you mean 'rolling'")
    refused(finecast(*online, "--set", "delivery=spatial"), "'delivery' is not allowed")
    refused(finecast(*online, "--time-limit", 0), "time_limit: 0.0 s were over")
    refused(finecast(*online, "--kappa", -1), "kappa: -1.0 is not allowed")
    refused(
        finecast(*online, "--kappa", "x"), "--kappa: 'x' is not allowed, must be a number or auto"
    )
    one = ("--networks", 1, "--unknown-positions")
    refused(finecast(*online, *one), "networks: 1 is not allowed with unknown positions")
    refused(finecast("bound", "tiny", "--unknown-positions"), "--unknown-positions: only with")


def test_ctrl_c_keeps_the_first_paths():
    """The paths finished so far, in order, with exit code 130 and how many they are."""
    code = (
        "import signal\n"
        "from finecast.solvers import online_bound as module\n"
        "real = module.online_bound\n"
        "def pressed(scenario, *, callback, **options):\n"
        "    def tell(progress):\n"
        "        if (progress.stage, progress.done) == ('paths', 2):\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "    return real(scenario, callback=tell, **options)\n"
        "module.online_bound = pressed\n"
        "from finecast.cli.main import main; main()\n"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code, "bound", "tiny", "--online", "--kappa", "0"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=interruptible,
    )  # fmt: skip
    assert outcome.returncode == 130, outcome.stderr
    assert "Ctrl-C: the means are of the first 2 of 64 paths" in " ".join(outcome.stdout.split())
