"""Every format gives back the numbers that were written, whatever the dtype, the axes and the blocks."""

import itertools
import warnings

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zarr

from evaluation.formats import BFLOAT16, NUMBERS, WRITERS, example, hdf5, holds, parquet_column, stored, whole
from processes import run
from withlogits.evaluation.files import BadFile, NoSuchArray, open_array
from withlogits.evaluation.files.zarr import BoundedCompressor as Bounded
from withlogits.tiles import cut


@pytest.mark.parametrize(
    ("form", "dtype"), [(form, dtype) for form in WRITERS for dtype in NUMBERS if holds(form, dtype)], ids=str
)
def test_every_dtype_and_number_of_axes(tmp_path, form, dtype):
    for i, shape in enumerate([(13,), (11, 3), (6, 2, 5)]):
        (tmp_path / str(i)).mkdir()
        array = example(dtype, shape)
        read = whole(stored(tmp_path / str(i), form, array))
        assert read.dtype == dtype or (form.startswith("zarr") and read.dtype == dtype.newbyteorder("="))
        np.testing.assert_array_equal(read.astype(dtype), array)


@pytest.mark.parametrize("form", WRITERS)
def test_every_tiling(tmp_path, form):
    array = example(np.dtype("f4"), (7, 5, 6))
    name = stored(tmp_path, form, array)
    for axis, fortran, budget in itertools.product((None, 0, 1, 2), (False, True), (8, 60, 1000)):
        heard = []
        np.testing.assert_array_equal(whole(name, cut(array.shape, axis, budget, fortran), heard.append), array)
        assert all(text.startswith(f"{name}: unpacking 840 bytes into ") for text in heard)


@pytest.mark.parametrize("form", WRITERS)
def test_a_file_can_be_left_early(tmp_path, form):
    name = stored(tmp_path, form, example(np.dtype("f4"), (9, 4)))
    file = open_array(name)
    blocks = file.blocks(cut(file.shape, 1, 4))
    assert next(blocks).shape == (1, 4)
    blocks.close()
    if "hdf5" in form:
        with h5py.File(file.path, "r+"):  # would be refused while it is open elsewhere
            pass


@pytest.mark.parametrize("form", [form for form in WRITERS if "parquet" not in form and "shards" not in form])
def test_no_elements_and_no_axes(tmp_path, form):
    if form != "hdf5 chunks":
        (tmp_path / "0").mkdir()
        assert whole(stored(tmp_path / "0", form, np.array(2.5))) == 2.5
    if not form.startswith(("zarr", "hdf5 chunks")):
        assert whole(stored(tmp_path, form, np.zeros((0, 4)))).shape == (0, 4)


def test_a_zarr_array_of_no_elements(tmp_path):
    zarr.create_array(tmp_path / "it.zarr", shape=(0, 4), chunks=(2, 2), dtype="f4")
    assert whole(str(tmp_path / "it.zarr")).shape == (0, 4)


# -------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("form", "held"),
    [
        ("npz", "2 arrays: name one, as it.npz:array (array, other)"),
        ("safetensors", "2 tensors: name one, as it.safetensors:0 (0, a/b)"),
        ("parquet", "2 columns: name one, as it.parquet:x (x, other)"),
        ("hdf5", "2 datasets: name one, as it.h5:group/x (group/x, other)"),
    ],
)
def test_one_of_several_has_to_be_named(tmp_path, monkeypatch, form, held):
    monkeypatch.chdir(tmp_path)
    name = stored(tmp_path, form, np.zeros((3, 2))).replace(f"{tmp_path}/", "")
    path = name.partition(":")[0]
    with pytest.raises(NoSuchArray) as raised:
        open_array(path)
    assert str(raised.value) == f"{path} holds {held}"
    with pytest.raises(NoSuchArray, match=rf"^{path} holds no \w+ 'missing'; it holds "):
        open_array(f"{path}:missing")


def test_one_array_in_a_store_needs_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array = np.arange(6.0)
    root = zarr.open_group("it.zarr", mode="w")
    root.create_array("a/b", data=array)
    np.testing.assert_array_equal(whole("it.zarr"), array)
    np.testing.assert_array_equal(whole("it.zarr/a/b"), array)  # a folder inside is a store too
    root.create_array("c", data=array)
    with pytest.raises(NoSuchArray, match=r"^it.zarr holds 2 arrays: name one, as it.zarr:a/b \(a/b, c\)$"):
        open_array("it.zarr")
    for name in ("it.zarr:a", "it.zarr:d", "it.zarr:a/c"):
        with pytest.raises(NoSuchArray, match=r"^it.zarr holds no array '.*'; it holds a/b, c$"):
            open_array(name)


