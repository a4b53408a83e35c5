"""Measured channels from `.npz` and `.mat`: what is read exactly, and what is refused in one line.

`scipy.io.savemat` is the independent writer of MATLAB files.
"""

import struct
import sys
import tracemalloc
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from finecast.problem.files import FormatError
from finecast.problem.measured import read_channels

SHAPE = (2, 3, 2, 4)


def channel(shape=SHAPE):
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def save(path, compressed=False, **variables):
    if path.suffix == ".npz":
        np.savez(path, **variables)
    else:
        savemat(path, variables, do_compression=compressed)
    return path


def refusal(path, shape=SHAPE):
    """The one line with which a file is refused; it begins with the file."""
    with pytest.raises(FormatError) as caught:
        read_channels(path, shape)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["a.npz", "a.mat", "A.MAT"])
def test_complex_channels(tmp_path, name, compressed):
    """Complex numbers come back exactly, indices in order, whatever else is in the file."""
    other = {"carrier": 3.5, "site": np.array(["north", "south"]), "big": np.ones((300, 300))}
    path = save(tmp_path / name, compressed, **other, channel=channel())
    read = read_channels(path, SHAPE)
    assert read.dtype == np.complex128
    np.testing.assert_array_equal(read, channel())
    with pytest.raises(ValueError, match="read-only"):
        read[0] = 0.0


@pytest.mark.parametrize("name", ["a.npz", "a.mat"])
def test_parts_and_real_channels(tmp_path, name):
    """The pair of real arrays, in any number type, and a real channel."""
    real, imag = np.arange(48, dtype=np.float32).reshape(SHAPE), np.ones(SHAPE, dtype=np.int16)
    pair = save(tmp_path / name, channel_real=real, channel_imag=imag)
    np.testing.assert_array_equal(read_channels(pair, SHAPE), real + 1j)
    alone = save(tmp_path / name, channel=real)
    np.testing.assert_array_equal(read_channels(alone, SHAPE), real)


@pytest.mark.parametrize("shape", [(2, 3, 2, 1), (2, 3, 1, 1), (2, 1, 1, 1), (1, 1, 1, 1)])
def test_matlab_drops_trailing_ones(tmp_path, shape):
    """MATLAB stores (2, 3, 1, 1) as 2 x 3: one antenna, one node come back."""
    stored = channel(shape)
    while stored.ndim > 2 and stored.shape[-1] == 1:
        stored = stored[..., 0]
    path = save(tmp_path / "a.mat", channel=stored)
    np.testing.assert_array_equal(read_channels(path, shape), channel(shape))


def test_ones_elsewhere_are_not_dropped(tmp_path):
    """(1, 3, 2, 4) is not (3, 2, 4): a missing slot axis is an error and not a guess."""
    path = save(tmp_path / "a.mat", channel=channel((3, 2, 4)))
    assert refusal(path, (1, 3, 2, 4)) == (
        "variable 'channel' has shape (3, 2, 4), expected (T, K, N, A) = (1, 3, 2, 4)"
    )


def element(kind, data, order):
    """One element of a MATLAB file, padded to 8 bytes; a short one in the small format."""
    if 0 < len(data) <= 4:
        return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matlab_file(order, *numbers, declared=None):
    """Header and matrix: `channel` of shape (1, 2, 1, 2), double, its parts the given elements."""
    matrix = (
        element(6, struct.pack(f"{order}II", 6 | (len(numbers) - 1) << 11, 0), order)
        + element(5, struct.pack(f"{order}4i", 1, 2, 1, 2), order)
        + element(1, b"channel", order)
        + b"".join(numbers)
    )
    matrix = struct.pack(f"{order}II", 14, declared or len(matrix)) + matrix
    mark = struct.pack(f"{order}HH", 0x0100, 0x4D49)
    return b"MATLAB 5.0 MAT-file".ljust(124) + mark, matrix


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_matlab_writes_itself(tmp_path, order):
    """MATLAB stores doubles that are small integers as bytes, in small elements, either endian.

    The file is built by hand from the published format: (1, 2, 1, 2) of 1, 2, 3, 4 in column
    order is h[0, k, 0, a] = 1 + k + 2 a.
    """
    path = tmp_path / "a.mat"
    for compress in (False, True):
        header, matrix = matlab_file(order, element(2, bytes([1, 2, 3, 4]), order))
        if compress:
            packed = zlib.compress(matrix)
            matrix = struct.pack(f"{order}II", 15, len(packed)) + packed
        path.write_bytes(header + matrix)
        np.testing.assert_array_equal(
            read_channels(path, (1, 2, 1, 2))[0, :, 0, :], [[1, 3], [2, 4]]
        )


