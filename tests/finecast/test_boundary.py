"""What comes from outside: sizes, devices, names, plug-ins, encodings; and faults of our own."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from interrupts import interruptible
from repository import DATA, ROOT, TINY

from finecast.cli import main as command_line
from finecast.cli.common import as_text, parse_settings, print_table
from finecast.learners.algorithms.hindsight import Config
from finecast.learners.runs.config import run_config
from finecast.problem import files
from finecast.problem.families import FamilySpec
from finecast.problem.files import FormatError, parse_json, read_arrays, read_bytes
from finecast.problem.measured import read_channels
from finecast.problem.memory import LEAST_ADDRESS_SPACE
from finecast.problem.scenario import read_scenario
from finecast.problem.wording import printable
from finecast.solvers import registry, workers
from finecast.solvers.registry import Method, methods

FINECAST = (sys.executable, "-c", "from finecast.cli.main import main; main()")


def finecast(*arguments: object, **more: object) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **more}
    command = [*FINECAST, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env=environment, timeout=120, check=False)


def run_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of the command line in this process."""
    monkeypatch.setattr(sys, "argv", ["finecast", *map(str, arguments)])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit) as left:
        command_line.main()
    printed = capsys.readouterr()
    return int(left.value.code or 0), printed.out, printed.err


def scenario(folder: Path, text: str) -> Path:
    head, library = TINY.read_text().split("[library]", 1)
    assert head
    library = library.replace("../libraries/tiny.json", str(DATA / "libraries" / "tiny.json"))
    path = folder / "scenario.toml"
    path.write_text(f"{text}\n[library]{library}")
    return path


# ---- sizes


@pytest.mark.parametrize(
    ("text", "field", "limit"),
    [
        ("users.count = 10000000", "users.count", "100000"),
        ("slots = 1000000", "slots", "100000"),
        ("slots = 4611686018427387904", "slots", "100000"),
        ("slots = 20000\nusers.count = 20000", "slots = 20000, users.count = 20000", str(2**31)),
    ],
)
def test_absurd_sizes_of_scenarios(tmp_path, monkeypatch, capsys, text, field, limit):
    """Refused before anything is drawn: file, field and limit in one line."""
    drawn = []
    module = "finecast.problem.scenario_network"
    monkeypatch.setattr(f"{module}.drop_users", lambda *_, **__: drawn.append(1))
    text = text.replace("users.count = ", "[users]\ncount = ")
    path = tmp_path / "scenario.toml"
    path.write_text(f'{text}\n[library]\nfile = "{DATA / "libraries" / "tiny.json"}"\n')
    code, _, err = run_main(monkeypatch, capsys, "show", path)
    assert code == 2
    assert not drawn
    assert err.count("\n") == 1
    for word in (str(path), field, limit):
        assert word in err


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"backbone": "resnet-101", "classes": 2**62}, "classes: 4611686018427387904 .*<= 10"),
        ({"backbone": "llama-2-7b", "lora_rank": 2**62}, "lora_rank: 4611686018427387904 .*<= 65"),
        ({"backbone": "resnet-101", "granularity": 2**62}, "granularity: 46.*<= 10000"),
    ],
)
def test_absurd_families(tmp_path, table, words):
    """Counts of a family have limits, in Python and in a scenario."""
    with pytest.raises(ValueError, match=words):
        FamilySpec(variants=2, **table)
    path = tmp_path / "family.toml"
    entries = ", ".join(
        f'{k} = "{v}"' if k == "backbone" else f"{k} = {v}" for k, v in table.items()
    )
    path.write_text(f"[library]\nfamilies = [{{{entries}}}]\n")
    with pytest.raises(ValueError, match=words):
        read_scenario(path).generate()


