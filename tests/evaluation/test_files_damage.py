"""A damaged file, or one that means harm, is one sentence that begins with its name; no crash, no hang, no flood."""

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import h5py
import numcodecs
import numpy as np
import pyarrow
import pytest
import zarr

from evaluation.formats import WRITERS, example, hdf5, stored, whole
from processes import run
from withlogits.evaluation.files import BadFile, NoSuchArray, open_array
from withlogits.evaluation.files.unpack import TooLong, unpacked, zstd_length

FILES = [form for form in WRITERS if form in ("zarr zip",) or not form.startswith("zarr")]


def refused(name, kind=BadFile):
    """The one sentence with which a file is refused, while it is opened or while it is read."""
    with pytest.raises(kind) as raised:
        whole(str(name))
    text = str(raised.value)
    assert text.startswith(str(name).partition(":")[0])
    assert text.isprintable()
    assert len(text) < 1000
    return text


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# -------------------------------------------------------------------------------------------------- all of the formats


@pytest.mark.parametrize("form", FILES)
def test_a_file_that_was_cut_off(tmp_path, form):
    name = stored(tmp_path, form, example(np.dtype("f4"), (30, 4)))
    path = open_array(name).path
    content = Path(path).read_bytes()
    for length in {*range(40), *np.linspace(0, len(content) - 1, 60).astype(int)}:
        with open(path, "wb") as stream:
            stream.write(content[:length])
        refused(name)


@pytest.mark.parametrize(
    "magic", [b"\x93NUMPY", b"PK\x03\x04", b"PK\x05\x06", b"PAR1", b"\x89HDF\r\n\x1a\n", bytes(8) + b"{", b"\x80", b""]
)
def test_noise_after_a_magic(magic):
    rng = np.random.default_rng(0)
    for length in (0, 1, 7, 8, 100, 5000):
        with open("it", "wb") as stream:
            stream.write(magic + rng.bytes(length))
        refused("it")


def test_what_is_no_regular_file(tmp_path):
    assert refused(".", NoSuchArray) == ". cannot be read: Is a directory"
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe.npy")
        text = "pipe.npy is no regular file, and blocks of a stream cannot be read again; write it to a file"
        assert refused("pipe.npy") == text


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read(tmp_path):
    for form in WRITERS:
        (tmp_path / form).mkdir()
        name = stored(tmp_path / form, form, np.zeros(3))
        path = open_array(name).path
        os.chmod(path, 0)
        try:
            assert refused(name).endswith(" cannot be read: Permission denied")
        finally:
            os.chmod(path, 0o700)


def test_names_in_a_file_do_not_break_the_line():
    np.savez("it.npz", **{"a\nb": np.zeros(3), "\x1b[31m": np.zeros(3)})
    assert r"it.npz:a b (a b, \x1b[31m)" in refused("it.npz", NoSuchArray)


# ---------------------------------------------------------------------------------------------------- headers that lie


def header(**changes):
    fields = {"descr": "<f4", "fortran_order": False, "shape": (3,)} | changes
    stream = io.BytesIO()
    text = repr(fields).encode().ljust(117) + b"\n"
    stream.write(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(12))
    return stream.getvalue()