def test_colons_in_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a:b.npz", **{"c:d": np.arange(3)})
    np.testing.assert_array_equal(whole("a:b.npz:c:d"), np.arange(3))
    np.testing.assert_array_equal(whole("a:b.npz"), np.arange(3))


@pytest.mark.parametrize(
    ("form", "package", "extra"),
    [
        ("safetensors", "safetensors", "safetensors"),
        ("parquet", "pyarrow", "parquet"),
        ("zarr", "zarr", "zarr"),
        ("zarr zip", "zarr", "zarr"),
        ("hdf5", "h5py", "hdf5"),
    ],
)
def test_a_package_that_is_missing_is_named(tmp_path, form, package, extra):
    name = stored(tmp_path, form, np.zeros((3, 2)))
    out = run(
        """
        import sys
        sys.modules[sys.argv[2]] = None
        from withlogits.evaluation.files import NoSuchArray, open_array
        try:
            open_array(sys.argv[1])
        except NoSuchArray as error:
            print(error)
        """,
        name,
        package,
    )
    assert out == f'{name} needs {package}: pip install "withlogits[{extra}]"\n'


def test_bfloat16_names_its_package(tmp_path, monkeypatch):
    name = stored(tmp_path, "safetensors", example(BFLOAT16, (3, 2)))
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(
        NoSuchArray, match=r'holds bfloat16, which needs ml_dtypes: pip install "withlogits\[bfloat16\]"'
    ):
        open_array(name)


def test_no_package_is_imported_before_its_format_is_met(tmp_path):
    name = stored(tmp_path, "npy", np.zeros(3))
    packages = ("safetensors", "pyarrow", "zarr", "h5py", "ml_dtypes", "numcodecs")
    code = "import sys; from withlogits.evaluation.files import open_array; open_array(sys.argv[1])"
    assert run(f"{code}; print([p for p in {packages} if p in sys.modules])", name) == "[]\n"


# ------------------------------------------------------------------------------------------------------------ parquet


def test_columns_of_one_floating_type_are_a_matrix(tmp_path):
    matrix = example(np.dtype("f4"), (23, 3))
    table = pyarrow.table({name: matrix[:, i] for i, name in enumerate("abc")} | {"__index_level_0__": np.arange(23)})
    pyarrow.parquet.write_table(table, tmp_path / "it.parquet", row_group_size=7)
    np.testing.assert_array_equal(whole(f"{tmp_path}/it.parquet"), matrix)
    np.testing.assert_array_equal(whole(f"{tmp_path}/it.parquet:b"), matrix[:, 1])


@pytest.mark.parametrize("labels", [np.arange(4), np.arange(4.0)])
def test_columns_of_different_types_have_to_be_named(tmp_path, labels):
    table = pyarrow.table({"x": np.arange(4, dtype=np.float32), "y": labels})
    pyarrow.parquet.write_table(table, tmp_path / "it.parquet")
    with pytest.raises(NoSuchArray, match=r"holds 2 columns: name one, as \S+:x \(x, y\)"):
        open_array(f"{tmp_path}/it.parquet")


def test_tensors_of_a_fixed_shape(tmp_path):
    array = example(np.dtype("f4"), (6, 2, 5))
    column = pyarrow.FixedShapeTensorArray.from_numpy_ndarray(array)
    pyarrow.parquet.write_table(pyarrow.table({"x": column}), tmp_path / "it.parquet")
    np.testing.assert_array_equal(whole(f"{tmp_path}/it.parquet"), array)


