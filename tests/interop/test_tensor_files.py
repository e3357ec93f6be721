"""Files of torch and safetensors: all that torch.save writes is read, and sizes that do not fit are refused."""

import codecs
import collections
import io
import pickle
import struct
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from hydet.data import DataError
from hydet.interop.tensor_files import read_safetensors_file, read_torch_file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.pth"


def values():
    return {
        "float": torch.rand(3, 4), "half": torch.rand(3).half(), "empty": torch.zeros(0, 4), "flags": torch.ones(2) > 0,
        "view": torch.arange(12).view(3, 4)[1:, ::2], "repeated": torch.ones(1, 3).expand(100, 3),
        "parameter": torch.nn.Parameter(torch.ones(3)), "size": torch.Size([10**6, 10**5]), "dtype": torch.float16,
        "device": torch.device("cuda:0"), "counter": collections.Counter("aab"), "tuple": (1, 2.5, "a", None, b"ab"),
    }  # fmt: skip


@pytest.mark.parametrize("in_archive", [True, False])
def test_what_torch_writes_is_read(path, in_archive):
    torch.save(values(), path, _use_new_zipfile_serialization=in_archive)
    loaded, expected = read_torch_file(path), values()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[k], torch.as_tensor(expected[k])) for k in ("view", "repeated", "flags"))
    assert loaded["size"] == expected["size"] and loaded["tuple"] == expected["tuple"]


def test_float8_and_meta_tensors_are_read(path):
    torch.save(
        {"a": torch.zeros(4).to(torch.float8_e4m3fn), "b": torch.empty(10**6, 10**6, device="meta")}, path
    )
    assert read_torch_file(path)["b"].is_meta


class Call:
    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return self.arguments[0], self.arguments[1:]


TEXT = "a" * 20_000  # which a pickle stores once


def rebuilt(offset, shape, strides):
    storage = torch.zeros(3).untyped_storage()
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, storage, offset, shape, strides, False, collections.OrderedDict())


@pytest.mark.parametrize("in_archive", [True, False])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Call(bytearray, 2**40), "bytearray takes more memory"),
        (Call(torch.FloatTensor, 2**20, 2**20), "FloatTensor takes more memory"),
        (rebuilt(0, (2**40,), (1,)), "larger than its storage"),
        (rebuilt(2**40, (1,), (1,)), "larger than its storage"),
        (rebuilt(0, (2**20, 2**20), (0, 0)), "much larger than the file"),
        (Call(eval, "1"), "eval"),
        (Call(codecs.encode, "a", "rot13"), "another encoding than latin1"),
        ([Call(codecs.encode, TEXT, "latin1") for _ in range(30)], "texts are much larger than the file"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*TypedStorage")
def test_sizes_that_the_file_does_not_have_are_refused(path, value, reason, in_archive):
    torch.save({"a": value}, path, _use_new_zipfile_serialization=in_archive)
    with pytest.raises(DataError, match=rf"file\.pth .*{reason}"):
        read_torch_file(path)


def test_the_line_about_other_classes_says_how_to_strip_them(path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": Call(eval, "1")}, path)
    command = r"python -c \"import torch; torch\.save\(torch\.load\('file\.pth', 'cpu', weights_only=False\)\['state_dict'\], "
    with pytest.raises(DataError, match=command) as error:
        read_torch_file(path, drop_values=True)
    assert str(error.value).startswith(
        f"{path} holds more than tensors: it refers to eval, and loading that would run"
    )


def test_a_storage_that_is_larger_than_its_record_is_refused(path):
    torch.save({"a": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, record in records:
            archive.writestr(name, record[:100] if name.endswith("data/0") else record)
    with pytest.raises(DataError, match=r"file\.pth .*storage 0 has 100 bytes of 4000"):
        read_torch_file(path)


def test_a_legacy_file_that_lacks_its_end_is_refused(path):
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"its tensors have 4000 bytes, the file \d+"):
        read_torch_file(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/data/0", bytes(2**25))
    path.write_bytes(stream.getvalue())
    with pytest.raises(DataError, match=r"file\.pth .*has \d+ bytes and would unpack to 33554"):
        read_torch_file(path)


@pytest.mark.parametrize("length", [2**63, 2**31, 1000])
def test_a_header_that_is_longer_than_the_file_is_refused(tmp_path, length):
    path = tmp_path / "file.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    assert read_safetensors_file(path)["a"].tolist() == [0, 0, 0]
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(DataError, match=rf"file\.safetensors is damaged: its header has {length} bytes"):
        read_safetensors_file(path)