def test_absurd_variants(tmp_path):
    """As many models as nobody has are refused before their table is made."""
    path = tmp_path / "family.toml"
    path.write_text(
        "[library]\nfamilies = [{backbone = 'resnet-50', variants = 4611686018427387904}]"
    )
    with pytest.raises(FormatError, match=r"family\.toml: library\.families\.0\.variants: .*10000"):
        read_scenario(path)
    path.write_text("[library]\nsynthetic = {models = 100000, blocks = 1000000}")
    with pytest.raises(
        FormatError, match=r"models \* blocks is 100000000000, must be <= 1073741824"
    ):
        read_scenario(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"options": {"rounds": 2**62}}, "rounds: 4611686018427387904 .*<= 1000"),
        ({"options": {"width": 2**62}}, "width: .*<= 4096"),
        ({"options": {"passes": 10**400}}, "options.passes: .*float64"),
        ({"steps": 2**62}, "steps: .*<= 1000000000"),
        ({"seed": 2**64}, "seed: .*<= 9223372036854775807"),
        ({"source": {"draws": 2**62}}, "draws: .*<= 100000"),
        ({"threads": 2**62}, "threads: .*<= 1024"),
    ],
)
def test_absurd_options_of_learners(options, words):
    """Every count of a training run has a limit, which the message says."""
    with pytest.raises(ValueError, match=words):
        run_config({"learner": "hindsight", "scenarios": ["tiny"], **options})
    assert Config().rounds == 3


@pytest.mark.parametrize(("method", "option"), [("rolling", "rounds"), ("mpc", "horizon")])
def test_absurd_options_of_methods(monkeypatch, capsys, method, option):
    """2^62 rounds are refused, not begun."""
    arguments = ("solve", "tiny", "--method", method, "--set", f"{option}={2**62}")
    code, _, err = run_main(monkeypatch, capsys, *arguments)
    assert code == 2
    assert re.search(rf"{option}: {2**62} is not allowed, must be >= 1 and <= 1000", err)


def test_an_archive_that_inflates_to_gigabytes(tmp_path):
    """3 MB that would become 3 GB: refused by what it declares, with little memory taken."""
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (3 * 10**9 // 8,)}
    )
    zeros = bytes(10**7)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("channel.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(header.getvalue())
        for _ in range(300):
            stream.write(zeros)
    words = "entry 'channel': 30.* bytes of arrays, at most {} are read"
    for read, limit in (
        (read_arrays, str(2**31)),
        (lambda p: read_channels(p, (1, 1, 1, 1)), "12384"),  # what one number may take
    ):
        with pytest.raises(FormatError, match=words.format(limit)):
            read(path)


def test_an_archive_that_lies_about_its_sizes(tmp_path):
    """A header that says 200 bytes over data of 100 MB: no more than 200 bytes are inflated."""
    path = tmp_path / "liar.npz"
    np.savez_compressed(path, x=np.zeros(10**7))
    content = bytearray(path.read_bytes())
    true = (8 * 10**7 + 128).to_bytes(4, "little")
    path.write_bytes(content.replace(true, (200).to_bytes(4, "little")))
    with pytest.raises(FormatError, match=r"liar\.npz"):
        read_arrays(path)


# ---- devices


def test_devices_and_pipes_are_refused_at_once(tmp_path):
    """A pipe without a writer and an endless device: neither is waited for, neither is read."""
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.npz", Path("/dev/zero"), Path("/dev/stdin")):
        if not path.is_file():
            with pytest.raises(FormatError, match="is a device, pipe or socket"):
                read_bytes(path)
    outcome = finecast("show", tmp_path / "pipe.npz")
    assert outcome.returncode == 2
    assert b"expected a regular file" in outcome.stderr


def test_files_have_a_largest_size(tmp_path):
    """A file that is too long is refused by its size, which a sparse file shows without a disk."""
    path = tmp_path / "long.toml"
    with path.open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(FormatError, match=f"has {2**40} bytes, at most {2**28} are read"):
        read_scenario(path)
    with pytest.raises(FormatError, match=f"has {2**40} bytes, at most {2**31} are read"):
        read_bytes(path)
    with pytest.raises(FormatError, match="longer than the 0 bytes"):
        read_bytes("/proc/self/status")


# ---- values


@pytest.mark.parametrize(
    "text", ["[" * 200 + "]" * 200, "[" * 10**5, '{"a": ' * 150 + "1" + "}" * 150]
)
def test_deep_texts_are_refused(text):
    """JSON of many levels would end in a recursion error somewhere later."""
    with pytest.raises(ValueError, match=r"nested deeper than 100 levels|Expecting"):
        parse_json(text)
    with pytest.raises(ValueError, match=r"--set: x: nested deeper|text"):
        assert parse_settings([f"x={text}"])["x"] == "text"


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "[Infinity]"])
def test_numbers_are_finite(text):
    """JSON writes infinity in several ways, and none is let in."""
    with pytest.raises(ValueError, match="numbers must be finite"):
        parse_json(text)


