"""Downloads from a server that breaks connections, sends wrong sizes, redirects, or is slow."""

import hashlib
import random
import socket
import subprocess
import sys
import threading
from functools import partial

import pytest

from hydet.data import DataError
from hydet.interop import downloads
from hydet.interop.downloads import download

CONTENT = random.Random(0).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
fetch = partial(download, timeout=5, pauses=(0.0, 0.0, 0.0))


@pytest.fixture
def url(web):
    web.files["/a.pkl"] = CONTENT
    return f"{web.url}/a.pkl"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights" / "a.pkl"


def files_beside(path):
    return sorted(p.name for p in path.parent.iterdir() if not p.name.endswith(".lock"))


def test_a_file_is_downloaded_once(web, url, path):
    assert fetch(url, path, sha256=SHA256.upper()) == path
    assert path.read_bytes() == CONTENT and files_beside(path) == ["a.pkl"]
    fetch(url, path)
    assert len(web.requests) == 1 and web.requests[0][1]["User-Agent"].startswith("hydet/")


def test_an_empty_file(web, path):
    web.files["/a.pkl"] = b""
    assert fetch(f"{web.url}/a.pkl", path).read_bytes() == b""


def test_a_broken_connection_is_resumed(web, url, path):
    web.answers["/a.pkl"] = [web.break_after(100_000), web.break_after(250_000)]
    assert fetch(url, path).read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in web.requests] == [None, "bytes=100000-", "bytes=250000-"]


def test_a_later_call_resumes(web, url, path):
    web.answers["/a.pkl"] = [web.break_after(100_000)]
    with pytest.raises(
        DataError, match=r"ended after 100000 of 300000 bytes.* continues after the first 100000"
    ):
        download(url, path, pauses=())
    assert not path.exists() and files_beside(path) == ["a.pkl.part", "a.pkl.part.json"]
    assert fetch(url, path).read_bytes() == CONTENT
    assert web.requests[-1][1]["Range"] == "bytes=100000-" and files_beside(path) == ["a.pkl"]


def test_another_version_on_the_server_starts_anew(web, url, path):
    web.answers["/a.pkl"] = [web.break_after(100_000)]
    with pytest.raises(DataError):
        download(url, path, pauses=())
    web.files["/a.pkl"] = CONTENT[::-1]
    assert fetch(url, path).read_bytes() == CONTENT[::-1]


def test_another_address_starts_anew(web, url, path):
    web.answers["/a.pkl"] = [web.break_after(100_000)]
    with pytest.raises(DataError):
        download(url, path, pauses=())
    web.files["/b.pkl"] = CONTENT[::-1]
    assert fetch(f"{web.url}/b.pkl", path).read_bytes() == CONTENT[::-1]
    assert "Range" not in web.requests[-1][1]


def test_without_a_version_the_download_starts_anew(web, url, path):
    web.answers["/a.pkl"] = [web.break_after(100_000, etag=False)]
    assert fetch(url, path).read_bytes() == CONTENT
    assert "Range" not in web.requests[-1][1]


def test_another_range_than_requested_is_not_appended(web, url, path):
    def send_wrong_range(handler):
        handler.send_response(206)
        handler.send_header("Content-Range", "bytes 5-299999/300000")
        handler.end_headers()
        handler.wfile.write(CONTENT[5:])

    web.answers["/a.pkl"] = [web.break_after(100_000), send_wrong_range]
    assert fetch(url, path).read_bytes() == CONTENT
    assert "Range" not in web.requests[-1][1]


def test_a_part_beyond_the_file_is_removed(web, url, path):
    web.answers["/a.pkl"] = [web.break_after(100_000), web.status(416)]
    assert fetch(url, path).read_bytes() == CONTENT
    assert "Range" not in web.requests[-1][1]


