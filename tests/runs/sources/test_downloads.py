"""Images at web addresses, from a server on this machine."""

import http.server
import threading

import pytest

from hydet.data import DataError
from hydet.runs.sources.downloads import download_image, is_address


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/a.png":
            self.send_error(404, "gone")
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"content")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_download_and_its_errors(server, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    assert download_image(f"{server}/a.png", max_bytes=7) == b"content"
    with pytest.raises(DataError, match=r"a\.png: the file has more than"):
        download_image(f"{server}/a.png", max_bytes=6)
    with pytest.raises(DataError, match=r"b\.png: the server answers 404 gone"):
        download_image(f"{server}/b.png", max_bytes=9)
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:1/a\.png: "):
        download_image("http://127.0.0.1:1/a.png", max_bytes=9)


def test_addresses():
    assert (
        is_address("HTTPS://host/a.png") and not is_address("c:/a.png") and not is_address("ftp://host/a.png")
    )
