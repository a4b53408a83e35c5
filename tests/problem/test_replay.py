"""Traces with time stamps: slots, users and models of ours, and the lines that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import finecast
from finecast.problem.files import FormatError
from finecast.problem.replay import read_replay

HEADER = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
)
ROWS = [
    (5, "s1", "ChatGPT"),
    (6, "s2", "GPT-4"),
    (14, "s1", "GPT-4"),
    (16, "s1", "ChatGPT"),  # a second one of s1 in slot 1
    (24.9, "s3", "GPT-4"),
    (25, "s4", "GPT-4"),
    (40, "s5", "ChatGPT"),
]
NAMES = ["a", "b", "c"]


def trace(folder: Path, rows: list[tuple[Any, ...]] = ROWS, header: str = HEADER) -> Path:
    file = folder / "trace.csv"
    lines = [f"{time},{session},1.5,{model},100,20,120,API log" for time, session, model in rows]
    file.write_text("\n".join([header, *lines]) + "\n")
    return file


def test_requests_fall_into_slots(tmp_path: Path) -> None:
    """Slots of 9 s from 5 s on; GPT-4 is asked for more often, so it is model 0."""
    found = read_replay(trace(tmp_path), 3, 4, NAMES, slot_s=9.0)
    assert found.models == {"GPT-4": 0, "ChatGPT": 1}
    assert found.requests.tolist() == [[1, 0, -1, -1], [0, -1, -1, -1], [-1, -1, 0, 0]]
    assert (found.lines, found.outside, found.unknown, found.second) == (7, 1, 0, 1)
    assert found.note() == (
        "trace: 5 of 7 requests; left out: 1 outside of the slots, 1 of a user with one in the "
        "same slot"
    )


def test_the_order_of_lines_does_not_matter(tmp_path: Path) -> None:
    whole = read_replay(trace(tmp_path), 3, 4, NAMES, slot_s=9.0)
    again = read_replay(trace(tmp_path, ROWS[::-1]), 3, 4, NAMES, slot_s=9.0)
    np.testing.assert_array_equal(again.requests, whole.requests)


def test_users_by_hash_are_the_same_in_every_part(tmp_path: Path) -> None:
    whole = read_replay(trace(tmp_path), 3, 50, NAMES, slot_s=9.0, who="hash")
    part = read_replay(trace(tmp_path, ROWS[4:]), 1, 50, NAMES, slot_s=9.0, start_s=23, who="hash")
    np.testing.assert_array_equal(part.requests[0] >= 0, whole.requests[2] >= 0)


def test_models_by_a_table_and_too_many_of_them(tmp_path: Path) -> None:
    found = read_replay(trace(tmp_path), 3, 4, NAMES, slot_s=9.0, models={"GPT-4": "c"})
    assert set(found.requests.ravel().tolist()) == {-1, 2}
    assert found.unknown == 2
    few = read_replay(trace(tmp_path), 3, 4, ["only"], slot_s=9.0)
    assert few.models == {"GPT-4": 0}
    for wrong in ("d", 3):
        with pytest.raises(ValueError, match=r"must be the name of a model of the library or a"):
            read_replay(trace(tmp_path), 3, 4, NAMES, slot_s=9.0, models={"GPT-4": wrong})


def test_other_columns_dates_and_no_sessions(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text(
        "model,when\nx,2026-08-01T12:00:00\ny,2026-08-01T12:00:09\nx,2026-08-01T12:00:01\n"
    )
    found = read_replay(
        file, 2, 5, NAMES, slot_s=5.0, columns=["when", "who", "model"], models={"x": 0, "y": 1}
    )
    assert found.requests.tolist() == [[0, 0, -1, -1, -1], [-1, -1, 1, -1, -1]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("soon", "s", "m"), "line 9, field 'Timestamp': 'soon' is not allowed, must be seconds"),
        (("nan", "s", "m"), "line 9, field 'Timestamp': 'nan' is not allowed"),
        ((1, "s", ""), "line 9, field 'Model' is empty"),
        ((1, "s", "m,m"), "line 9: 9 fields, expected 8"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: tuple[Any, ...], message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_replay(trace(tmp_path, [*ROWS, row]), 3, 4, NAMES, slot_s=9.0)
    assert "\n" not in str(caught.value)


def test_the_files_of_burstgpt(tmp_path: Path) -> None:
    """Its first files have no session; in the third, requests by the interface have an empty one.

    Times are whole numbers or have a decimal; fields may be quoted; lines may end as on Windows,
    and a byte order mark may stand first. A request without a session is a session of its own.
    """
    first = tmp_path / "BurstGPT_1.csv"
    first.write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n"
        "45,ChatGPT,1087,230,1317,Conversation log\n"
        "58,GPT-4,417,0,417,API log\n"
    )
    found = read_replay(first, 1, 9, NAMES, slot_s=60.0)
    assert found.requests.tolist() == [[0, 0, 1, *[-1] * 6]]
    third = tmp_path / "BurstGPT_3.csv"
    rows = [
        "19440110.0,a4f9,43,GPT-4,906,446,1352,Conversation log",
        '"19440111.0","",2,"ChatGPT",36,29,65,"API log"',
        "19440112.0,,2,ChatGPT,36,0,36,API log",
        '19440113.0,a4f9,8,"GPT-4",1779,123,1902,"Conversation log, the second"',
    ]
    third.write_bytes(("\ufeff" + "\r\n".join([HEADER, *rows]) + "\r\n").encode())
    found = read_replay(third, 1, 9, NAMES, slot_s=60.0)
    assert found.requests.tolist() == [[1, 0, 0, *[-1] * 6]]
    assert (found.lines, found.second, found.failed) == (4, 1, 0)
    assert found.models == {"ChatGPT": 0, "GPT-4": 1}
    # What failed may be left out. Then GPT-4 is asked for more often, and is model 0.
    kept = read_replay(third, 1, 9, NAMES, slot_s=60.0, answered="Response tokens")
    assert kept.requests.tolist() == [[0, 1, *[-1] * 7]]
    assert (kept.lines, kept.failed) == (4, 1)
    assert "left out: 1 failed, 1 of a user" in kept.note()


def test_what_failed_is_a_number(tmp_path: Path) -> None:
    """A column that is missing or has another text is one line; only failures are no requests."""
    with pytest.raises(FormatError, match="line 1: column 'Reply' is missing"):
        read_replay(trace(tmp_path), 3, 4, NAMES, slot_s=9.0, answered="Reply")
    with pytest.raises(FormatError, match="line 2, field 'Log Type': 'API log' is not allowed"):
        read_replay(trace(tmp_path), 3, 4, NAMES, slot_s=9.0, answered="Log Type")
    rows = "\n".join(f"{t},m,0" for t in range(3))
    (tmp_path / "failed.csv").write_text(f"Timestamp,Model,Response tokens\n{rows}\n")
    with pytest.raises(FormatError, match=r"has only failed requests \(3\)"):
        read_replay(tmp_path / "failed.csv", 3, 4, NAMES, slot_s=9.0, answered="Response tokens")


def test_a_bad_byte_is_one_line(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are said, wherever they stand in a long file."""
    good = b"".join(b"%d,m\n" % t for t in range(50_000))
    (tmp_path / "bytes.csv").write_bytes(b"Timestamp,Model\n" + good + b"7,\xff\n")
    with pytest.raises(FormatError, match="not a CSV text in UTF-8: invalid start byte"):
        read_replay(tmp_path / "bytes.csv", 3, 4, NAMES, slot_s=9.0)


