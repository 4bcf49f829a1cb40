"""Arrays come out of .npy and .npz files as they went in, in blocks; what is no array is named in one sentence."""

import io
import itertools
import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from withlogits.evaluation.files import BadFile, NoSuchArray, open_array
from withlogits.evaluation.files import array as files_array
from withlogits.tiles import cut


def whole(name, tiling=None, announce=None):
    """Read in blocks and put together again."""
    file = open_array(str(name))
    tiling = cut(file.shape, None, 5, file.fortran) if tiling is None else tiling
    array = np.empty(file.shape, file.dtype)
    for tile, block in zip(tiling, file.blocks(tiling, announce), strict=True):
        array[tile] = block
    return array


def stored(folder, array, form):
    path = folder / f"array.{form[:3]}"
    if form == "npy":
        np.save(path, array)
    else:
        (np.savez if form == "npz stored" else np.savez_compressed)(path, array=array, other=np.zeros(3))
        return f"{path}:array"
    return str(path)


FORMS = ["npy", "npz stored", "npz deflated"]
ARRAYS = {
    "vector": np.arange(17, dtype=np.float32),
    "matrix": np.arange(60.0).reshape(12, 5),
    "fortran": np.asfortranarray(np.arange(60).reshape(3, 4, 5)),
    "swapped": np.arange(12, dtype=">f4").reshape(4, 3),
    "half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "boolean": np.arange(9) % 2 == 0,
    "number": np.float32(2.5),
    "nothing": np.zeros((0, 4)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ARRAYS)
def test_what_was_saved_is_read(tmp_path, form, name):
    array = np.asarray(ARRAYS[name])
    read = whole(stored(tmp_path, array, form))
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("form", FORMS)
def test_blocks_across_the_grain_of_the_file(tmp_path, form):
    array = np.arange(120.0).reshape(4, 5, 6)
    for layout, axis, fortran in itertools.product("CF", (None, 0, 1, 2), (False, True)):
        name = stored(tmp_path, np.asarray(array, order=layout), form)
        tiling = cut(array.shape, axis, 8, fortran)
        heard = []
        np.testing.assert_array_equal(whole(name, tiling, heard.append), array)
        unpacks = form != "npy" and not tiling.is_sequential(layout == "F")
        assert bool(heard) == unpacks
        assert all("array.npz:array: unpacking 960 bytes into" in text for text in heard)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system takes no advice on its cache")
def test_a_file_that_is_large_beside_the_memory_is_not_kept_in_the_cache(tmp_path, monkeypatch):
    array = np.arange(100_000.0).reshape(1000, 100)
    path, advised = stored(tmp_path, array, "npy"), []
    blocks = cut(array.shape, None, 30_000, False)

    def advise(descriptor, begin, length, advice):
        advised.append((begin, length, advice))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    np.testing.assert_array_equal(whole(path, blocks), array)
    assert not advised
    monkeypatch.setattr(files_array, "memory", lambda: array.nbytes * 7.9)
    np.testing.assert_array_equal(whole(path, blocks), array)
    assert [advice for *_, advice in advised] == [os.POSIX_FADV_DONTNEED] * len(list(blocks))
    assert advised[-1][:2] == (0, os.path.getsize(path))


def test_how_much_memory_there_is(monkeypatch):
    assert 1 << 26 < files_array.memory() < 1 << 50
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert files_array.memory() == np.inf


def test_blocks_cannot_be_written_to_in_a_mapped_file(tmp_path):
    file = open_array(stored(tmp_path, np.zeros(3), "npy"))
    for block in file.blocks(cut(file.shape, None, 10)):
        with pytest.raises(ValueError, match="read-only"):
            block[0] = 1


def test_bytes_after_the_array_are_not_read(tmp_path):
    with (tmp_path / "two.npy").open("wb") as stream:
        np.save(stream, np.arange(5))
        np.save(stream, np.arange(7))
    np.testing.assert_array_equal(whole(tmp_path / "two.npy"), np.arange(5))


def test_version_2_headers_are_read(tmp_path):
    with (tmp_path / "array.npy").open("wb") as stream:
        np.lib.format.write_array(stream, np.arange(5), version=(2, 0))
    np.testing.assert_array_equal(whole(tmp_path / "array.npy"), np.arange(5))


def test_an_archive_with_one_member_needs_no_name(tmp_path):
    np.savez(tmp_path / "one.npz", np.arange(4))
    np.testing.assert_array_equal(whole(tmp_path / "one.npz"), np.arange(4))


def test_a_member_goes_by_its_name_in_the_archive_too(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.arange(4), b=np.arange(5))
    np.testing.assert_array_equal(whole(f"{tmp_path}/two.npz:b.npy"), np.arange(5))


def test_what_a_file_holds_is_told_by_its_content(tmp_path):
    np.savez(tmp_path / "one.npz", np.arange(4))
    (tmp_path / "one.npz").rename(tmp_path / "array.dat")
    np.testing.assert_array_equal(whole(tmp_path / "array.dat"), np.arange(4))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("missing.npy", "missing.npy cannot be read: No such file or directory"),
        (".", ". cannot be read: Is a directory"),
        ("two.npz", "two.npz holds 2 arrays: name one, as two.npz:a (a, b)"),
        ("two.npz:c", "two.npz holds no array 'c'; it holds a, b"),
        ("missing.npz:a", "missing.npz:a cannot be read: No such file or directory"),
    ],
)
def test_names_that_lead_nowhere(tmp_path, monkeypatch, name, text):
    monkeypatch.chdir(tmp_path)
    np.savez("two.npz", a=np.arange(4), b=np.arange(5))
    with pytest.raises(NoSuchArray) as raised:
        open_array(name)
    assert str(raised.value) == text


