"""Traces of requests from CSV: what is read, and what is refused with which words."""

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from finecast.problem.files import FormatError
from finecast.problem.trace import read_trace


@pytest.fixture
def trace(tmp_path):
    """Return a function that writes a trace and reads it as 3 slots, 2 users, 4 models."""

    def read(content, **options):
        path = tmp_path / "trace.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_trace(path, 3, 2, 4, **options).tolist()

    return read


def test_missing_lines_are_no_requests(trace):
    """Three requests, in no order, by hand; all else is -1."""
    text = "slot,user,model\n2,0,3\n0,1,0\n0,0,2\n"
    assert trace(text) == [[2, 0], [-1, -1], [3, -1]]


@pytest.mark.parametrize(
    "text",
    [
        "model,slot,user\n3,1,0\n",
        "\ufeffslot,user,model\r\n1,0,3\r\n",
        " slot , user , model \n\n1, 0 ,3\n\n",
        '"slot","user","model"\n"1","0","3"',
    ],
)
def test_forms_of_csv(trace, text):
    """Columns in any order, byte order mark, Windows line ends, blanks, quotes, no last newline."""
    assert trace(text) == [[-1, -1], [3, -1], [-1, -1]]


def test_only_a_header_means_no_requests(trace):
    """A trace in which nobody requests anything is a trace."""
    assert trace("slot,user,model\n") == [[-1, -1]] * 3


def test_models_by_name(trace):
    """Names and numbers may be mixed; a name that looks like a number is a name."""
    names = ["vit", "3", "res, net", "llama"]
    text = 'slot,user,model\n0,0,llama\n0,1,3\n1,0,"res, net"\n1,1,0\n'
    assert trace(text, model_names=names) == [[3, 1], [2, 0], [-1, -1]]


@given(
    requests=arrays(
        np.int64, st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.integers(-1, 6)
    ),
    random=st.randoms(use_true_random=False),
)
def test_round_trip(tmp_path_factory, requests, random):
    """Requests written by the csv module, lines and columns shuffled, come back exactly."""
    columns = random.sample(["slot", "user", "model"], 3)
    rows = [{"slot": t, "user": k, "model": m} for (t, k), m in np.ndenumerate(requests) if m >= 0]
    random.shuffle(rows)
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    read = read_trace(path, *requests.shape, 7)
    assert read.dtype == np.int64
    np.testing.assert_array_equal(read, requests)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1 is empty, the first line must name the columns slot, user, model"),
        ("\n0,0,0\n", "line 1 is empty, the first line must name"),
        ("0,0,0\n", "line 1: unknown column '0', the first line must name"),
        ("slot;user;model\n", "line 1: unknown column 'slot;user;model', the first line"),
        ("slot,user,model,time\n", "line 1: unknown column 'time', the first line"),
        ("slot,user\n", "line 1: column 'model' is missing, the first line"),
        ("slot,user,model,user\n", "line 1: column 'user' stands twice, the first line"),
        ("slot,user,model\n0,0\n", "line 2: 2 fields, expected 3"),
        ("slot,user,model\n0,0,0,0\n", "line 2: 4 fields, expected 3"),
        (
            "slot,user,model\n0,0,0\n3,0,0\n",
            "line 3, field 'slot': '3' is not allowed, must be an integer from 0 to 2",
        ),
        ("slot,user,model\n0,-1,0\n", "line 2, field 'user': '-1' is not allowed, must be an"),
        (
            "slot,user,model\n0,1,4\n",
            "line 2, field 'model': '4' is not allowed, must be an integer from 0 to 3",
        ),
        ("slot,user,model\n0,1,-1\n", "line 2, field 'model': '-1' is not allowed"),
        ("model,user,slot\n0,1,1.5\n", "line 2, field 'slot': '1.5' is not allowed"),
        ("slot,user,model\n0,nan,1\n", "line 2, field 'user': 'nan' is not allowed"),
        ("slot,user,model\n0,,1\n", "line 2, field 'user': '' is not allowed"),
        ("slot,user,model\n0,1_0,1\n", "line 2, field 'user': '1_0' is not allowed"),
        ("slot,user,model\n0,0,vit\n", "line 2, field 'model': 'vit' is not allowed"),
        ('slot,user,model\n0,0,"a\nb"\n', "line 3, field 'model': 'a\\nb' is not allowed"),
        ("slot,user,model\n0,0," + "9" * 5000, f"line 2, field 'model': '{'9' * 40}...' is not"),
        (
            "slot,user,model\n0,1,0\n\n0,1,2\n",
            "line 4: user 1 has a second request in slot 0, one is allowed",
        ),
        ('slot,user,model\n0,0,"1', "line 2: not valid CSV: unexpected end of data"),
        ("slot,user,model\n0,0," + "x" * 200_000, "line 2: not valid CSV: field larger than"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "not a CSV text in UTF-8: invalid start byte"),
        (bytes(1000), f"line 1: unknown column '{chr(92) + 'x00'}"),
    ],
)
def test_bad_traces_are_refused(trace, content, message):
    """One line each: path, line number, field, value and what is allowed."""
    with pytest.raises(FormatError) as caught:
        trace(content)
    text = str(caught.value)
    assert f"trace.csv: {message}" in text
    assert "\n" not in text
    assert len(text) < 400


def test_an_unknown_name_says_that_names_are_allowed(trace):
    """With names the line says so: a misspelt model must not look like a wrong number only."""
    with pytest.raises(FormatError, match=r"'vti' .* from 0 to 3 or the name of a model$"):
        trace("slot,user,model\n0,0,vti\n", model_names=["vit", "a", "b", "c"])


def test_what_is_no_file_is_refused(tmp_path):
    """A missing file and a directory are told apart."""
    with pytest.raises(FormatError, match=r"none\.csv: no such file"):
        read_trace(tmp_path / "none.csv", 1, 1, 1)
    with pytest.raises(FormatError, match="is a directory, expected a file"):
        read_trace(tmp_path, 1, 1, 1)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["a", "b"], "2 names, expected 4"), (["a", "b", "c", "a"], "a name stands twice")],
)
def test_bad_names_are_refused(trace, names, message):
    """A name that stands for no model, or for two, would read a wrong request in silence."""
    with pytest.raises(ValueError, match=f"^model_names: {message}"):
        trace("slot,user,model\n", model_names=names)