def test_a_deflated_bomb_is_not_inflated(tmp_path):
    """A variable that declares 3 GB and inflates to 10 MB is refused at the expected size."""
    header, matrix = matlab_file("<", b"", declared=3 * 2**30)
    packed = zlib.compress(matrix + struct.pack("<II", 2, 3 * 2**30 - 64) + bytes(10**7))
    path = tmp_path / "a.mat"
    path.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    tracemalloc.start()
    try:
        assert "is truncated" in refusal(path, (1, 2, 1, 2))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 10**6


@pytest.mark.parametrize("name", ["a.npz", "a.mat"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1j * np.inf])
def test_numbers_that_are_none(tmp_path, name, bad):
    """NaN and infinities are named with their place."""
    values = channel()
    values[1, 0, 1, 2] = bad
    message = refusal(save(tmp_path / name, channel=values))
    assert message.startswith("variable channel[1, 0, 1, 2]: ")
    assert "(T, K, N, A) = (2, 3, 2, 4)" in message


@pytest.mark.parametrize("name", ["a.npz", "a.mat"])
def test_other_variables_and_shapes(tmp_path, name):
    """Another shape, a missing variable, half of the pair, text in place of numbers."""
    path = tmp_path / name
    expected = "expected (T, K, N, A) = (2, 3, 2, 4)"
    save(path, channel=channel((2, 3, 4, 2)))
    assert refusal(path) == f"variable 'channel' has shape (2, 3, 4, 2), {expected}"
    save(path, channel_real=np.ones(SHAPE), channel_imag=np.ones((2, 3)))
    assert refusal(path) == f"variable 'channel_imag' has shape (2, 3), {expected}"
    save(path, H=np.ones(SHAPE))
    assert "has no variable 'channel'" in refusal(path)
    assert "(2, 3, 2, 4); found 'H'" in refusal(path)
    save(path, channel_real=np.ones(SHAPE))
    assert "the pair 'channel_real', 'channel_imag'" in refusal(path)
    save(path, channel_real=channel(), channel_imag=np.ones(SHAPE))
    if name == "a.npz":
        assert "channel_real: elements are complex128, expected float" in refusal(path)
    else:
        assert "channel_real" in refusal(path)
    save(path, channel=np.full(SHAPE, "x"))
    assert "channel" in refusal(path)
    assert "expected" in refusal(path)


def test_pickles_are_not_loaded(tmp_path):
    """Neither objects in an `.npz` nor cells and structs in a `.mat`."""
    objects = np.empty(SHAPE, dtype=object)
    np.savez(tmp_path / "a.npz", channel=objects)
    assert "pickled objects, which are never loaded" in refusal(tmp_path / "a.npz")
    path = save(tmp_path / "a.mat", channel=np.full(SHAPE, 1.0, dtype=object))
    assert refusal(path) == "variable 'channel' is of class cell, expected numbers"
    save(path, channel={"field": 1.0})
    assert refusal(path) == "variable 'channel' is of class struct, expected numbers"


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".csv"])
def test_no_file(tmp_path, suffix):
    """A missing file and a directory are called so, whatever their name."""
    path = tmp_path / f"a{suffix}"
    assert refusal(path) == "no such file"
    path.mkdir()
    assert refusal(path) == "is a directory, expected a file"


def test_other_kinds_of_file(tmp_path):
    """Another suffix and MATLAB 4 say what to do; an `.npy` in disguise is no archive."""
    path = tmp_path / "a.csv"
    path.write_text("1,2")
    assert refusal(path) == "ends in '.csv', expected '.npz' or '.mat'"
    path = tmp_path / "a.mat"
    savemat(path, {"channel": np.ones((2, 3))}, format="4")
    assert refusal(path) == "is not a MATLAB file of version 5 to 7, save it with -v7"
    path.write_bytes(b"")
    assert "save it with -v7" in refusal(path)
    with (tmp_path / "a.npz").open("wb") as stream:
        np.save(stream, channel())
    assert "not a readable .npz archive" in refusal(tmp_path / "a.npz")