def test_times_beyond_all_slots_overflow_nothing(tmp_path: Path) -> None:
    """Finite times of any size are outside of the slots, and nothing else."""
    found = read_replay(trace(tmp_path, [*ROWS, (1e308, "s", "m")]), 3, 4, NAMES, slot_s=1e-3)
    assert found.outside == 7


def test_a_trace_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="has no request, must have at least one line"):
        read_replay(trace(tmp_path, []), 3, 4, NAMES, slot_s=9.0)
    with pytest.raises(FormatError, match="none of its 7 requests counts: 7 lie outside of 3 slot"):
        read_replay(trace(tmp_path), 3, 4, NAMES, slot_s=9.0, start_s=100.0)
    with pytest.raises(FormatError, match="line 1: column 'Model' is missing"):
        read_replay(
            trace(tmp_path, header=HEADER.replace("Model", "Modell")), 3, 4, NAMES, slot_s=1
        )


def test_a_scenario_replays(tmp_path: Path) -> None:
    scenario = finecast.read_scenario("tiny").with_(
        {"slots": 3, "demand.trace": str(trace(tmp_path)), "demand.replay": {"slot_s": 9.0}}
    )
    instance, replay = scenario.generate(0), scenario.replayed()
    assert replay is not None
    np.testing.assert_array_equal(instance.requests, replay.requests)
    drawn = finecast.read_scenario("tiny").with_({"slots": 3}).generate(0)
    np.testing.assert_array_equal(instance.channel_estimate, drawn.channel_estimate)
    with pytest.raises(ValueError, match="needs the file of the trace, give 'trace' too"):
        finecast.read_scenario("tiny").with_({"demand.replay": {"slot_s": 9.0}})