def saved(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def archived(method, content=None):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("a.npy", saved(np.arange(1000)) if content is None else content)
    return stream.getvalue()


def flipped(content, where):
    return content[:where] + bytes([content[where] ^ 255]) + content[where + 1 :]


MATRIX = saved(np.zeros((100, 10), np.float32))
BAD = {
    "empty": (b"", "it is empty (0 bytes)"),
    "text": (
        b"1.0, 2.0\n",
        "it is no .npy, .npz, .safetensors, .parquet, .zarr or HDF5 file: it begins with b'1.0, 2'",
    ),
    "pickle": (pickle.dumps([1]), "it is a pickle, which is never opened; save the array with numpy.save"),
    "truncated": (MATRIX[:-10], "it is truncated: shape (100, 10) of float32 takes 4,000 bytes, and 3,990 are there"),
    "short header": (MATRIX[:30], "it has a damaged header: EOF: reading array header, expected 118 bytes got 20"),
    "open bracket": (MATRIX.replace(b"(100", b"([00"), "it has a damaged header: "),
    "negative": (MATRIX.replace(b"(100", b"(-10"), "it has a damaged header: shape (-10, 10)"),
    "version": (
        flipped(MATRIX, 6),
        "it has format version 254.0, where 1.0 or 2.0 is expected for an array of numbers",
    ),
    "objects": (
        saved(np.array([1, None]), allow_pickle=True),
        "it holds Python objects, which only a pickle can carry, and a pickle is never opened",
    ),
    "bfloat16": (
        saved(np.zeros(3, ml_dtypes.bfloat16)),
        "it holds 2-byte voids (|V2), as NumPy stores bfloat16; rewrite it once with numpy.save(file, ",
    ),
    "half a zip": (archived(zipfile.ZIP_STORED)[:500], "it is a damaged zip archive: File is not a zip file"),
    "empty zip": (b"PK\x05\x06" + bytes(18), "it holds no array"),
    "no array": (archived(zipfile.ZIP_STORED, b"hello, world"), "it has a damaged header: the magic string is not"),
    "unknown method": (
        archived(zipfile.ZIP_STORED).replace(b"\x14\x00\x00\x00\x00\x00", b"\x14\x00\x00\x00\x63\x00"),
        "it cannot be unpacked: That compression method is not supported",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_array_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, text = BAD[name]
    (tmp_path / "it").write_bytes(content)
    with pytest.raises(BadFile) as raised:
        open_array("it")
    assert str(raised.value).startswith(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_member_is_noticed_while_it_is_read(tmp_path, method):
    content = archived(method)
    (tmp_path / "it.npz").write_bytes(flipped(content, len(content) // 2))
    with pytest.raises(BadFile, match=r"it.npz is a damaged .npz file: (Bad CRC-32|Error -3)"):
        whole(tmp_path / "it.npz", cut((1000,), None, 1000))


def test_random_damage_is_never_worse_than_a_bad_file(tmp_path):
    """NumPy's header parser raises TokenError, TypeError and others over such bytes."""
    rng = np.random.default_rng(0)
    path = tmp_path / "it.npy"
    opened = 0
    for _ in range(400):
        content = bytearray(MATRIX)
        for _ in range(3):
            content[rng.integers(8, 128)] = rng.integers(256)
        path.write_bytes(content)
        try:
            opened += bool(open_array(str(path)).name)
        except BadFile:
            continue
    assert 0 < opened < 400


def test_the_recipe_for_bfloat16_works(tmp_path):
    array = np.arange(6, dtype=np.float32).astype(ml_dtypes.bfloat16)
    file = tmp_path / "it.npy"
    np.save(file, array)
    with pytest.raises(BadFile) as raised:
        open_array(str(file))
    exec(str(raised.value).split(" with ")[1], {"numpy": np, "ml_dtypes": ml_dtypes, "file": file})
    np.testing.assert_array_equal(whole(file), np.arange(6))


def test_the_header_of_python_2_is_read_without_a_warning(tmp_path):
    (tmp_path / "old.npy").write_bytes(MATRIX.replace(b"(100, 10), }  ", b"(100L, 10L), }"))
    assert open_array(str(tmp_path / "old.npy")).shape == (100, 10)
