"""A web server on this machine, whose answers tests choose."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class WebServer:
    """Serves ``files`` (path -> content) with ETags and ranges, unless ``answers`` has something else.

    Attributes:
        url: address of its root.
        files: path -> content.
        answers: path -> functions of the request handler; each request uses up one of them.
        requests: (path, headers) of every request.
    """

    def __init__(self):
        self.files, self.answers, self.requests = {}, {}, []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner.requests.append((self.path, dict(self.headers)))
                answers = owner.answers.get(self.path, [])
                (answers.pop(0) if answers else owner.send_file)(self)

            def log_message(self, *arguments):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request, client_address):  # clients that do not wait are part of the tests
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def send_file(self, handler, *, end=None, etag=True, length=True):
        """Send a file or its requested range; ``end`` is the byte before which the connection breaks."""
        content = self.files.get(handler.path.partition("?")[0])
        if content is None:
            handler.send_error(404)
            return
        tag, start = f'"{hashlib.sha256(content).hexdigest()[:8]}"', 0
        if "Range" in handler.headers and handler.headers.get("If-Range") == tag:
            start = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if start >= len(content) > 0:
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if etag:
            handler.send_header("ETag", tag)
        if length:
            handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        handler.wfile.write(content[start:end])

    def break_after(self, num_bytes, **options):
        return lambda handler: self.send_file(handler, end=num_bytes, **options)

    @staticmethod
    def status(code, **headers):
        def answer(handler):
            handler.send_response(code)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.end_headers()

        return answer

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def web(monkeypatch, tmp_path):
    """Return a running ``WebServer``; downloads go to ``tmp_path / "cache"``."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HYDET_CACHE", str(tmp_path / "cache"))
    server = WebServer()
    yield server
    server.close()
