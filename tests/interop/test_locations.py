"""From sources of weights to files."""

import hashlib
from pathlib import Path

import pytest

from hydet.data import DataError
from hydet.interop import find_weights, locations, recipe
from hydet.interop.locations import cache_folder, cached_path, is_remote, locate, resolve_url

RECIPE = "COCO-Detection/retinanet_R_50_FPN_3x"


@pytest.fixture
def mirror(web, monkeypatch):
    """Serve all addresses of the reference zoo from the web server of the test."""
    original = locations.download
    hosts = "https://dl.fbaipublicfiles.com"
    monkeypatch.setattr(
        locations,
        "download",
        lambda url, path, **options: original(url.replace(hosts, web.url), path, **options),
    )
    return web


def test_existing_files_and_folders_are_themselves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "COCO-Detection").mkdir()
    file = tmp_path / RECIPE
    file.write_bytes(b"mine")
    assert find_weights(str(file)) == find_weights(file) == file
    assert find_weights(RECIPE) == Path(RECIPE) and not is_remote(RECIPE)
    assert find_weights(tmp_path) == tmp_path


def test_the_hash_of_a_local_file_is_compared(tmp_path):
    file = tmp_path / "a.pkl"
    file.write_bytes(b"a")
    digest = hashlib.sha256(b"a").hexdigest()
    assert find_weights(file, sha256=digest) == find_weights(f"{file}#sha256={digest}") == file
    with pytest.raises(DataError, match=f"{file} has the SHA-256 hash {digest}, expected 0000"):
        find_weights(file, sha256="0" * 64)
    with pytest.raises(DataError, match="is not a file"):
        find_weights(tmp_path, sha256=digest)


def test_an_address_is_downloaded_into_the_cache(web, tmp_path):
    web.files["/x/a.pkl"] = b"a"
    path = find_weights(f"{web.url}/x/a.pkl")
    assert (
        path
        == tmp_path / "cache" / "weights" / web.url.removeprefix("http://").replace(":", "_") / "x" / "a.pkl"
    )
    assert path.read_bytes() == b"a" and is_remote(f"{web.url}/x/a.pkl")


def test_a_hash_in_an_address_is_compared(web):
    web.files["/a.pkl"] = b"a"
    with pytest.raises(DataError, match="expected 0000"):
        find_weights(f"{web.url}/a.pkl#sha256={'0' * 64}")
    assert find_weights(f"{web.url}/a.pkl#sha256={hashlib.sha256(b'a').hexdigest()}").exists()
    assert web.requests[-1][0] == "/a.pkl"


def test_a_recipe_is_its_trained_model(mirror):
    mirror.files["/detectron2/" + recipe(RECIPE).url.partition("/detectron2/")[2]] = b"retinanet"
    assert is_remote(RECIPE) and find_weights(RECIPE).read_bytes() == b"retinanet"
    assert find_weights(RECIPE).name == "model_final_5bd44e.pkl" and len(mirror.requests) == 1
    assert find_weights(f"{RECIPE}.yaml") == find_weights(RECIPE)


@pytest.mark.parametrize(
    "source, path",
    [
        ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", "detectron2/ImageNetPretrained/MSRA/R-50.pkl"),
        ("catalog://ImageNetPretrained/MSRA/R-50", "detectron/ImageNetPretrained/MSRA/R-50.pkl"),
        ("catalog://ImageNetPretrained/FAIR/R-50-GN", "detectron/ImageNetPretrained/47261647/R-50-GN.pkl"),
        ("catalog://ImageNetPretrained/FAIR/X-152-32x8d-IN5k", "detectron/ImageNetPretrained/25093814/X-152-32x8d-IN5k.pkl"),
    ],
)  # fmt: skip
def test_schemes_of_the_reference(source, path):
    assert resolve_url(source) == f"https://dl.fbaipublicfiles.com/{path}"


def test_matching_heuristics_is_not_part_of_the_address(web, tmp_path):
    web.files["/a.pkl"] = b"a"
    source = f"{web.url}/a.pkl?matching_heuristics=True"
    assert locate(source) == (find_weights(f"{web.url}/a.pkl"), True)
    assert resolve_url("https://x/a?k=v&matching_heuristics=True") == "https://x/a?k=v"
    local = tmp_path / "a.pkl"
    local.write_bytes(b"a")
    assert find_weights(f"{local}?matching_heuristics=True") == local
    assert locate(local) == (local, None)
    assert locate(f"{local}?matching_heuristics=True") == (local, True)
    assert locate(f"{local}?matching_heuristics=False") == (local, None)
    odd = tmp_path / "b.pth?matching_heuristics=True"
    odd.touch()
    assert locate(odd) == (odd, None)
    assert locate("nowhere/runs") == (Path("nowhere/runs"), None)


@pytest.mark.parametrize(
    "source, message",
    [
        ("s3://bucket/a.pkl", r"s3:// is not supported, only https, http, detectron2 and catalog"),
        ("file:///etc/passwd", r"file:// is not supported"),
        (
            "catalog://ImageNetPretrained/R-50",
            r"the catalog has no such entry; it has ImageNetPretrained/MSRA/R-50",
        ),
        (
            "COCO-Detection/fcos_R_50_FPN_1x",
            r"no trained model of the recipe COCO-Detection/fcos.* was published",
        ),
    ],
)
def test_sources_that_have_no_file(source, message):
    with pytest.raises(DataError, match=message):
        find_weights(source)


def test_a_missing_file_names_the_nearest_recipe():
    with pytest.raises(
        FileNotFoundError, match=r"weights COCO-Detection/retina_R_50_FPN_3x: no such file; did you mean"
    ):
        find_weights("COCO-Detection/retina_R_50_FPN_3x")
    with pytest.raises(FileNotFoundError, match=r"weights nowhere/model\.pth: no such file$"):
        find_weights(Path("nowhere/model.pth"))
    assert not is_remote("nowhere/model.pth")


@pytest.mark.parametrize(
    "url",
    ["https://x/../../etc/passwd", "https://../a", "https://x/%2e%2e/a", "https://x/a/..", "https://x/a\\..\\b", "https://x/c:/b"],
)  # fmt: skip
def test_downloads_stay_in_the_cache(web, url):
    path = cached_path(url)
    assert ".." not in path.parts and path.resolve().is_relative_to((cache_folder() / "weights").resolve())
    assert not set(":\\") & set(path.relative_to(cache_folder()).as_posix())


def test_addresses_that_differ_have_files_that_differ(web):
    urls = [
        "https://x/a.pkl",
        "https://x/a.pkl?v=1",
        "https://x/a.pkl?v=2",
        "https://y/a.pkl",
        "https://x/b/a.pkl",
        "https://x/a pkl",
    ]
    assert len({cached_path(url) for url in urls}) == len(urls)
    assert cached_path("https://x/a.pkl?v=1").suffix == ".pkl"
    assert len(cached_path("https://x/" + "a" * 400 + ".pkl").name) < 200
    assert cached_path("https://user:secret@x/a.pkl").parent.name == "x"


def test_the_default_cache_is_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("HYDET_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(locations.sys, "platform", "linux")
    assert cache_folder() == tmp_path / ".cache" / "hydet"
    monkeypatch.setattr(locations.sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "hydet"
    monkeypatch.setattr(locations.sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "Local"))
    assert cache_folder() == tmp_path / "Local" / "hydet" / "Cache"