def test_half_characters_are_refused_where_they_stand():
    """An escape for half a character could not be printed or written."""
    with pytest.raises(ValueError, match=r"a\[1\]\.b: '\\ud800' is not allowed"):
        parse_json(r'{"a": ["\u00e9", {"b": "\ud800"}]}')
    assert parse_json(r'"\ud83d\ude00"') == "\U0001f600"


def test_a_rate_cache_that_is_no_name(monkeypatch, capsys):
    """A number in place of a folder is bad input, not a fault of finecast."""
    code, _, err = run_main(monkeypatch, capsys, "solve", "tiny", "--set", "rate_cache=5")
    assert code == 2
    assert "option rate_cache: 5 is not allowed, must be a text" in err


# ---- names


@pytest.mark.parametrize("name", ["run [/] 2", "[nodes 4]", ":cd:", "[red]x[/red]"])
def test_names_are_text(tmp_path, monkeypatch, capsys, name):
    """No name is markup or a picture."""
    monkeypatch.setenv("COLUMNS", "200")
    path = scenario(tmp_path, f'name = "{name}"')
    code, _, _ = run_main(monkeypatch, capsys, "generate", path, "-o", tmp_path / "a.npz")
    assert code == 0
    monkeypatch.setattr("finecast.cli.show._instance_rows", lambda *_: [(name, name)])
    code, out, _ = run_main(monkeypatch, capsys, "show", tmp_path / "a.npz")
    assert code == 0
    assert out.count(name) == 2


def test_control_characters_are_shown(capsys):
    """Escape sequences do not reach the terminal, nor what turns the direction of writing."""
    name = "\x1b[2Jx\x07\u202e\r\ud800\u00e9"
    shown = r"\x1b[2Jx\x07\u202e\r\ud800" + "\u00e9"
    assert printable(name) == shown
    assert as_text(name).plain == shown
    print_table(name, [(name, "a\nb")])
    assert "\x1b[2J" not in capsys.readouterr().out


def test_errors_are_printable(tmp_path, monkeypatch, capsys):
    """A file name with an escape sequence and a line break is one harmless line."""
    code, _, err = run_main(monkeypatch, capsys, "show", tmp_path / "x\x1b[31m\ny.npz")
    assert code == 2
    assert "\x1b" not in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_replaced(tmp_path, encoding):
    """Output in another encoding has question marks, and the same exit code."""
    path = scenario(tmp_path, 'name = "caf\u00e9 \u2192 \u4e2d"')
    outcome = finecast("solve", path, "--method", "random", PYTHONIOENCODING=encoding)
    assert outcome.returncode == 0, outcome.stderr
    assert b"caf" in outcome.stdout


# ---- faults