@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_matlab_file(tmp_path, compressed):
    """Cut anywhere, a file with one variable is refused and never half read."""
    path = save(tmp_path / "a.mat", compressed, channel=channel())
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refusal(path)


def test_truncated_npz_file(tmp_path):
    """The same for an archive."""
    path = save(tmp_path / "a.npz", channel=channel())
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        refusal(path)


GOOD = element(2, bytes([1, 2, 3, 4]), "<")


@pytest.mark.parametrize(
    ("numbers", "reason"),
    [
        ([element(176, bytes(32), "<")], "numbers of type 176, which does not exist"),
        ([element(9, bytes(24), "<")], "3 numbers where there must be 4"),
        ([element(9, bytes(28), "<")], "buffer size must be a multiple of element size"),
        ([GOOD, element(2, bytes([5]), "<")], "1 numbers where there must be 4"),
        ([GOOD, b""], "unpack_from requires"),
        ([struct.pack("<I", 5 << 16 | 2) + bytes(8)], "is of no known type"),
    ],
)
def test_numbers_that_do_not_fit(tmp_path, numbers, reason):
    """A number type that does not exist, too few numbers, a part of a number, no imaginary part.

    The first is what other readers leave their table with, and crash.
    """
    path = tmp_path / "a.mat"
    path.write_bytes(b"".join(matlab_file("<", *numbers)))
    assert refusal(path, (1, 2, 1, 2)).startswith("damaged MATLAB file: ")
    assert reason in refusal(path, (1, 2, 1, 2))


def test_deflated_without_its_checksum(tmp_path):
    """All numbers are there but the checksum is not: they cannot be trusted."""
    header, matrix = matlab_file("<", GOOD)
    packed = zlib.compress(matrix)[:-4]
    path = tmp_path / "a.mat"
    path.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    assert refusal(path, (1, 2, 1, 2)) == "damaged MATLAB file: a compressed variable is truncated"


@pytest.fixture(scope="module")
def matlab_files(tmp_path_factory):
    """A file to damage, and the content of four good ones."""
    path = tmp_path_factory.mktemp("damaged") / "a.mat"
    contents = []
    for compressed in (False, True):
        for other in ({}, {"cell": np.array([["a", 1]], dtype=object), "struct": {"x": 1.0}}):
            save(path, compressed, **other, channel=channel())
            contents.append(path.read_bytes())
    return path, contents


@settings(max_examples=300, deadline=None)
@given(
    which=st.integers(0, 3),
    damage=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=5),
)
def test_damaged_matlab_file(matlab_files, which, damage):
    """Bytes changed anywhere: channels of the right shape, or one line; never anything else."""
    path, contents = matlab_files
    content = bytearray(contents[which])
    for position, value in damage:
        content[position % len(content)] = value
    path.write_bytes(content)
    try:
        assert read_channels(path, SHAPE).shape == SHAPE
    except FormatError as error:
        assert "\n" not in str(error)  # noqa: PT017


# MATLAB 7.3 (HDF5): written here by h5py, with the head and the user block of MATLAB's files.

HEAD_73 = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
RECORD = np.dtype([("real", "f8"), ("imag", "f8")])


def save_73(path, head=HEAD_73, **variables):
    """Write variables as `save -v7.3` does: dimensions reversed, complex numbers as records."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in variables.items():
            array = np.asarray(array)
            if np.iscomplexobj(array):
                records = np.empty(array.shape, RECORD)
                records["real"], records["imag"] = array.real, array.imag
                array = records
            file.create_dataset(name, data=array.T)
        file.create_group("#refs#")
    with path.open("r+b") as stream:
        stream.write(head)
    return path


def test_matlab_7_3(tmp_path):
    """Complex, in parts and real; other variables and MATLAB's own groups do no harm."""
    path = save_73(tmp_path / "a.mat", channel=channel(), carrier=3.5)
    np.testing.assert_array_equal(read_channels(path, SHAPE), channel())
    parts = {"channel_real": channel().real, "channel_imag": channel().imag}
    np.testing.assert_array_equal(
        read_channels(save_73(tmp_path / "b.mat", **parts), SHAPE), channel()
    )
    real = np.arange(48.0).reshape(SHAPE).astype(np.float32)
    for head in (HEAD_73, b""):  # hdf5storage writes no head
        path = save_73(tmp_path / "c.mat", head, channel=real)
        np.testing.assert_array_equal(read_channels(path, SHAPE), real)
    one = save_73(tmp_path / "d.mat", channel=channel((2, 3)))
    np.testing.assert_array_equal(read_channels(one, (2, 3, 1, 1))[..., 0, 0], channel((2, 3)))


