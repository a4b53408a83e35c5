"""MATLAB files hold the arrays of an instance and the decisions of a solution, exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.io import loadmat

from finecast.cli.export import command
from finecast.problem.files import FormatError
from finecast.problem.instance import read_instance, write_instance
from finecast.problem.matlab import write_mat
from finecast.problem.scenario import read_scenario
from finecast.problem.solution import write_solution
from finecast.solvers.solve import solve


def test_round_trip(tmp_path: Path) -> None:
    """Every array comes back through scipy.io.loadmat as it was."""
    instance = read_scenario("tiny").with_(slots=2).generate(3)
    solution = solve(instance, "greedy").solution
    assert solution is not None
    write_instance(tmp_path / "a.npz", instance)
    write_solution(tmp_path / "s.npz", solution)
    for name in ("a", "s"):
        arguments = [str(tmp_path / f"{name}.npz"), "-o", str(tmp_path / f"{name}.mat")]
        CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)

    read = loadmat(tmp_path / "a.mat")
    instance = read_instance(tmp_path / "a.npz")
    for name in ("requests", "channel_estimate", "channel_error", "channel_true"):
        np.testing.assert_array_equal(read[name], getattr(instance, name))
    np.testing.assert_array_equal(read["storage"].ravel(), instance.network.storage)
    np.testing.assert_array_equal(read["model_blocks"], instance.library.model_blocks)
    assert [cell[0][0] for cell in read["block_names"]] == list(instance.library.block_names)
    assert read["instance_hash"][0] == instance.content_hash

    read = loadmat(tmp_path / "s.mat")
    np.testing.assert_array_equal(read["cache"], solution.cache)
    np.testing.assert_array_equal(read["source"], solution.source)
    for t, broadcast in enumerate(solution.broadcasts):
        messages = read["message_slot"].ravel() == t
        modes = read["mode_slot"].ravel() == t
        sent = modes[read["sent_mode"].ravel()]
        np.testing.assert_array_equal(read["message_users"][messages], broadcast.users)
        np.testing.assert_array_equal(read["message_blocks"][messages], broadcast.blocks)
        np.testing.assert_array_equal(read["mode_duration"].ravel()[modes], broadcast.duration)
        np.testing.assert_array_equal(read["sent_beam"][sent], broadcast.beam)
        first = np.flatnonzero(messages)[0]
        np.testing.assert_array_equal(read["sent_message"].ravel()[sent] - first, broadcast.message)


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another ending, and an array too large for the form, in one line; nothing is written."""
    instance = read_scenario("tiny").generate(0)
    arguments = ["tiny", "-o", str(tmp_path / "a.csv")]
    with pytest.raises(FormatError, match=r"has the ending '\.csv', expected '\.mat'"):
        CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    monkeypatch.setattr("finecast.problem.matlab.MOST_BYTES", 10)
    with pytest.raises(FormatError, match="do not fit into a MATLAB file"):
        write_mat(tmp_path / "a.mat", instance)
    assert not list(tmp_path.iterdir())
