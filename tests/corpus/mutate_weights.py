"""Break files of weights, training state and proposals, and hide code in them; hydet reads each one, or names it in one line.

Usage::

    python tests/corpus/mutate_weights.py              # all cases, about half a minute
    python tests/corpus/mutate_weights.py --every 20   # a twentieth of them

A case fails if it runs code, writes a file, opens a connection, needs much more memory than the file, hangs, warns, raises
anything but an error that a command reports, or if the message has several lines or no file name. An audit hook is the
judge. The exit status is 1 if a case fails.
"""

from __future__ import annotations

import argparse
import codecs
import collections
import contextlib
import dataclasses
import faulthandler
import functools
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from hydet.data import ProposalFile
from hydet.engine import Checkpoint, init_from
from hydet.engine.seeding import random_state, set_random_state
from hydet.engine.training_state_values import check_training_state

MAX_SECONDS = 10.0  # per case; one takes a few milliseconds
MAX_MESSAGE = 1000  # characters
EXTRA_MEMORY = 2**30  # bytes above what the process has mapped before the first case
MARK = "hydet_hostile_mark"  # name of a file that a payload would create

# Judge

FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "pty.spawn",
    "subprocess.Popen", "pickle.find_class", "os.kill", "os.putenv", "webbrowser.open", "socket.connect", "socket.bind",
    "socket.getaddrinfo", "urllib.Request", "http.client.connect", "os.mkdir", "os.remove", "os.rename", "os.rmdir",
    "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown", "tempfile.mkdtemp", "tempfile.mkstemp",
    "shutil.rmtree", "shutil.move", "shutil.copyfile", "shutil.unpack_archive", "exec", "import",
)  # fmt: skip


