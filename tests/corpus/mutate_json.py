"""Break annotation files in thousands of ways; hydet reads each one, or names the file and the cause in one line.

Usage::

    python tests/corpus/mutate_json.py              # all cases, about a minute
    python tests/corpus/mutate_json.py --every 20   # a twentieth of them

A case fails if it crashes, hangs, takes more memory than the file explains, raises anything but a ``DataError``, warns,
or reports a problem without the name of a file. The exit status is 1 if a case fails.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import faulthandler
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from hydet.data import CocoDataset, DataError, InputMapper, frequency_weights
from hydet.data.coco.panoptic import ids_to_rgb

SIZE = (24, 20)  # width, height
POLICIES = ("drop", "clamp", "raise")
MAX_SECONDS = 10.0  # per case; one takes a few milliseconds
MAX_MESSAGE = 4000  # characters
EXTRA_MEMORY = 3 * 2**30  # bytes above what the process has mapped before the first case

# Values of wrong types and ranges. json.dumps writes NaN and Infinity, which Python reads again.
BAD_VALUES: list[object] = [
    None, True, False, "", "x", "7", "1.5", "\ud800", "a\nb\x1b[31m", "x" * 5000, -1, 0, 1, 0.5, 7.0, 2**31, 2**53 + 1, 2**63,
    2**70, 10**400, -(2**70), 1e9, 1e300, -1e300, 1e-7, float("nan"), float("inf"), float("-inf"), [], {}, [[]], [None],
    [5], ["x"], {"a": 1}, [[[1]]], [float("nan")] * 4, [1e9] * 8, [2**70] * 4,
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """A broken file.

    Args:
        name: the change that was made.
        kind: the kind of file: instances, keypoints, lvis, rotated or panoptic.
        content: the bytes of the file.
    """

    name: str
    kind: str
    content: bytes


def write_images(folder: Path) -> None:
    """Write the images and the panoptic maps that the files refer to."""
    for name in ("a", "b"):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "maps").mkdir(exist_ok=True)
        Image.new("RGB", SIZE, (90, 120, 60)).save(folder / "images" / f"{name}.png")
        segments = np.full(SIZE[::-1], 3, dtype=np.int32)
        segments[:10, :12] = 300
        Image.fromarray(ids_to_rgb(segments)).save(folder / "maps" / f"{name}.png")


def make_documents() -> dict[str, dict[str, object]]:
    """Return a good file of each kind."""
    width, height = SIZE
    mask = np.zeros((height, width, 1), dtype=np.uint8, order="F")
    mask[4:9, 5:11] = 1
    code = coco_mask.encode(mask)[0]["counts"].decode()
    images = [
        {"id": i, "file_name": f"{n}.png", "width": width, "height": height} for i, n in ((5, "a"), (6, "b"))
    ]
    square = [4, 5, 14, 5, 14, 13, 4, 13]
    regions: list[object] = [
        [square],
        {"size": [height, width], "counts": code},
        {"size": [height, width], "counts": [100, 20, height * width - 120]},
        [square, [1, 1, 3, 1, 3, 3]],
    ]
    annotations = [
        {"id": i, "image_id": 5 + i % 2, "category_id": 1 + i % 2, "bbox": [4, 5, 10, 8], "area": 80.0, "iscrowd": int(i == 3),
         "segmentation": region}
        for i, region in enumerate(regions, 1)
    ]  # fmt: skip
    categories = [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "dog"}]
    instances = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    keypoints = copy.deepcopy(instances)
    for category in keypoints["categories"]:
        category |= {
            "keypoints": ["left_eye", "right_eye"],
            "skeleton": [[1, 2]],
            "keypoint_sigmas": [0.1, 0.2],
        }
    for annotation in keypoints["annotations"]:
        annotation |= {"keypoints": [5, 6, 2, 9, 8, 1], "num_keypoints": 2}
    lvis = copy.deepcopy(instances)
    for image in lvis["images"]:
        image |= {"coco_url": f"http://example.org/images/{image.pop('file_name')}", "neg_category_ids": [2]}
        image["not_exhaustive_category_ids"] = [1]
    for category in lvis["categories"]:
        category |= {"frequency": "r", "image_count": 2, "synset": "x.n.01"}
    rotated = copy.deepcopy(instances)
    rotated["annotations"][0] |= {"attributes": {"occluded": False, "rotation": 30.0}}
    rotated["annotations"][1] |= {"rotated_bbox": [9, 9, 10, 8, 30]}
    rotated["annotations"][2] |= {"bbox": [9, 9, 10, 8, 30], "ignore": 0, "difficult": 0}
    segments = [
        {"id": 300, "category_id": 1, "area": 120, "iscrowd": 0},
        {"id": 3, "category_id": 2, "iscrowd": 0},
    ]
    panoptic = {
        "annotations": [{"image_id": i, "file_name": f"{n}.png", "segments_info": segments} for i, n in ((5, "a"), (6, "b"))],
        "categories": [{"id": 1, "name": "cat", "isthing": 1}, {"id": 2, "name": "sky", "isthing": 0}],
    }  # fmt: skip
    kinds = {
        "instances": instances,
        "keypoints": keypoints,
        "lvis": lvis,
        "rotated": rotated,
        "panoptic": panoptic,
    }
    return json.loads(json.dumps(kinds))  # no part of one document is part of another


def make_cases() -> Iterator[Case]:
    """Yield all cases, always in the same order."""
    for kind, document in make_documents().items():
        yield Case("nothing changed", kind, encode(document))
        yield from change_values(kind, document)
        yield from change_lists(kind, document)
        yield from change_bytes(kind, document)


def encode(document: object) -> bytes:
    return json.dumps(document).encode()


def change_values(kind: str, document: dict[str, object]) -> Iterator[Case]:
    """Replace each value by values of other types and ranges, and leave each field out."""
    paths = list(list_paths(document))
    # Other kinds have most fields in common with "instances", and most values behave alike.
    step = 2 if kind == "instances" else 8
    for number, path in enumerate(paths):
        for position, value in enumerate(BAD_VALUES):
            if (position + number) % step == 0:
                yield Case(f"{show(path)} = {value!r:.40}", kind, encode(with_value(document, path, value)))
        if isinstance(path[-1], str):
            yield Case(f"{show(path)} missing", kind, encode(with_value(document, path, ...)))


def change_lists(kind: str, document: dict[str, object]) -> Iterator[Case]:
    """Repeat, reverse and empty each list of entries."""
    for key, entries in document.items():
        if not isinstance(entries, list):
            continue
        variants = {
            "twice": entries * 2,
            "reversed": entries[::-1],
            "first": entries[:1],
            "last": entries[-1:],
        }
        variants |= {"first twice": [entries[0], *entries], "many": entries * 200, "nested": [entries]}
        for name, value in variants.items():
            yield Case(f"{key} {name}", kind, encode(document | {key: value}))
        for a, b in (("id", "image_id"), ("image_id", "id"), ("id", "category_id"), ("id", "file_name")):
            swapped = [entry | {a: entry.get(b)} for entry in entries]
            yield Case(f"{key} {a} from {b}", kind, encode(document | {key: swapped}))


def change_bytes(kind: str, document: dict[str, object]) -> Iterator[Case]:
    """Cut the file off, change its encoding, and replace it by files of other formats."""
    content = encode(document)
    for part in range(1, 25):
        yield Case(f"cut off at {part}/25", kind, content[: len(content) * part // 25])
        position = len(content) * part // 25
        yield Case(f"byte ff at {part}/25", kind, content[:position] + b"\xff" + content[position:])
    text = content.decode()
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp500"):
        yield Case(encoding, kind, text.encode(encoding))
    accents = json.dumps(document, ensure_ascii=False).replace("cat", "caté")
    for encoding in ("utf-8", "latin-1", "cp1252", "shift_jis"):
        yield Case(f"accents in {encoding}", kind, accents.encode(encoding, errors="replace"))
    deep = "[" * 200_000
    others = {
        "empty": b"",
        "spaces": b" \n",
        "null bytes": b"\0" * 100,
        "two byte order marks": b"\xef\xbb\xbf" * 2 + content,
        "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90728\n",
        "HTML": b"<!DOCTYPE html><html></html>",
        "gzip": b"\x1f\x8b\x08\0" + content,
        "zip": b"PK\x03\x04" + content,
        "two documents": content + b"\n" + content,
        "long number": content.replace(b'"id": 1', b'"id": ' + b"9" * 10_000, 1),
        "exponent": content.replace(b"14", b"1e99999", 1),
        "deep": deep.encode(),
        "deep value": text.replace('"images"', f'"info": {deep + "]" * 200_000}, "images"', 1).encode(),
        "deep field": with_text(text, "[4, 5,", "[" * 900 + "]" * 900 + ", [4, 5,").encode(),
        "repeated keys": text.replace('"categories"', '"categories": [], "categories"', 1).encode(),
        "single quotes": text.replace('"', "'").encode(),
        "JavaScript": b"var data = " + content + b";",
        "comments": b"// a comment\n" + content,
        "list": b"[" + content + b"]",
    }
    for name, value in others.items():
        yield Case(name, kind, value)


def with_text(text: str, old: str, new: str) -> str:
    return text.replace(old, new, 1)


def list_paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value below a document; of long lists, those of the first two and the last entries."""
    if isinstance(value, dict):
        items: list[tuple[str | int, object]] = list(value.items())
    elif isinstance(value, list):
        chosen = sorted({0, 1, len(value) - 1} & set(range(len(value))))
        items = [(i, value[i]) for i in chosen]
    else:
        return
    for key, item in items:
        yield (*path, key)
        yield from list_paths(item, (*path, key))