SHAPES = [(10**15,), (10**18,), (1 << 62, 4), (1 << 64,), (-1,), (0, -5), (1,) * 65, (0, 1 << 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes_that_lie(shape):
    with open("it.npy", "wb") as stream:
        stream.write(header(shape=shape))
    refused("it.npy")
    with zipfile.ZipFile("it.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header(shape=shape))
    refused("it.npz")

    tensor = {"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 12]}}
    text = json.dumps(tensor).encode()
    with open("it.safetensors", "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text + bytes(12))
    refused("it.safetensors")

    zarr.create_array("it.zarr", shape=(3,) * len(shape), chunks=(2,) * len(shape), dtype="f4", overwrite=True)
    change("it.zarr", shape=shape)
    refused("it.zarr")


def change(store, **fields):
    """Other fields in the description of a Zarr array."""
    with open(f"{store}/zarr.json", encoding="utf-8") as stream:
        described = json.load(stream) | fields
    with open(f"{store}/zarr.json", "w", encoding="utf-8") as stream:
        json.dump(described, stream)


@pytest.mark.parametrize("descr", ["|S0", "|V0", "|O", "<f3", "(2,)<f4", "<f4,", [("a", "<f4")], "x" * 5000])
def test_dtypes_that_are_none(descr):
    with open("it.npy", "wb") as stream:
        stream.write(header(descr=descr))
    try:
        assert open_array("it.npy").dtype.itemsize
    except BadFile:
        refused("it.npy")


@pytest.mark.parametrize("chunks", [(1,), (10**12,), (0,), (-3,), (3, 3), ("3",), (1 << 64,)], ids=str)
def test_chunks_that_lie(chunks):
    zarr.create_array("it.zarr", data=np.ones(30_000_000 if chunks == (1,) else 30, np.int8), chunks=(10**7,))
    change("it.zarr", chunk_grid={"name": "regular", "configuration": {"chunk_shape": chunks}})
    refused("it.zarr")


def test_a_huge_dataset_of_nothing():
    with h5py.File("it.h5", "w") as file:
        file.create_dataset("chunks", (10**15,), "f4", chunks=(1000,))
        file.create_dataset("bytes", (1 << 32,), "i1", chunks=(1,))
    text = "which no packing brings down to the file's"
    assert text in refused("it.h5:chunks")
    assert "it claims 4,294,967,296 chunks of 1 bytes" in refused("it.h5:bytes")


def test_a_huge_list_of_nothing():
    column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array([], pyarrow.float32()), 1 << 30)
    pyarrow.parquet.write_table(pyarrow.table({"x": column}), "it.parquet")
    assert whole("it.parquet").shape == (0, 1 << 30)


def test_a_header_of_many_megabytes():
    zarr.create_array("it.zarr", data=np.zeros(3))
    with open("it.zarr/zarr.json", "ab") as stream:
        stream.truncate(1 << 25)
    assert refused("it.zarr").endswith("zarr.json has 33,554,432 bytes, where 16,777,216 are the most")


def test_a_description_that_is_nested_too_deep():
    zarr.create_array("it.zarr", data=np.zeros(3))
    with open("it.zarr/zarr.json", "w") as stream:
        stream.write("[" * 100_000)
    refused("it.zarr")


# ------------------------------------------------------------------------------------------------------------- pickles


def test_a_zarr_store_cannot_bring_a_pickle(tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    filters = [numcodecs.Pickle()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for options in ({"filters": filters}, {"compressors": numcodecs.Pickle()}):
            zarr.create_array("it.zarr", shape=(3,), chunks=(3,), dtype="f4", zarr_format=2, overwrite=True, **options)
            with open("it.zarr/0", "wb") as stream:
                stream.write(pickle.dumps(Harm()))
            assert "pickle" in refused("it.zarr")
    assert not (tmp_path / "harm").exists()


def test_codecs_that_are_not_read():
    zarr.create_array("it.zarr", data=np.arange(30), chunks=(8,))
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    for codec in ("numcodecs.bz2", "nothing"):
        change("it.zarr", codecs=[little, {"name": codec, "configuration": {}}])
        refused("it.zarr")


def test_strings_are_no_numbers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.create_array("it.zarr", data=np.array(["a", "bc"]))
    assert refused("it.zarr").endswith("where numbers are expected; save it as numbers")


# ----------------------------------------------------------------------------------------- what unpacks to too much

BIG = 1 << 27


def zeros(method):
    """Many zeros, packed."""
    megabyte = bytes(1 << 20)
    if method in ("zlib", "gzip"):
        stream = zlib.compressobj(wbits=31 if method == "gzip" else 15)
        return b"".join(stream.compress(megabyte) for _ in range(BIG >> 20)) + stream.flush()
    if method == "zstd stream":  # it states no length
        sink = pyarrow.BufferOutputStream()
        with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
            for _ in range(BIG >> 20):
                stream.write(megabyte)
        return sink.getvalue().to_pybytes()
    codec = numcodecs.registry.codec_registry[method]()
    return bytes(codec.encode(np.zeros(BIG, np.int8)))


BOMBS = {
    "it.npz": lambda: archived("it.npz", {"x.npy": header() + bytes(BIG)}),
    "chunk.zip": lambda: archived("chunk.zip", {"zarr.json": describe(), "c/0": bytes(BIG)}),
    "description.zip": lambda: archived("description.zip", {"zarr.json": bytes(BIG)}),
    "gzip.zarr": lambda: folder("gzip.zarr", "gzip", {"level": 5}, zeros("gzip")),
    "zstd.zarr": lambda: folder("zstd.zarr", "zstd", {"level": 5, "checksum": False}, zeros("zstd")),
    "stream.zarr": lambda: folder("stream.zarr", "zstd", {"level": 5, "checksum": False}, zeros("zstd stream")),
    "blosc.zarr": lambda: folder("blosc.zarr", "blosc", numcodecs_blosc(), zeros("blosc")),
    "deflate.h5": lambda: deflated("deflate.h5"),
}


def archived(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def describe(codecs=()):
    zarr.create_array("described.zarr", shape=(10**6,), chunks=(10**6,), dtype="f4", compressors=None, overwrite=True)
    with open("described.zarr/zarr.json", "rb") as stream:
        described = json.load(stream)
    described["codecs"] += codecs
    return json.dumps(described)


def folder(path, codec, configuration, content):
    os.makedirs(f"{path}/c")
    with open(f"{path}/zarr.json", "w") as stream:
        stream.write(describe([{"name": codec, "configuration": configuration}]))
    with open(f"{path}/c/0", "wb") as stream:
        stream.write(content)


def numcodecs_blosc():
    return {"typesize": 4, "cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "blocksize": 0}


def deflated(path):
    with h5py.File(path, "w") as file:
        x = file.create_dataset("x", (10**6,), "f4", chunks=(10**6,), compression="gzip")
        x.id.write_direct_chunk((0,), zeros("zlib"))


def test_bombs_do_not_go_off(tmp_path):
    for make in BOMBS.values():
        make()
    out = run(
        """
        import resource, sys
        from withlogits.evaluation.files import BadFile, open_array
        from withlogits.tiles import cut

        def read(name):
            try:
                file = open_array(name)
                list(file.blocks(cut(file.shape, None, 1 << 20)))
            except BadFile as error:
                return str(error)
            return "read"

        read(sys.argv[1])
        import numcodecs.zstd, numcodecs.blosc, numcodecs.lz4
        for name in sys.argv[2:]:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            text = read(name)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
            print(name, grown, text, sep="\\t")
        """,
        "described.zarr",
        *BOMBS,
        timeout=60,
    )
    told = {name: (int(grown), text) for name, grown, text in (line.split("\t") for line in out.splitlines())}
    assert {name: grown for name, (grown, _) in told.items() if grown > 30} == {}
    assert told.pop("it.npz")[1] == "read"  # what its header wants, and no more
    assert all(text.startswith(f"{name} is a damaged ") for name, (_, text) in told.items()), told
    assert "a chunk unpacks to 134,217,728 bytes or more, where 4,504,096 are the most" in told["blosc.zarr"][1]
    assert "a chunk unpacks to" in told["deflate.h5"][1]


@pytest.mark.parametrize("method", ["blosc", "bz2", "gzip", "lz4", "zlib", "zstd"])
def test_no_more_is_unpacked_than_there_is_room_for(method):
    content = np.arange(1000, dtype=np.int32).tobytes()
    packed = bytes(numcodecs.registry.codec_registry[method]().encode(content))
    assert bytes(unpacked(method, packed, 4000)) == content
    with pytest.raises((TooLong, ValueError)):
        unpacked(method, packed, 3999)


def test_several_streams_in_a_chunk():
    packed = b"".join(bytes(numcodecs.GZip().encode(bytes(n))) for n in (10, 0, 20))
    assert unpacked("gzip", packed, 30) == bytes(30)
    with pytest.raises(TooLong):
        unpacked("gzip", packed, 29)
    with pytest.raises(EOFError):
        unpacked("gzip", packed[:-9], 30)


@pytest.mark.parametrize("length", [0, 1, 255, 256, 300, 65_791, 65_792, 1 << 20])
def test_the_length_that_a_zstd_frame_states(length):
    for checksum in (False, True):
        frame = bytes(numcodecs.Zstd(checksum=checksum).encode(np.zeros(length, np.int8))) if length else b""
        assert zstd_length(frame) == (length or None)
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(bytes(length))
        stream.flush()
        stream.write(b"x")
    packed = sink.getvalue().to_pybytes()
    assert zstd_length(packed) is None
    assert bytes(unpacked("zstd", packed, length + 1)) == bytes(length) + b"x"
    with pytest.raises(RuntimeError, match="too small"):
        unpacked("zstd", packed, length)


@pytest.mark.parametrize("field", ["compress_size", "file_size"])
def test_an_archive_that_lies_about_its_members(field):
    archived("it.npz", {"x.npy": header()})
    with open("it.npz", "rb") as stream:
        content = bytearray(stream.read())
    directory = content.index(b"PK\x01\x02")
    at = directory + (20 if field == "compress_size" else 24)
    content[at : at + 4] = (1 << 31).to_bytes(4, "little")
    with open("it.npz", "wb") as stream:
        stream.write(content)
    assert "is a damaged archive: x.npy claims " in refused("it.npz")


# ----------------------------------------------------------------------------------------------- damage inside a chunk


@pytest.mark.parametrize("content", [b"", b"abc", bytes(1000), b"\x1f\x8b" + bytes(50)], ids=len)
@pytest.mark.parametrize("form", ["zarr", "zarr 2", "zarr shards"])
def test_a_chunk_of_garbage(tmp_path, form, content):
    name = stored(tmp_path, form, example(np.dtype("f4"), (9,)))
    path = {"zarr": "it.zarr/group/x/c/0", "zarr 2": "it.zarr/0", "zarr shards": "it.zarr/c/0"}[form]
    with open(path, "wb") as stream:
        stream.write(content)
    refused(name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_chunk_that_is_a_pipe(tmp_path):
    name = stored(tmp_path, "zarr 2", example(np.dtype("f4"), (9,)))
    os.remove("it.zarr/0")
    os.mkfifo("it.zarr/0")
    assert refused(name) == f"{name} is a damaged Zarr store: 0 is no regular file"


def test_a_chunk_that_is_too_long(tmp_path):
    name = stored(tmp_path, "zarr 2", example(np.dtype("f4"), (9,)))
    os.truncate("it.zarr/0", 1 << 40)  # sparse
    assert refused(name).startswith(f"{name} is a damaged Zarr store: 0 has 1,099,511,627,776 bytes, where ")


def test_a_chunk_that_is_deflated_twice():
    with h5py.File("it.h5", "w") as file:
        options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        options.set_chunk((1000,))
        options.set_deflate(9)
        options.set_filter(h5py.h5z.FILTER_DEFLATE, 0, (9,))
        h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((1000,)), options)
    assert refused("it.h5").endswith("HDF5's filters [1, 1]: after deflate (1) only fletcher32 (3) is read")


@pytest.mark.parametrize(
    ("size", "start", "text"),
    [
        (0, 6, "its chunk (6,) has 0 bytes at "),  # in which HDF5 looks for a checksum of 4 bytes, and crashes
        (3, 6, "its chunk (6,) has 3 bytes at "),
        (1 << 31, 6, "its chunk (6,) has 2,147,483,648 bytes at "),
        (17, 3, "its chunks are not one each: (3,)"),
        (17, 4, "Error iterating over dataset chunks (bad coordinate offset)"),
        (17, 6_000_000, "its chunks are not one each: (6000000,)"),
    ],
)
def test_an_index_of_chunks_that_lies(tmp_path, size, start, text):
    name = stored(tmp_path, "hdf5 chunks", example(np.dtype("i8"), (13,)))
    path = open_array(name).path
    with h5py.File(path) as file:
        info = file["group/x"].id.get_chunk_info(2)
    content = Path(path).read_bytes()
    entry = struct.pack("<IIQ", info.size, 0, 6)  # bytes, mask, start
    assert content.count(entry) == 1
    Path(path).write_bytes(content.replace(entry, struct.pack("<IIQ", size, 0, start)))
    assert refused(name).startswith(f"{name} is a damaged HDF5 file: {text}")


def test_garbage_where_hdf5_wants_a_deflated_chunk():
    name = hdf5("it.h5", np.zeros(100_000), chunks=(50_000,), compression="gzip")
    with h5py.File("it.h5", "r+") as file:
        file["group/x"].id.write_direct_chunk((50_000,), np.random.default_rng(0).bytes(40_000))
    assert refused(name).startswith("it.h5:/group/x is a damaged HDF5 file: ")