def test_a_table_without_rows(tmp_path):
    for kind, shape in [(pyarrow.float32(), (0,)), (pyarrow.list_(pyarrow.float32()), (0, 0))]:
        pyarrow.parquet.write_table(pyarrow.table({"x": pyarrow.array([], kind)}), tmp_path / "it.parquet")
        assert whole(f"{tmp_path}/it.parquet").shape == shape


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, None, 2.0], "has a missing value (null) in column x, row 1; drop the row or fill it"),
        ([[1.0], [2.0], None], "has a missing value (null) in column x, row 2; drop the row or fill it"),
        ([[1.0, 2.0], [2.0, None]], "has a missing value (null) in column x, row 1; drop the row or fill it"),
        (
            [[1.0, 2.0], [2.0, 3.0], [1.0]],
            "has lists of different lengths in column x: 1 elements in row 2, after 2; make them equally long",
        ),
        ([None, [1.0]], "has a missing value (null) in column x, row 0; drop the row or fill it"),
        (["a"], "holds elements of type string, where numbers are expected; save it as numbers"),
    ],
)
def test_columns_that_are_no_arrays(tmp_path, monkeypatch, values, text):
    monkeypatch.chdir(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"x": pyarrow.array(values)}), "it.parquet")
    with pytest.raises(BadFile) as raised:
        whole("it.parquet")
    assert str(raised.value) == f"it.parquet {text}"


# -------------------------------------------------------------------------------------------------------- HDF5, Zarr


@pytest.mark.parametrize("method", ["gzip", "lzf"])
@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_packed_hdf5(tmp_path, method, version):
    array = example(np.dtype("f4"), (300, 700))
    name = hdf5(tmp_path / "it.h5", array, version, chunks=(128, 512), compression=method)
    np.testing.assert_array_equal(whole(name, cut(array.shape, 1, 10_000)), array)


def test_a_filter_that_is_not_there(tmp_path):
    with h5py.File(tmp_path / "it.h5", "w") as file:
        options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        options.set_chunk((3,))
        options.set_filter(32_001, h5py.h5z.FLAG_OPTIONAL)
        h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((3,)), options)
    with pytest.raises(BadFile, match=r"it.h5 is packed with HDF5's filter 32001, which is not installed$"):
        open_array(f"{tmp_path}/it.h5")


def test_what_lies_outside_of_an_hdf5_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hdf5("other.h5", np.zeros(3))
    with h5py.File("it.h5", "w") as file:
        file["external"] = h5py.ExternalLink("other.h5", "/group")
        file["soft"] = h5py.SoftLink("/external/x")
        layout = h5py.VirtualLayout((3,), float)
        layout[:] = h5py.VirtualSource("other.h5", "group/x", (3,))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (3,), float, external=[("other.bin", 0, h5py.h5f.UNLIMITED)])
        file["text"] = ["a", "b"]
        file.create_dataset("ragged", (3,), h5py.vlen_dtype(float))
        file["null"] = h5py.Empty("f4")
    for member, text in {
        "external/x": "goes through an external link to /group, and links are not followed",
        "soft": "goes through a soft link to /external/x, and links are not followed",
        "virtual": "lies in other files, which are not opened; copy it into one dataset",
        "raw": "lies in other files, which are not opened; copy it into one dataset",
        "text": "holds elements of type object, where numbers are expected",
        "ragged": "holds elements of type object, where numbers are expected",
        "null": "holds no elements: its dataspace is null",
    }.items():
        with pytest.raises(BadFile) as raised:
            open_array(f"it.h5:{member}")
        assert str(raised.value).startswith(f"it.h5:{member} {text}")
    with pytest.raises(
        NoSuchArray, match=r"^it.h5 holds no dataset 'raw/x'; it holds null, ragged, raw, text, virtual$"
    ):
        open_array("it.h5:raw/x")


def test_a_group_that_holds_itself(tmp_path):
    with h5py.File(tmp_path / "it.h5", "w") as file:
        file["a/x"] = np.arange(3)
        file["a/again"] = file["a"]
    np.testing.assert_array_equal(whole(f"{tmp_path}/it.h5"), np.arange(3))


@pytest.mark.parametrize("method", ["blosc", "zlib", "gzip", "bz2", "lz4", "zstd"])
def test_packed_zarr_of_version_2(tmp_path, method):
    import numcodecs

    array = example(np.dtype("f4"), (30, 70))
    options = {"chunks": (8, 16), "compressors": numcodecs.registry.codec_registry[method](), "zarr_format": 2}
    zarr.create_array(tmp_path / "it.zarr", data=array, **options, order="F")
    np.testing.assert_array_equal(whole(f"{tmp_path}/it.zarr", cut(array.shape, 1, 500)), array)


@pytest.mark.parametrize("codec", ["BloscCodec", "GzipCodec", "ZstdCodec", "Crc32cCodec"])
def test_packed_zarr_of_version_3(tmp_path, codec):
    array = example(np.dtype(">f4"), (30, 70))
    options = {"compressors": [getattr(zarr.codecs, codec)()], "filters": [zarr.codecs.TransposeCodec(order=(1, 0))]}
    zarr.create_array(tmp_path / "it.zarr", data=array, chunks=(8, 16), **options)
    np.testing.assert_array_equal(whole(f"{tmp_path}/it.zarr", cut(array.shape, 1, 500)), array)