def with_value(document: object, path: tuple[str | int, ...], value: object) -> object:
    """Return a copy of a document with another value at a path; ``...`` removes the key."""
    changed = copy.deepcopy(document)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]  # type: ignore[index]
    if value is ...:
        del parent[path[-1]]  # type: ignore[attr-defined]
    else:
        parent[path[-1]] = value  # type: ignore[index]
    return changed


def show(path: tuple[str | int, ...]) -> str:
    return "/".join(map(str, path))


def check(case: Case, folder: Path) -> list[str]:
    """Read a file under each policy, and return what went wrong."""
    path = folder / "case.json"
    path.write_bytes(case.content)
    failures = []
    for policy in POLICIES:
        start = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                failures += [
                    f"{policy}: report {message!r}" for message in read(case.kind, path, folder, policy)
                ]
        except DataError as error:
            if not is_clear(str(error)):
                failures.append(f"{policy}: message {str(error)[:500]!r}")
        except Exception as error:  # this is what the corpus looks for
            failures.append(f"{policy}: {type(error).__name__}: {str(error)[:300]}")
        seconds = time.monotonic() - start
        if seconds > MAX_SECONDS:
            failures.append(f"{policy}: {seconds:.0f} seconds")
    return failures


def is_clear(message: str) -> bool:
    """Return True if a message is one printable line that names a file."""
    return (
        any(name in message for name in (".json", ".png", "images/", "maps/"))
        and "\n" not in message
        and len(message) < MAX_MESSAGE
    )


