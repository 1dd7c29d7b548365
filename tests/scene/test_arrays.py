"""Arrays of .npy and .npz files that promise more than they hold, or hold something else."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from infonerf.scene.arrays import read_array, read_arrays


def packed(array) -> bytes:
    target = io.BytesIO()
    np.save(target, array, allow_pickle=True)
    return target.getvalue()


def header(shape, kind: str = "<f8") -> bytes:
    target = io.BytesIO()
    np.lib.format.write_array_header_1_0(target, {"descr": kind, "fortran_order": False, "shape": shape})
    return target.getvalue()


@pytest.mark.parametrize("array", [np.arange(12.0).reshape(3, 4), np.arange(6, dtype=">i2").reshape(2, 3),
                                   np.arange(6.0).reshape(2, 3).T, np.float32(7), np.zeros((0, 17))])  # fmt: skip
def test_numbers_are_read_as_they_are(tmp_path, array):
    (tmp_path / "a.npy").write_bytes(packed(array))
    np.savez_compressed(tmp_path / "a.npz", one=array, two=array)
    [found] = read_arrays(tmp_path / "a.npz", {"two"}.__contains__, 10_000).values()
    for read in (read_array(tmp_path / "a.npy"), found):
        np.testing.assert_array_equal(read, array)
        assert read.dtype == np.float64 and read.flags.writeable


@pytest.mark.parametrize(("content", "message"), [
    (header((2**40, 4)) + bytes(64), r"has 8 numbers, expected those of shape \(1099511627776, 4\), as its"),
    (header((2**62, 2**62)), "as its header says"),
    (header((-1, 4)) + bytes(64), r"of shape \(-1, 4\)"),
    (header((4,), "|V1000000000"), "is of type .*, expected numbers"),
    (header((4,), "<U9") + bytes(200), "is of type <U9, expected numbers"),
    (packed(np.array([{"a": 1}], dtype=object)), "found pickled objects, which may be programs and are never loaded"),
    (b"\x80\x04K\x01.", "found pickled objects"),
    (b"PK\x03\x04", "found an archive"),
    (b"\x93NUMPY\x01\x00\x04\x00(1)L", "header"),
    (b"\x93NUMPY\x09\x09", "9"),
    (b"", "found no array"),
])  # fmt: skip
def test_what_promises_more_than_it_holds_takes_no_memory(tmp_path, content, message):
    (tmp_path / "a.npy").write_bytes(content)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", content)
    tracemalloc.start()
    with pytest.raises(Exception, match=message):
        read_array(tmp_path / "a.npy")
    with pytest.raises(Exception, match=message):
        read_arrays(tmp_path / "a.npz", {"a"}.__contains__, 10_000)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_an_array_that_unpacks_to_more_than_is_wanted(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(10**6), b=np.ones(3))
    assert read_arrays(tmp_path / "a.npz", {"b"}.__contains__, 10_000)["b"].tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="a has 8000128 bytes, expected at most 10000"):
        read_arrays(tmp_path / "a.npz", {"a"}.__contains__, 10_000)