@pytest.mark.parametrize("error", [TypeError("no such thing"), RecursionError("too deep")])
def test_a_fault_of_finecast(monkeypatch, capsys, error):
    """What nobody foresaw is exit code 3 and one line that says how to report it, never 1."""

    def broken(*_, **__):
        raise error

    monkeypatch.setattr("finecast.cli.show.find", broken)
    code, _, err = run_main(monkeypatch, capsys, "show", "tiny")
    assert code == 3
    assert err.count("\n") == 1
    assert type(error).__name__ in err
    for words in ("fault of finecast", "report it", "FINECAST_DEBUG=1"):
        assert words in err
    monkeypatch.setenv("FINECAST_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["finecast", "show", "tiny"])
    with pytest.raises(type(error)):
        command_line.main()


# ---- plug-ins


class EntryPoint:
    """An entry point as `importlib.metadata` gives it."""

    def __init__(self, name, load):
        self.name, self.value, self.load = name, f"plugin:{name}", load


def raising(error):
    def load():
        raise error

    return load


def test_broken_plug_ins_are_skipped(monkeypatch):
    """Plug-ins that raise or exit at import, or are something else: a warning, the rest work."""
    good = Method("good", "nowhere:solve", "offline", "a method")
    points = [
        EntryPoint("raises", raising(RuntimeError("broken"))),
        EntryPoint("exits", raising(SystemExit(0))),
        EntryPoint("other", lambda: 5),
        EntryPoint("taken", lambda: Method("exact", "x:y", "offline", "a method")),
        EntryPoint("good", lambda: good),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    methods.cache_clear()
    try:
        with pytest.warns(UserWarning, match="is skipped") as told:
            table = methods()
        with pytest.raises(ValueError, match="method 'good': 'nowhere:solve' cannot be imported"):
            table["good"].load()
    finally:
        methods.cache_clear()
    assert [str(one.message).split("'")[1] for one in told] == ["raises", "exits", "other", "taken"]
    assert list(table)[-1] == "good"
    assert table["exact"].entry != "x:y"


# ---- what waits


def test_a_port_that_is_no_scheduler(monkeypatch):
    """Something accepts the connection and is silent: refused in the time that is allowed."""
    monkeypatch.setattr(workers, "SCHEDULER_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=rf"no Dask scheduler at {address}: \S+"):
            workers.refuse_silence(address)


def test_too_little_memory_is_said_at_once():
    """With 700 MB of address space the libraries would hang while they are imported."""
    limit = f"ulimit -v 700000; exec {FINECAST[0]} -c"
    for command in (
        "from finecast.cli.main import main; main()",
        "import finecast; finecast.train",
    ):
        outcome = subprocess.run(
            ["bash", "-c", f"{limit} '{command}'"],
            capture_output=True, timeout=60, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert outcome.returncode != 0
        assert f"finecast needs at least {LEAST_ADDRESS_SPACE}".encode() in outcome.stderr


@pytest.mark.parametrize("value", ["5", "[5]", "true", "[[1]]"])
def test_restrictions_are_texts(monkeypatch, capsys, value):
    """Values of another kind are bad input for every command that takes them."""
    for command in ("bound", "show"):
        code, _, err = run_main(monkeypatch, capsys, command, "tiny", "--set", f"restrict={value}")
        assert code == 2
        assert "restrict: " in err


MESSAGES = [
    ("train {s} --learner maasn-da -o {t}/run", "{s}: slots: 1 is not allowed with source.aug"),
    ("train --config {t}/l.toml -o {t}/run", "{t}/l.toml: learner: is missing, or give --learner"),
    ("solve {s} --method policy --set checkpoint=dcg --set delivery=spatial", "{s}: instance: del"),
    ("solve {s} --set beamforming=x", "beamforming: 'x' is unknown"),
    ("solve {s} --time-limit nan", "time_limit: nan is not allowed"),
    ("solve {s} --method lagrangian --set x=1", "option 'x' is unknown"),
    ("bound {s} --set restrict=x", "restrict: 'x' is unknown"),
    ("compare {t}/suite.toml -o {t}/r", "{t}/suite.toml: method 'lru': option 'x' is unknown"),
    ("compare smoke -o {t}/r --instances x", "--instances: 'x' is not allowed"),
    ("compare smoke -o {t}/r --seeds 3-1", "--seeds: '3-1' is not allowed"),
    ("compare smoke -o {t}/r --classes x", "classes: 'x' is none of "),
]


@pytest.mark.parametrize(("command", "message"), MESSAGES, ids=[c for c, _ in MESSAGES])
def test_what_is_refused_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    message: str,
) -> None:
    """What is wrong with a file names it, also after it was read; else the option is named."""
    names = {"s": TINY, "t": tmp_path}
    (tmp_path / "l.toml").write_text(f'scenarios = ["{TINY}"]\n')
    text = (DATA / "suites" / "smoke.toml").read_text().replace("../", f"{DATA}/")
    text = re.sub(r'method = "lru"', 'method = "lru"\noptions = { x = 1 }', text)
    (tmp_path / "suite.toml").write_text(text)
    given = [word.format(**names) for word in command.split()]
    code, out, err = run_main(monkeypatch, capsys, *given)
    assert (code, out) == (2, "")
    assert err.startswith(f"finecast: error: {message.format(**names)}")
    assert err.count("\n") == 1


def test_a_message_is_no_longer_than_a_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A value from a file can be as long as the file."""
    (tmp_path / "s.toml").write_text(f'"{"x" * 10**5}" = 1')
    code, _, err = run_main(monkeypatch, capsys, "show", tmp_path / "s.toml")
    assert code == 2
    assert len(err) < 1100


SHAPE = (1, 2, 3, 4)


@pytest.mark.parametrize("name", ["channel", "channel_imag"])
def test_a_channel_takes_no_more_than_its_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An array far too large is refused by what the archive declares, before it is inflated."""
    path = tmp_path / "channel.npz"
    np.savez_compressed(path, **{name: np.zeros(10**7)})
    monkeypatch.setattr(files, "_inflated", None)
    with pytest.raises(FormatError, match=rf"channel\.npz: entry '{name}': 80000128 of .*at most"):
        read_channels(path, SHAPE)


def test_what_lies_beside_a_channel_is_not_read(tmp_path: Path) -> None:
    """A file may hold much besides, such as positions and paths."""
    path, channel = tmp_path / "channel.npz", np.ones(SHAPE, complex)
    np.savez_compressed(path, channel=channel, paths=np.zeros(10**6))
    assert (read_channels(path, SHAPE) == channel).all()
    np.savez_compressed(path, paths=np.zeros(10**6))
    with pytest.raises(FormatError, match=r"no variable 'channel'.*found 'paths'"):
        read_channels(path, SHAPE)


def test_elements_of_hdf5_are_numbers(tmp_path: Path) -> None:
    """An element can be of any size: its type is looked at before anything is read."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "channel.mat"
    wide = np.dtype([("real", "f8", (10**8,)), ("imag", "f8", (10**8,))])
    for kind in ("S1000000000", wide):
        with h5py.File(path, "w", userblock_size=512) as file:
            file.create_dataset("channel", SHAPE[::-1], np.dtype(kind), chunks=(1, 1, 1, 1))
        with open(path, "r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
        with pytest.raises(FormatError, match=r"variable 'channel' is of type .*expected numbers"):
            read_channels(path, SHAPE)


def test_ctrl_c_waits_for_an_import(tmp_path: Path) -> None:
    """Half a library would be left behind: the import ends first, then the command does."""
    (tmp_path / "library.py").write_text(
        "import os, signal, time\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(0.2)\n"
        "print('whole', flush=True)\n"
    )
    script = (
        "import time\n"
        "import finecast.cli.main as line\n"
        "def command(**_):\n"
        "    import library\n"
        "    time.sleep(60)\n"
        "line.cli.main = command\n"
        "line.main()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment,
        preexec_fn=interruptible, timeout=50, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (130, "whole\n")
    assert ended.stderr == "finecast: interrupted\n"