def read(kind: str, path: Path, folder: Path, policy: str) -> list[str]:
    """Use a file as a run does; return the reported problems that name no file."""
    arguments = {"json": path, "images": folder / "images", "policy": policy}
    if kind == "panoptic":
        arguments |= {"json": folder / "good.json", "panoptic_json": path, "panoptic_images": folder / "maps"}
    dataset = CocoDataset(**arguments)
    mapper = InputMapper(
        training=True,
        keypoints=dataset.metadata.num_keypoints > 0,
        mask_format="polygon" if dataset[0].segments is not None else None,
        sem_seg=kind == "panoptic",
    )
    for index in range(len(dataset)):
        mapper(dataset[index], index)
    json.dumps(dataset.to_coco()).encode()
    if kind in ("instances", "lvis"):
        with contextlib.suppress(DataError):
            frequency_weights(json=path, num_classes=2)
    str(dataset.report()).encode()
    return [p.message for p in dataset.report().problems if not is_clear(p.message)]


def run(every: int, offset: int, progress: Path) -> int:
    """Check the cases and return the number that failed."""
    limit_memory()
    num_cases, failed = 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder)
        (folder / "good.json").write_bytes(encode(make_documents()["instances"]))
        for case in list(make_cases())[offset::every]:
            progress.write_text(f"{case.kind}: {case.name}", encoding="utf-8", errors="backslashreplace")
            faulthandler.dump_traceback_later(6 * MAX_SECONDS, exit=True)  # in case it hangs
            failures = check(case, folder)
            num_cases, failed = num_cases + 1, failed + bool(failures)
            for failure in failures:
                print(ascii(f"{case.kind}: {case.name}: {failure}"), flush=True)
        faulthandler.cancel_dump_traceback_later()
    print(f"{num_cases} cases, {failed} failed")
    return failed


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
    parser.add_argument("--progress", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.progress is not None:
        sys.exit(min(run(arguments.every, arguments.offset, arguments.progress), 1))
    with tempfile.TemporaryDirectory() as name:
        progress = Path(name) / "progress"
        status = subprocess.run(
            [sys.executable, *sys.argv, "--progress", str(progress)], check=False
        ).returncode
        if status not in (0, 1):
            print(f"exit status {status} at {progress.read_text(encoding='utf-8')}")
    sys.exit(1 if status else 0)


if __name__ == "__main__":
    main()
