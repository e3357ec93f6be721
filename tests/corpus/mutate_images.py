"""Break image files of all formats; hydet reads each one, or names the file and the cause in one line.

Usage::

    python tests/corpus/mutate_images.py              # all cases, about half a minute
    python tests/corpus/mutate_images.py --every 20   # a twentieth of them

The files are read by processes of their own. A case fails if its process crashes, hangs or needs much more memory than the
image, if anything but a ``DataError`` is raised, if the message has several lines or no file name, or if ``read_image`` and
``read_image_size`` disagree. The exit status is 1 if a case fails.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (70, 50)  # width, height
MAX_SECONDS = 20.0  # per image; one takes a few milliseconds
MAX_MEMORY = 4 * 2**30  # bytes of address space above what the process has mapped before the first image
OUTCOMES = ("read", "refused", "failed")

# Format -> file suffix and settings of Pillow, for several kinds of files of the format.
KINDS: dict[str, tuple[str, str, dict[str, object]]] = {
    "PNG": ("png", "RGB", {}),
    "PNG palette": ("png", "P", {}),
    "PNG 16 bits": ("png", "I;16", {}),
    "PNG animation": ("png", "RGB", {"save_all": True}),
    "JPEG": ("jpg", "RGB", {"quality": 85}),
    "JPEG progressive": ("jpg", "RGB", {"progressive": True}),
    "JPEG gray": ("jpg", "L", {}),
    "JPEG CMYK": ("jpg", "CMYK", {}),
    "WebP": ("webp", "RGB", {}),
    "WebP lossless": ("webp", "RGBA", {"lossless": True}),
    "WebP animation": ("webp", "RGB", {"save_all": True}),
    "GIF": ("gif", "P", {}),
    "GIF animation": ("gif", "P", {"save_all": True}),
    "TIFF": ("tif", "RGB", {}),
    "TIFF LZW": ("tif", "RGB", {"compression": "tiff_lzw"}),
    "TIFF JPEG": ("tif", "RGB", {"compression": "jpeg"}),
    "TIFF float": ("tif", "F", {}),
    "TIFF pages": ("tif", "RGB", {"save_all": True}),
    "BMP": ("bmp", "RGB", {}),
    "BMP palette": ("bmp", "P", {}),
}


def encode(kind: str) -> bytes:
    """Return a good file with an EXIF orientation where the format has one."""
    suffix, mode, settings = KINDS[kind]
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE[1] // 5, SIZE[0] // 5, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 16)
    else:
        image = image.convert(mode)
    settings = dict(settings)
    if settings.get("save_all"):
        settings["append_images"] = [image.rotate(90), image.rotate(180)]
    if suffix in ("png", "jpg", "webp", "tif"):
        exif = Image.Exif()
        exif[0x0112] = 6
        settings["exif"] = exif
    stream = io.BytesIO()
    image.save(stream, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), **settings)
    return stream.getvalue()


def mutate(content: bytes, generator: random.Random) -> Iterator[tuple[str, bytes]]:
    """Yield broken copies of a file, each with the name of the change."""
    size = len(content)
    for length in (1, 4, 8, 16, 24, 33, 60, size // 4, size // 2, size - 100, size - 12, size - 5, size - 1):
        yield f"cut after {length} bytes", content[:length]
    for count in (1, 1, 1, 1, 1, 1, 3, 3, 10, 40):
        yield f"{count} flipped bits", flip_bits(content, range(size), count, generator)
    header = range(4, min(size, 64))
    for count in (1, 1, 1, 1, 1, 2, 4, 8):
        yield f"{count} flipped bits in the header", flip_bits(content, header, count, generator)
    for value in (0x00, 0x7F, 0xFF):
        for width in (1, 2, 4):
            start = generator.choice(header)
            yield (
                f"{width} bytes {value:#x} at {start}",
                content[:start] + bytes([value] * width) + content[start + width :],
            )
    middle = generator.randrange(size // 4, 3 * size // 4)
    yield "bytes removed", content[:middle] + content[middle + 7 :]
    yield "bytes inserted", content[:middle] + b"\xff\xd9\x00IEND" + content[middle:]
    yield "block of zeros", content[:middle] + bytes(200) + content[middle + 200 :]
    yield "swapped halves", content[middle:] + content[:middle]
    yield "appended text", content + b"<html>" * 50
    yield "start of another format", b"\x89PNG\r\n\x1a\n" + content[8:]


def flip_bits(content: bytes, positions: Sequence[int], count: int, generator: random.Random) -> bytes:
    """Return a copy with some bits flipped."""
    changed = bytearray(content)
    for _ in range(count):
        changed[generator.choice(positions)] ^= 1 << generator.randrange(8)
    return bytes(changed)


def write_cases(folder: Path, *, every: int, seed: int) -> list[tuple[str, str, Path]]:
    """Write the broken files; return kind, change and path of each."""
    generator = random.Random(seed)
    cases = []
    for kind, (suffix, _, _) in KINDS.items():
        for change, content in mutate(encode(kind), generator):
            cases.append((kind, change, folder / f"{len(cases):04d}.{suffix}"))
            if (len(cases) - 1) % every == 0:
                cases[-1][2].write_bytes(content)
    return cases[::every]


def read_file(path: Path) -> str:
    """Read an image in every way; return the outcome, ``"failed"`` with a reason."""
    from hydet.data import DataError, read_image
    from hydet.data.images.reading import read_image_size, read_labels

    outcomes = []
    sizes = []
    for read in (read_image, read_image_size, read_labels):
        try:
            result = read(path)
        except DataError as error:
            if str(path) not in str(error) or "\n" in str(error):
                return f"failed: the message of {read.__name__} is {error}"
            outcomes.append("refused")
            continue
        except BaseException as error:
            return f"failed: {read.__name__} raised {type(error).__name__}: {error}"
        outcomes.append("read")
        if read is read_image:
            if result.shape[0] != 3 or result.ndim != 3 or str(result.dtype) != "torch.uint8":
                return f"failed: the image has shape {tuple(result.shape)} and type {result.dtype}"
            sizes.append(tuple(result.shape[1:]))
        elif read is read_image_size:
            sizes.append(result)
    if outcomes[0] == "read" and outcomes[1] == "refused":
        return "failed: read_image reads the file, read_image_size does not"
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        return f"failed: the image has size {sizes[0]}, its header {sizes[1]}"
    return outcomes[0]


def run_worker() -> None:
    """Read the files whose paths arrive on standard input; answer each with a line."""
    import hydet.data  # noqa: F401 - its memory does not count

    try:
        import resource
    except ImportError:  # Windows
        pass
    else:
        with Path("/proc/self/statm").open(encoding="ascii") as stream:
            mapped = int(stream.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MAX_MEMORY, resource.RLIM_INFINITY))
    for line in sys.stdin:
        print(json.dumps(read_file(Path(json.loads(line)))), flush=True)


class Worker:
    """A process that reads files and may crash; the next file then gets a new one."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def read(self, path: Path) -> str:
        """Return the outcome of a file."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", __file__, "--worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
            )  # fmt: skip
        process = self.process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(str(path)) + "\n")
        process.stdin.flush()
        timer = threading.Timer(MAX_SECONDS + 60, process.kill)  # the first file waits for imports
        timer.start()
        line = process.stdout.readline()
        timer.cancel()
        if line:
            return str(json.loads(line))
        self.process = None
        return f"failed: the process ended with status {process.wait()}"

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.communicate()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of the outcomes by format; return 1 if a case failed."""
    parser = argparse.ArgumentParser(description="Break image files in many ways and read them.")
    parser.add_argument("--every", type=int, default=1, help="take each n-th case")
    parser.add_argument("--seed", type=int, default=0, help="seed of the changes")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        run_worker()
        return 0
    table: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in KINDS}
    failures = []
    worker = Worker()
    with tempfile.TemporaryDirectory() as folder:
        cases = write_cases(Path(folder), every=options.every, seed=options.seed)
        for kind, change, path in cases:
            outcome = worker.read(path)
            table[kind][outcome.partition(":")[0]] += 1
            if outcome.startswith("failed"):
                failures.append(f"{kind}, {change}: {outcome}")
        worker.close()
    print(f"{'':18}" + "".join(f"{name:>9}" for name in OUTCOMES))
    for kind, counts in table.items():
        print(f"{kind:18}" + "".join(f"{counts[name]:9}" for name in OUTCOMES))
    print(f"{len(cases)} files, {len(failures)} failures", *failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