def test_a_complete_part_needs_no_request(web, url, path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(downloads._Part, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch(url, path)
    assert fetch(url, path).read_bytes() == CONTENT and len(web.requests) == 1


def test_a_damaged_part_is_downloaded_again_if_the_hash_is_known(web, url, path):
    web.answers["/a.pkl"] = [web.break_after(100_000)]
    with pytest.raises(DataError):
        download(url, path, pauses=())
    part = path.with_name("a.pkl.part")
    part.write_bytes(b"x" + part.read_bytes()[1:])
    assert fetch(url, path, sha256=SHA256).read_bytes() == CONTENT


def test_a_content_of_unknown_length(web, url, path):
    web.answers["/a.pkl"] = [lambda handler: web.send_file(handler, length=False)]
    assert fetch(url, path).read_bytes() == CONTENT


def test_a_broken_chunked_transfer_is_an_error(web, url, path):
    def send_one_chunk(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"10\r\n0123456789abcdef\r\n20\r\nabc")
        handler.close_connection = True

    web.answers["/a.pkl"] = [send_one_chunk]
    with pytest.raises(DataError, match="the connection broke"):
        download(url, path, pauses=())
    assert not path.exists()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_gets_further_requests(web, url, path, status, monkeypatch):
    pauses = []
    monkeypatch.setattr(downloads.time, "sleep", pauses.append)
    web.answers["/a.pkl"] = [web.status(status, Retry_After="7"), web.status(status)]
    assert download(url, path, pauses=(1.0, 2.0)).read_bytes() == CONTENT
    assert pauses == [7.0, 2.0]


def test_errors_that_stay_end_the_download(web, url, path):
    web.answers["/a.pkl"] = [web.status(503)] * 10
    with pytest.raises(DataError, match=r"503 \(Service Unavailable\)"):
        fetch(url, path)
    assert len(web.requests) == 4


def test_a_missing_file_gets_one_request(web, path):
    with pytest.raises(DataError) as error:
        fetch(f"{web.url}/missing.pkl", path)
    assert len(web.requests) == 1 and "\n" not in str(error.value)
    assert str(error.value) == (
        f"cannot download {web.url}/missing.pkl: the server answered 404 (Not Found); a copy from elsewhere can be saved "
        f"as {path}"
    )


def test_without_a_server_the_error_says_where_to_put_the_file(path):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(
        DataError, match=r"cannot be reached \(Connection refused\); a copy .* saved as .*a\.pkl"
    ):
        fetch(f"http://127.0.0.1:{port}/a.pkl", path)


def test_an_unknown_host(path, monkeypatch):
    def fail(*arguments, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(DataError, match="the name of the server is not known here"):
        fetch("https://weights.invalid/a.pkl", path)


def test_a_silent_server_times_out(web, url, path):
    released = threading.Event()
    web.answers["/a.pkl"] = [lambda handler: released.wait(5)] * 2
    try:
        with pytest.raises(DataError, match="did not answer in time"):
            download(url, path, timeout=0.2, pauses=(0.0,))
    finally:
        released.set()


def test_a_server_that_stops_sending_times_out(web, url, path):
    released = threading.Event()

    def stall(handler):
        web.send_file(handler, end=100_000)
        released.wait(5)

    web.answers["/a.pkl"] = [stall]
    try:
        with pytest.raises(DataError, match=r"did not answer in time.*after the first 100000 bytes"):
            download(url, path, timeout=0.3, pauses=())
    finally:
        released.set()


def test_redirects_are_followed(web, url, path):
    web.answers["/old.pkl"] = [web.status(302, Location="/a.pkl")]
    assert fetch(f"{web.url}/old.pkl", path).read_bytes() == CONTENT


def test_a_redirect_loop(web, url, path):
    web.answers["/a.pkl"] = [web.status(302, Location="/a.pkl")] * 20
    with pytest.raises(DataError, match="redirects in a circle or too often"):
        fetch(url, path)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:text/plain,a"])
def test_redirects_to_other_schemes_are_refused(web, url, path, target):
    web.answers["/a.pkl"] = [web.status(302, Location=target)]
    with pytest.raises(DataError, match=f"it redirects to {target}, which is neither http nor https"):
        fetch(url, path)


def test_a_web_page_is_not_kept(web, url, path):
    web.files["/a.pkl"] = b"<!DOCTYPE html><html><body>Please log in</body></html>"
    with pytest.raises(DataError, match="a web page instead of the file"):
        fetch(url, path)
    assert files_beside(path) == []


def test_a_wrong_hash_is_not_kept(web, url, path):
    with pytest.raises(DataError, match=f"SHA-256 hash {SHA256}, expected {'0' * 64}"):
        fetch(url, path, sha256="0" * 64)
    assert files_beside(path) == [] and len(web.requests) == 1


def test_the_hash_of_an_existing_file_is_compared(web, url, path):
    fetch(url, path)
    with pytest.raises(DataError, match=f"{path.name} has the SHA-256 hash"):
        fetch(url, path, sha256="0" * 64)


def test_a_hash_has_64_digits(url, path):
    with pytest.raises(DataError, match="64 hexadecimal digits, got 'abc'"):
        fetch(url, path, sha256="abc")


def test_an_invalid_address(path):
    with pytest.raises(DataError, match="the address is not valid"):
        fetch("http://127.0.0.1:port/a.pkl", path)


def test_spaces_and_other_letters_in_an_address(web, path):
    web.files["/gro%C3%9F%20a.pkl"] = CONTENT
    assert fetch(f"{web.url}/groß a.pkl", path).read_bytes() == CONTENT


def test_a_full_disk(web, url, path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OSError, match=r"cannot write .*weights: the download needs 0 MB, and 0 MB are free"):
        fetch(url, path)


@pytest.fixture
def other_process(path):
    """Start a process that holds the lock of ``path``, and writes the file when its standard input is closed."""
    path.parent.mkdir()
    code = (
        "import sys; from pathlib import Path; from filelock import FileLock\n"
        f"with FileLock({str(path.with_name('.a.pkl.lock'))!r}):\n"
        "    print('ready', flush=True); sys.stdin.read()\n"
        f"    Path({str(path)!r}).write_bytes(b'from the other process')"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline().strip() == b"ready"
        yield process
        process.kill()


def test_processes_download_once(web, url, path, other_process, capsys):
    waiting = threading.Thread(target=fetch, args=(url, path))
    waiting.start()
    waiting.join(1.2)
    assert waiting.is_alive()
    other_process.stdin.close()
    waiting.join()
    assert path.read_bytes() == b"from the other process" and web.requests == []
    assert capsys.readouterr().err == "waiting for another process to download a.pkl\n"


def test_a_process_that_dies_releases_the_lock(web, url, path, other_process):
    other_process.kill()
    assert fetch(url, path).read_bytes() == CONTENT


def test_threads_download_once(web, url, path):
    web.answers["/a.pkl"] = [lambda handler: (threading.Event().wait(0.1), web.send_file(handler))]
    threads = [threading.Thread(target=fetch, args=(url, path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == CONTENT and len(web.requests) == 1


def test_progress_is_one_line_without_a_terminal(web, url, path, capsys):
    fetch(url, path)
    assert capsys.readouterr().err == f"downloading {url} to {path} (0.3 MB)\n"


def test_progress_is_a_bar_on_a_terminal(web, url, path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    fetch(url, path)
    assert "a.pkl" in capsys.readouterr().err
