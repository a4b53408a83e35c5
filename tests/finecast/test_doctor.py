"""The self-test passes here, and says so when something is wrong."""

import json
import subprocess
import sys

import pytest

from finecast import doctor


def test_the_self_test_passes() -> None:
    checks = list(doctor.self_test())
    assert len(checks) == 4
    assert [check for check in checks if not check.passed] == []


def test_what_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TINY_OPTIMUM_S", 0.095)
    assert not next(iter(doctor.self_test())).passed

    def broken() -> tuple[bool, str]:
        raise OSError("no disk")

    monkeypatch.setattr(doctor, "_files", broken)
    assert list(doctor.self_test())[-1] == doctor.Check("files", False, "OSError: no disk")


def test_the_command_says_all_of_it() -> None:
    command = [
        sys.executable,
        "-c",
        "from finecast.cli.main import main; main()",
        "doctor",
        "--json",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    said = json.loads(ran.stdout)
    assert said["passed"]
    assert {"numpy", "torch", "finecast"} <= set(said["versions"])
    assert set(said["extras"]) == set(doctor.EXTRAS)
