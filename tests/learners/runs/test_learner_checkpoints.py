"""Checkpoints: whole or not at all, and every bad one refused in one line."""

from __future__ import annotations

import json
import os

import pytest
import torch

from finecast.learners.runs.checkpoints import (
    Checkpoint,
    read_checkpoint,
    remove_state,
    states,
    write_checkpoint,
)
from finecast.problem.files import FormatError


def checkpoint(step: int = 3, value: float = 1.0) -> Checkpoint:
    """A small checkpoint."""
    tensors = {"policy/w": torch.full((2, 3), value), "generator/state": torch.arange(5).byte()}
    return Checkpoint("maasn-da", {"width": 8}, {"steps": 9}, step, 1.5, 1.0, tensors)


def test_written_and_read_back(tmp_path):
    """Every field and tensor comes back, with its type."""
    path = write_checkpoint(tmp_path, "policy", checkpoint())
    found = read_checkpoint(path)
    # It is as old as the time before the joint rule, which its options do not name.
    options = {"width": 8, "keep": "in-turn"}
    assert (found.learner, found.step, found.options) == ("maasn-da", 3, options)
    for name, tensor in checkpoint().tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_a_new_policy_replaces_the_old_one(tmp_path):
    """Afterwards there is one header and the tensors it names."""
    write_checkpoint(tmp_path, "policy", checkpoint(3))
    write_checkpoint(tmp_path, "policy", checkpoint(5, value=2.0))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "policy-00000005.safetensors",
        "policy.json",
    ]
    assert read_checkpoint(tmp_path / "policy.json").tensors["policy/w"][0, 0] == 2


@pytest.mark.parametrize("killed", [1, 2])
def test_a_write_that_fails_leaves_the_old_one(tmp_path, monkeypatch, killed):
    """A full disk at the tensors or at the header: one line, and the old policy still reads."""
    write_checkpoint(tmp_path, "policy", checkpoint(3))
    calls = []
    real = os.fsync

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == killed:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FormatError, match="No space left on device"):
        write_checkpoint(tmp_path, "policy", checkpoint(5, value=2.0))
    assert read_checkpoint(tmp_path / "policy.json").tensors["policy/w"][0, 0] == 1


def test_states_are_sorted_and_removed(tmp_path):
    """States stand oldest first; a removed one leaves nothing."""
    for step in (20, 3):
        write_checkpoint(tmp_path, f"state-{step:08d}", checkpoint(step))
    assert [path.stem for path in states(tmp_path)] == ["state-00000003", "state-00000020"]
    remove_state(states(tmp_path)[0])
    assert len(list(tmp_path.iterdir())) == 2


def spoil(path, **changes):
    """Change the header of a checkpoint."""
    header = json.loads(path.read_text())
    path.write_text(json.dumps({**header, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "something"}, "is no finecast-checkpoint"),
        ({"version": 99}, "version 99, this finecast reads up to 1"),
        ({"step": "3"}, "step is '3', expected a whole number"),
        ({"tensors": "../../etc/passwd"}, "expected a file name beside it"),
        ({"tensors": "gone.safetensors"}, "no such file"),
        ({"sha256": "0"}, "truncated or changed"),
    ],
)
def test_bad_headers(tmp_path, changes, message):
    """Foreign, newer, mistyped, pointing elsewhere: one line that names the file."""
    path = write_checkpoint(tmp_path, "policy", checkpoint())
    spoil(path, **changes)
    with pytest.raises(FormatError, match=message) as error:
        read_checkpoint(path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_tensors(tmp_path):
    """Half a safetensors file is told by its hash; a foreign one with the right hash too."""
    path = write_checkpoint(tmp_path, "policy", checkpoint())
    tensors = tmp_path / "policy-00000003.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:50])
    with pytest.raises(FormatError, match="truncated or changed"):
        read_checkpoint(path)
    tensors.write_bytes(b"not at all")
    import hashlib

    spoil(path, sha256=hashlib.sha256(b"not at all").hexdigest())
    with pytest.raises(FormatError, match="is no safetensors file"):
        read_checkpoint(path)