class Judge:
    """Collects forbidden events while it is armed; Python cannot remove a hook."""

    def __init__(self) -> None:
        self.is_armed = False
        self.violations: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """Note an event that reading a file never has."""
        if not self.is_armed:
            return
        if event == "open":
            _, mode, flags = arguments
            writes = (isinstance(mode, str) and bool(set(mode) & set("wax+"))) or (
                isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
            )
            if writes:
                self.violations.append(f"{event} {arguments!r}"[:200])
        elif event in FORBIDDEN:
            self.violations.append(f"{event} {arguments!r}"[:200])

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Collect the violations of a block."""
        self.violations = []
        self.is_armed = True
        try:
            yield
        finally:
            self.is_armed = False


# Files


@dataclasses.dataclass(frozen=True)
class Case:
    """A broken file.

    Args:
        name: the change that was made.
        kind: the kind of file, a key of ``READERS``.
        content: the bytes of the file.
    """

    name: str
    kind: str
    content: bytes


def make_model() -> nn.Module:
    """Return a small model with convolution, norm and linear layers."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def torch_file(value: object, *, legacy: bool = False) -> bytes:
    """Return a file of ``torch.save``."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def make_training_state() -> dict[str, object]:
    """Return a training state with an optimizer and a schedule that have made a step."""
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    model(torch.ones(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    schedule.step()
    return {
        "step": 1, "metrics": {"box_AP": 0.5}, "random": [random_state(torch.device("cpu"))],
        "optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict(), "scaler": {}, "loader": {"taken": 3},
        "modules": {"": {"loss_normalizer": 7.0}}, "callbacks": {"EMA": {"updates": 1, "average": model.state_dict()}},
    }  # fmt: skip


def make_proposals() -> dict[str, np.ndarray]:
    """Return proposals of two images as the arrays of an ``.npz`` file."""
    return {
        "image_ids": np.array([3, 5]),
        "offsets": np.array([0, 2, 3]),
        "boxes": np.array([[1, 2, 8, 9], [0, 0, 5, 5], [2, 2, 6, 7]], dtype=np.float32),
        "objectness_logits": np.array([2.0, 1.0, 0.5], dtype=np.float32),
    }


def make_files() -> dict[str, bytes]:
    """Return a good file of each kind."""
    state = make_model().state_dict()
    arrays = make_proposals()
    npz = io.BytesIO()
    np.savez(npz, **arrays)  # type: ignore[arg-type]
    lists = {
        "ids": [3, 5],
        "boxes": [arrays["boxes"][:2], arrays["boxes"][2:]],
        "objectness_logits": [arrays["objectness_logits"][:2], arrays["objectness_logits"][2:]],
        "bbox_mode": 0,
    }
    return {
        "weights.pth": torch_file({"model": state, "iteration": 7}),
        "legacy.pth": torch_file({"model": state, "iteration": 7}, legacy=True),
        "weights.pkl": zoo_pickle({name: value.numpy() for name, value in state.items()}),
        "weights.safetensors": save({name: value.contiguous() for name, value in state.items()}),
        "training_state.pt": torch_file(make_training_state()),
        "proposals.npz": npz.getvalue(),
        "proposals.pkl": pickle.dumps(lists, protocol=2),
    }


def zoo_pickle(weights: object) -> bytes:
    """Return a file as the reference zoo publishes them."""
    return pickle.dumps({"model": weights, "__author__": "zoo", "iteration": 7}, protocol=2)


def read_weights_file(path: Path) -> None:
    """Initialize a model, as ``init_from=...`` does."""
    init_from(make_model(), path, allow_mismatch=True)


def read_training_state(path: Path) -> None:
    """Read the state of a checkpoint, and restore its random numbers."""
    present = random_state(torch.device("cpu"))
    state = Checkpoint(path.parent, {"step": 1}, verify=False).training_state()
    check_training_state(state, path)
    for random_numbers in state["random"]:
        set_random_state(random_numbers, torch.device("cpu"))
    set_random_state(present, torch.device("cpu"))


def read_proposals(path: Path) -> None:
    """Read proposals of two images."""
    ProposalFile.read(path)


READERS: dict[str, Callable[[Path], None]] = {
    "weights.pth": read_weights_file,
    "legacy.pth": read_weights_file,
    "weights.pkl": read_weights_file,
    "weights.safetensors": read_weights_file,
    "training_state.pt": read_training_state,
    "proposals.npz": read_proposals,
    "proposals.pkl": read_proposals,
}


# Changes


def mutate(content: bytes, generator: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield broken copies of bytes, each with the name of the change."""
    size = len(content)
    for length in (1, 2, 8, 9, 60, size // 4, size // 2, size - 22, size - 1):
        yield f"cut after {length} bytes", content[:length]
    for region, positions in (("", range(size)), (" in the first 200 bytes", range(min(200, size)))):
        for count in (1, 1, 1, 1, 1, 3, 10):
            yield f"{count} flipped bits{region}", flip_bits(content, positions, count, generator)
    for value in (0x00, 0x7F, 0xFF):
        for width in (1, 4, 8):
            start = generator.randrange(size)
            changed = content[:start] + bytes([value] * width) + content[start + width :]
            yield f"{width} bytes {value:#x} at {start}", changed
    middle = generator.randrange(size // 4, 3 * size // 4)
    yield "bytes removed", content[:middle] + content[middle + 7 :]
    yield "bytes inserted", content[:middle] + b"\x80\x02PK\x03\x04." + content[middle:]
    yield "block of zeros", content[:middle] + bytes(100) + content[middle + 100 :]
    yield "swapped halves", content[middle:] + content[:middle]
    yield "appended text", content + b"<html>" * 50


def flip_bits(content: bytes, positions: range, count: int, generator: random.Random) -> bytes:
    """Return a copy with some bits flipped."""
    changed = bytearray(content)
    for _ in range(count):
        changed[generator.choice(positions)] ^= 1 << generator.randrange(8)
    return bytes(changed)


def mutate_members(content: bytes, generator: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield copies of an archive with one broken record and a right checksum, which reach the parser of the record."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    for name, record in records:
        if name.endswith((".pkl", ".npy")):
            for change, broken in mutate(record, generator):
                yield f"{name}: {change}", pack([(n, broken if n == name else r) for n, r in records])
        elif "/data/" in name:
            yield f"{name}: cut", pack([(n, r[:-1] if n == name else r) for n, r in records])
            yield f"{name}: missing", pack([(n, r) for n, r in records if n != name])
        yield f"{name}: twice", pack([*records, (name, record)])


def pack(
    records: Sequence[tuple[str | zipfile.ZipInfo, bytes]], compression: int = zipfile.ZIP_STORED
) -> bytes:
    """Return a zip archive."""
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of names that occur twice
        for name, record in records:
            archive.writestr(name, record)
    return stream.getvalue()


def mutate_header(content: bytes, generator: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield copies of a safetensors file with another header."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    values: list[object] = [
        None,
        -1,
        2**63,
        2**70,
        "F32",
        "",
        [],
        [0, 0],
        [-4, 0],
        [0, 2**40],
        {},
        [2**40, 2**40],
    ]
    for value in values:
        for key in ("dtype", "shape", "data_offsets"):
            name = generator.choice(sorted(header))
            broken = json.dumps({**header, name: {**header[name], key: value}}).encode()
            yield f"{name}.{key} = {value}", struct.pack("<Q", len(broken)) + broken + data
    for length in (0, 1, 2**31, 2**40, 2**63, len(content), len(content) - 8):
        yield f"header of {length} bytes", struct.pack("<Q", length) + content[8:]


# Hostile files


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Return the call."""
        return self.function, self.arguments


def make_payloads() -> dict[str, object]:
    """Return objects that run code, change files, open connections or take all memory when a pickle restores them."""
    storage = torch.zeros(3).untyped_storage()
    rebuild = torch._utils._rebuild_tensor_v2
    empty: collections.OrderedDict[str, object] = collections.OrderedDict()
    return {
        "os.system": Call(os.system, f"touch {MARK}"),
        "subprocess": Call(subprocess.check_output, ["touch", MARK]),
        "eval": Call(eval, f"open('{MARK}', 'w')"),
        "exec": Call(exec, f"open('{MARK}', 'w')"),
        "open": Call(open, MARK, "w"),
        "import": Call(__import__, "hostile_module"),
        "makedirs": Call(os.makedirs, MARK),
        "getattr": Call(getattr, "x", "upper"),
        "torch.load": Call(torch.load, "weights.pth"),
        "torch.save": Call(torch.save, [], MARK),
        "torch.hub": Call(torch.hub.download_url_to_file, "http://127.0.0.1:9/x", MARK),
        "partial": functools.partial(os.system, f"touch {MARK}"),
        "module": nn.Linear(1, 1),
        "object array": np.array([Call(os.system, f"touch {MARK}")], dtype=object),
        "bytearray": Call(bytearray, 2**34),
        "FloatTensor": Call(torch.FloatTensor, 2**20, 2**14),
        "Tensor": Call(torch.Tensor, torch.Size([2**20, 2**14])),
        "list of ones": Call(torch.FloatTensor, [2**40]),
        "large tensor": Call(rebuild, storage, 0, (2**33,), (1,), False, empty),
        "repeated tensor": Call(rebuild, storage, 0, (2**20, 2**14), (0, 0), False, empty),
        "offset": Call(rebuild, storage, 2**40, (3,), (1,), False, empty),
        "negative stride": Call(rebuild, storage, 2, (3,), (-1,), False, empty),
        "no storage": Call(rebuild, 7, 0, (3,), (1,), False, empty),
    }


def hostile_files() -> Iterator[Case]:
    """Yield files that were written with intent."""
    for name, payload in make_payloads().items():
        for position, value in (
            ("alone", payload),
            ("in a state dict", {"model": {"0.bias": payload}, "step": payload}),
        ):
            label = f"{name} {position}"
            yield Case(label, "weights.pth", torch_file(value))
            yield Case(label, "legacy.pth", torch_file(value, legacy=True))
            yield Case(label, "training_state.pt", torch_file(value))
            if not isinstance(payload, nn.Module):
                with contextlib.suppress(TypeError, AttributeError):  # storages are not for plain pickles
                    for protocol in (0, 2, 4):
                        content = pickle.dumps(value, protocol=protocol)
                        yield Case(f"{label}, protocol {protocol}", "weights.pth", content)
                        yield Case(f"{label}, protocol {protocol}", "proposals.pkl", content)
                        yield Case(f"{label}, protocol {protocol}", "weights.pkl", content)
    zeros = bytes(2**26 + 1)  # packed, 65 kB
    records = [("a/data.pkl", pickle.dumps({}, 2)), ("a/version", b"3\n"), ("a/data/0", zeros)]
    yield Case("zip bomb", "weights.pth", pack(records, zipfile.ZIP_DEFLATED))
    yield Case("zip bomb", "training_state.pt", pack(records, zipfile.ZIP_DEFLATED))
    arrays = [(f"{name}.npy", zeros) for name in ("image_ids", "offsets", "boxes", "objectness_logits")]
    yield Case("zip bomb", "proposals.npz", pack(arrays, zipfile.ZIP_DEFLATED))
    yield Case("no records", "weights.pth", b"PK\x03\x04" + pack([]))
    yield Case("absolute names", "weights.pth", pack([("/etc/data.pkl", b"\x80\x02}."), ("../../x", b"x")]))
    link = zipfile.ZipInfo("a/data/0")
    link.external_attr = 0o120777 << 16
    linked = [("a/data.pkl", pickle.dumps({}, 2)), (link, b"/etc/passwd")]
    yield Case("symbolic link in an archive", "weights.pth", pack(linked))
    yield Case("TorchScript", "weights.pth", pack([("a/constants.pkl", b""), ("a/data.pkl", b"\x80\x02}.")]))
    legacy, count = make_files()["legacy.pth"], b"K\x08"  # numbers of a storage: 4 weights of 2 outputs
    for number in (b"J\xff\xff\xff\x7f", b"\x8a\x05\x00\x00\x00\x00\x01", b"J\xff\xff\xff\xff"):
        yield Case(f"storage of {number!r} numbers", "legacy.pth", legacy.replace(count, number))
    for kind in READERS:
        for name, content in OTHER_FILES.items():
            yield Case(name, kind, content)
    for name, content in make_hostile_pickles().items():
        for kind in ("weights.pkl", "weights.pth", "proposals.pkl"):
            yield Case(f"opcodes: {name}", kind, content)
        records = [("a/data.pkl", content), ("a/version", b"3\n"), ("a/byteorder", b"little")]
        yield Case(f"opcodes: {name}, in an archive", "weights.pth", pack(records))


def make_tar() -> bytes:
    """Return a tar archive, as torch wrote its files long ago, with links to absolute names."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    return stream.getvalue()


def make_hostile_pickles() -> dict[str, bytes]:
    """Return pickles that no program writes, by what they try."""
    touch = f"U{chr(len(MARK) + 6)}touch {MARK}".encode("latin1")
    system, call = b"cos\nsystem\n", touch + b"\x85R"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02%s\x89\x88\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"

    def state_dict(value: bytes, key: bytes = b"U\x010") -> bytes:
        return b"\x80\x02}U\x05model}" + key + value + b"sU\x0a__author__U\x01xs" + b"s."

    def filled(shape: bytes, kind: bytes = b"f4", content: bytes = b"U\x040000") -> bytes:
        return array + b"(K\x01" + shape + dtype.replace(b"%s", kind) + b"\x89" + content + b"tb"

    nested = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(60))
    calls = {
        "call in a list": b"](" + system + call + b"e",
        "call in a tuple": system + call + b"\x85",
        "call in a key": b"}" + system + call + b"K\x01s",
        "call in an ordered dict": b"ccollections\nOrderedDict\n](U\x01a" + system + call + b"\x86e\x85R",
        "call that is stored and removed": system + call + b"q\x050K\x01",
        "call from the memo": system + b"q\x050h\x05" + call,
        "call of an instance": b"(" + touch + b"ios\nsystem\n",
        "call of an object": b"(" + system + touch + b"o",
        "new object": system + touch + b"\x85\x81",
        "new object with keywords": system + touch + b"\x85}\x92",
        "name with dots": b"\x8c\x02os\x8c\x0epath.os.system\x93" + call,
        "name on the stack": b"\x8c\x05posix\x8c\x06system\x93" + call,
        "builtins eval": b"c__builtin__\neval\nU\x031+1\x85R",
        "builtins compile": b"cbuiltins\ncompile\nU\x01aU\x01aU\x04exec\x87R",
        "getattr of a module": b"c__builtin__\ngetattr\ncos\nenviron\nU\x05clear\x86R)R",
        "getattr of getattr": b"c__builtin__\ngetattr\nc__builtin__\ngetattr\nU\x08__self__\x86R",
        "getattr of an argument": b"c__builtin__\ngetattr\ncargparse\nNamespace\n)RU\x01a\x86R",
        "attrgetter": b"coperator\nattrgetter\nU\x06system\x85Rcos\npath\n\x85R",
        "methodcaller": b"coperator\nmethodcaller\nU\x06systemU\x01x\x86R",
        "copyreg": b"ccopyreg\n_reconstructor\ncos\nsystem\nc__builtin__\nobject\nN\x87R",
        "copyreg extension": b"ccopyreg\nadd_extension\nU\x02osU\x06systemK\x01\x87R\x82\x01",
        "codecs": b"c_codecs\nencode\nU\x01aU\x05rot13\x86R",
        "codecs of files": b"ccodecs\nopen\nU\x03filU\x01w\x86R",
        "numpy.load": b"cnumpy\nload\nU\x01x\x85R",
        "numpy.memmap": b"cnumpy\nmemmap\nU\x01x\x85R",
        "numpy.load of a submodule": b"cnumpy.lib.npyio\nload\nU\x01xN\x88\x87R",
        "ctypes": b"cctypes\nCDLL\nU\x01x\x85R",
        "runpy": b"crunpy\nrun_path\nU\x01x\x85R",
        "pickle in a pickle": b"cpickle\nloads\nU\x01x\x85R",
        "persistent id": b"U\x01xQ",
        "call in a persistent id": b"(U\x07storage" + system + b"U\x010U\x03cpuK\x01tQ",
        "extension code": b"\x84\xff\xff\xff\x7f",
        "out-of-band buffer": b"\x97",
        "state of a function": b"c_codecs\nencode\n}U\x08__code__K\x01sb",
        "state of a class": b"cnumpy\nndarray\n}U\x05valueK\x01sb",
        "array without content": array,
        "huge array": filled(b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"),
        "huge shape": filled(b"\x8a\x0a" + b"\xff" * 9 + b"\x00\x85"),
        "negative shape": filled(b"J\xff\xff\xff\xff\x85"),
        "shape of text": filled(b"U\x01a\x85"),
        "object dtype": filled(b"K\x01\x85", b"O8"),
        "dtype with fields": filled(b"K\x01\x85", b"O8").replace(b"U\x02O8", b"]U\x01aU\x02O8\x86a"),
        "list as content": filled(b"K\x01\x85", content=b"]" + system + b"a"),
        "many arrays of one content": b"T\x40\x9c\x00\x00"
        + bytes(40_000)
        + b"q\x050]("
        + filled(b"M\x10\x27\x85", content=b"h\x05") * 1000
        + b"e",
        "deep list": b"]" * 5000 + b"a" * 4999,
        "deep tuple": b")" + b"\x85" * 5000,
        "list that contains itself": b"]q\x05h\x05a",
        "key of nested tuples": b"}" + nested + b"K\x01s",
        "long number": b"\x8b\xff\xff\xff\x7f",
        "number of many digits": b"L" + b"9" * 100_000 + b"L\n",
        "long text": b"\x8d" + struct.pack("<Q", 2**60),
        "long bytes": b"\x8e" + struct.pack("<Q", 2**62),
        "long name": b"c" + b"a" * 100_000 + b"\n" + b"b" * 100_000 + b"\n)R",
        "name with control characters": b"ca\x1b[2J\r\nb\n)R",
        "memo of many": b"r\xff\xff\xff\x7f",
    }
    return {name: state_dict(content) for name, content in calls.items()}


OTHER_FILES = {
    "empty": b"",
    "one byte": b"\x80",
    "text": b"hello world, this is no tensor\n",
    "web page": b"<!DOCTYPE html><html><body>404: Not Found</body></html>",
    "server error": b'{"message": "Not Found"}',
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n",
    "zeros": bytes(5000),
    "random bytes": random.Random(1).randbytes(5000),
    "gzip": b"\x1f\x8b" + bytes(100),
    "tar": bytes(257) + b"ustar" + bytes(300),
    "tar with a symbolic link": make_tar(),
    "deep list": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "frame": b"\x80\x04\x95" + b"\xff" * 8 + b"}.",
    "long bytes": b"\x80\x05\x8e" + struct.pack("<Q", 2**40) + b".",
    "long bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "stop only": b"\x80\x02.",
    "pop of nothing": b"\x80\x02000.",
    "persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "extension": b"\x80\x02\x82\x01.",
}


def make_cases(seed: int = 0) -> Iterator[Case]:
    """Yield a good file of each kind, and all broken ones."""
    files = make_files()
    for kind, content in files.items():
        generator = random.Random(f"{seed} {kind}")
        yield Case("nothing changed", kind, content)
        for change, broken in mutate(content, generator):
            yield Case(change, kind, broken)
        if content.startswith(b"PK"):
            for change, broken in mutate_members(content, generator):
                yield Case(change, kind, broken)
        if kind.endswith(".safetensors"):
            for change, broken in mutate_header(content, generator):
                yield Case(change, kind, broken)
    yield from hostile_files()


# Checks


def check(case: Case, folder: Path, judge: Judge) -> tuple[str, list[str]]:
    """Read a file; return "read", or the message of the error, and what went wrong."""
    path = folder / case.kind
    path.write_bytes(case.content)
    before = sorted(folder.iterdir())
    outcome, failures = "read", []
    start = time.monotonic()
    with judge.watching(), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            READERS[case.kind](path)
        except (ValueError, OSError) as error:
            outcome = str(error)
            if case.kind not in outcome or not outcome.isprintable() or len(outcome) > MAX_MESSAGE:
                failures.append(f"message {outcome[:500]!r}")
        except Exception as error:  # this is what the corpus looks for
            failures.append(f"{type(error).__name__}: {str(error)[:300]}")
    failures += judge.violations
    if sorted(folder.iterdir()) != before or Path(MARK).exists():
        failures.append("a file appeared")
    seconds = time.monotonic() - start
    if seconds > MAX_SECONDS:
        failures.append(f"{seconds:.0f} seconds")
    return outcome, failures


def warm_up(folder: Path, judge: Judge) -> None:
    """Read a good and a broken file of each kind, so that the hook sees no import."""
    "x".encode("raw_unicode_escape")  # pickles of protocol 0 load this codec
    codecs.encode("x", "latin1")  # and those of arrays this one
    for kind, content in make_files().items():
        for change in (content, content[:50], b"x"):
            check(Case("warm up", kind, change), folder, judge)


def run(every: int, offset: int, seed: int, progress: Path) -> int:
    """Check the cases and return the number that failed."""
    judge = Judge()
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = list(make_cases(seed))[offset::every]
        warm_up(folder, judge)
        limit_memory()
        for case in cases:
            progress.write_text(f"{case.kind}: {case.name}", encoding="utf-8")
            faulthandler.dump_traceback_later(6 * MAX_SECONDS, exit=True)  # in case it hangs
            outcome, failures = check(case, folder, judge)
            counts["failed" if failures else "read" if outcome == "read" else "refused"] += 1
            for failure in failures:
                print(ascii(f"{case.kind}: {case.name}: {failure}"), flush=True)
        faulthandler.cancel_dump_traceback_later()
    print(
        f"{len(cases)} files: {counts['read']} read, {counts['refused']} refused, {counts['failed']} failures"
    )
    return counts["failed"]


def limit_memory() -> None:
    """Let allocations of gigabytes fail, on systems that support it."""
    try:
        import resource
    except ImportError:
        return
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + EXTRA_MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    """Run all cases in a child process, so that a crash is a result too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--every", type=int, default=1, help="check every n-th case only")
    parser.add_argument("--offset", type=int, default=0, help="first case")
    parser.add_argument("--seed", type=int, default=0, help="seed of the changes")
    parser.add_argument("--progress", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.progress is not None:
        sys.exit(min(run(options.every, options.offset, options.seed, options.progress), 1))
    with tempfile.TemporaryDirectory() as name:
        progress = Path(name) / "progress"
        command = [sys.executable, *sys.argv, "--progress", str(progress)]
        status = subprocess.run(command, check=False).returncode
        if status not in (0, 1):
            print(f"exit status {status} at {progress.read_text(encoding='utf-8')}")
    sys.exit(1 if status else 0)


if __name__ == "__main__":
    main()