@pytest.mark.parametrize("slab", [4, 100, 1000, 3000])
def test_chunks_larger_than_what_is_unpacked_at_once(tmp_path, monkeypatch, slab):
    monkeypatch.setattr("withlogits.evaluation.files.array.SLAB", slab)
    array = example(np.dtype("f4"), (11, 7, 13))
    zarr.create_array(tmp_path / "it.zarr", data=array, chunks=(5, 4, 6))
    for axis, budget, fortran in itertools.product((None, 0, 1, 2), (6, 100), (False, True)):
        np.testing.assert_array_equal(whole(f"{tmp_path}/it.zarr", cut(array.shape, axis, budget, fortran)), array)


def test_no_chunk_is_unpacked_again_and_again(tmp_path, monkeypatch):
    name = stored(tmp_path, "zarr 2", example(np.dtype("f4"), (12, 9)))
    read = []
    inner = Bounded.decode
    monkeypatch.setattr(Bounded, "decode", lambda *args: read.append(1) or inner(*args))
    whole(name, cut((12, 9), 1, 9))
    assert len(read) == 12  # chunks of (3, 3)


def test_zarr_chunks_that_are_missing_are_the_fill_value(tmp_path):
    array = zarr.create_array(tmp_path / "it.zarr", shape=(30, 7), chunks=(8, 4), dtype="i4", fill_value=3)
    array[:4] = 5
    np.testing.assert_array_equal(whole(f"{tmp_path}/it.zarr"), array[:])


@pytest.mark.parametrize("version", [2, 3])
def test_a_store_with_all_its_descriptions_in_one_place(tmp_path, version):
    root = zarr.open_group(tmp_path / "it.zarr", mode="w", zarr_format=version)
    root.create_array("x", data=np.arange(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(tmp_path / "it.zarr")
    np.testing.assert_array_equal(whole(f"{tmp_path}/it.zarr"), np.arange(5))
    np.testing.assert_array_equal(whole(f"{tmp_path}/it.zarr:x"), np.arange(5))


# ------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("form", ["safetensors", "parquet", "zarr", "hdf5"])
def test_a_large_file_takes_little_memory(tmp_path, form):
    """400 MB, of which most is nowhere: zeros, packed or in a sparse file."""
    shape, path = (100_000, 1000), tmp_path / "big"
    if form == "safetensors":
        stored(tmp_path, form, np.zeros((1, 4), np.float32))
        header = f'{{"x":{{"dtype":"F32","shape":[{shape[0]},{shape[1]}],"data_offsets":[0,400000000]}}}}'.encode()
        with path.open("wb") as stream:
            stream.write(len(header).to_bytes(8, "little") + header)
            stream.truncate(8 + len(header) + 400_000_000)
    elif form == "parquet":
        column = pyarrow.FixedSizeListArray.from_arrays(np.zeros(10_000_000, np.float32), 1000)
        with pyarrow.parquet.ParquetWriter(path, pyarrow.schema({"x": column.type})) as writer:
            for _ in range(10):
                writer.write_table(pyarrow.table({"x": column}))
    elif form == "zarr":
        zarr.create_array(path, shape=shape, chunks=(500, 500), dtype="f4")
        zarr.open_array(path, mode="r+")[::10_000] = 1
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("x", shape, "f4", chunks=(500, 500), compression="gzip")[::10_000] = 1
    small = stored(tmp_path, form, np.zeros((30, 20), np.float32))
    out = run(
        """
        import resource, sys
        from withlogits.evaluation.files import open_array
        from withlogits.tiles import cut

        def read(name):
            file = open_array(name)
            return sum(block.size for block in file.blocks(cut(file.shape, 1, 1 << 20)))

        def megabytes():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        read(sys.argv[1])
        before = megabytes()
        assert read(sys.argv[2]) == 100_000_000
        print(megabytes() - before)
        """,
        small,
        str(path),
    )
    assert float(out) < 90, out


def test_lists_are_read_in_batches(tmp_path):
    name = parquet_column(tmp_path / "it.parquet", np.ones((40, 3), np.float32), fixed=False)
    np.testing.assert_array_equal(whole(name, cut((40, 3), 0, 1)), 1)