@pytest.mark.parametrize("real", ["real", "re", "r"])
def test_complex_numbers_in_parts(tmp_path, real):
    """As records in any order, in all kinds of files, and as a struct of MATLAB 7.3."""
    imag = {"real": "imag", "re": "im", "r": "i"}[real]
    for names in ((real, imag), (imag, real)):
        records = np.empty(SHAPE, [(name, "f8") for name in names])
        records[real], records[imag] = channel().real, channel().imag
        np.savez(tmp_path / "a.npz", channel=records)
        np.testing.assert_array_equal(read_channels(tmp_path / "a.npz", SHAPE), channel())
        path = save_73(tmp_path / "a.mat", channel=records)
        np.testing.assert_array_equal(read_channels(path, SHAPE), channel())
    with h5py.File(path, "w") as file:
        file["channel/" + real], file["channel/" + imag] = channel().real.T, channel().imag.T
    np.testing.assert_array_equal(read_channels(path, SHAPE), channel())
    with h5py.File(path, "a") as file:
        del file["channel/" + imag]
        file["channel/" + imag] = h5py.ExternalLink("other.mat", "channel")
    assert refusal(path) == f"variable {imag!r} is no array, expected numbers"


def test_what_would_be_dropped_or_mistaken_is_refused(tmp_path):
    """A real part beside `channel`, and dimensions in the order of h5py instead of MATLAB's."""
    path = tmp_path / "a.npz"
    np.savez(path, channel=channel().real, channel_imag=channel().imag)
    assert refusal(path).startswith("has 'channel' and 'channel_imag': give one complex 'channel'")
    path = tmp_path / "a.mat"
    with h5py.File(path, "w") as file:
        file["channel"] = channel()
    assert refusal(path).endswith("its dimensions are in the reverse order")


def test_bad_matlab_7_3_is_refused(tmp_path):
    """Another shape (before it is read), class, link or name; NaN; any cut of the file."""
    path = tmp_path / "a.mat"
    assert "has shape (2, 3, 2, 5), expected" in refusal(
        save_73(path, channel=channel((2, 3, 2, 5)))
    )
    assert "has no variable 'channel'" in refusal(save_73(path, h=channel()))
    assert "inf" in refusal(save_73(path, channel=np.full(SHAPE, np.inf)))
    with h5py.File(path, "w") as file:
        file.create_group("channel")
    assert refusal(path) == "variable 'channel' is no array, expected numbers"
    with h5py.File(path, "w") as file:
        file["channel"] = h5py.ExternalLink("other.mat", "channel")
    assert refusal(path) == "variable 'channel' is no array, expected numbers"
    with h5py.File(path, "w") as file:
        file.create_dataset("channel", SHAPE[::-1], "f8", external=[(tmp_path / "raw", 0, 8 * 48)])
    assert refusal(path) == "variable 'channel' has no numbers in the file"
    with h5py.File(path, "w") as file:
        file.create_dataset("channel", SHAPE[::-1], h5py.string_dtype())
    assert "is of type object, expected numbers" in refusal(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("channel", (2**20, 2**20, 2**10, 1), "f8", chunks=True)
    assert "expected (T, K, N, A)" in refusal(path)
    whole = save_73(path, channel=channel()).read_bytes()
    for length in range(1, len(whole), 97):
        path.write_bytes(whole[:length])
        refusal(path)


def test_matlab_7_3_without_the_extra(tmp_path, monkeypatch):
    """One line that says what to save or install."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    for head in (HEAD_73, b""):
        path = save_73_or_head(tmp_path / "a.mat", head)
        assert refusal(path) == (
            "is a MATLAB 7.3 (HDF5) file: save it with -v7, or pip install 'finecast[matlab]'"
        )


def save_73_or_head(path, head):
    """Write what is enough to tell the kind of file."""
    start = head.ljust(512, b"\0") if head else b""
    path.write_bytes(start + b"\x89HDF\r\n\x1a\n" + bytes(600))
    return path
