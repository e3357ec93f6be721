"""Downloads that resume after a broken connection, appear complete or not at all, and happen once for all processes."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import quote, urlsplit

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from hydet._version import __version__
from hydet.data import DataError
from hydet.files import WriteError, flush_to_disk, hash_file, naming_write_errors, write_atomically
from hydet.files.file_kinds import decode_text, is_web_page

__all__ = ["check_hash", "download"]

TIMEOUT = 30.0  # seconds in which a server must send something
PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt
_MAX_PAUSE = 60.0  # seconds that a server can demand
_CHUNK = 2**20
_RANGE_NOT_SATISFIABLE = 416
_TRANSIENT_STATUS = (408, _RANGE_NOT_SATISFIABLE, 425, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (?P<start>\d+)-\d+/(?P<total>\d+|\*)")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def download(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    timeout: float = TIMEOUT,
    pauses: Sequence[float] = PAUSES,
) -> Path:
    """Download a file, unless it is there already.

    The unfinished content is in ``<path>.part``, from which a later call continues if the server still has the same
    file. One process downloads, and others that need the file wait for it. On a terminal, a bar on standard error shows the
    progress.

    Args:
        url: an ``https`` or ``http`` address. Redirects lead to such addresses only. Proxies of the environment are used.
        path: where the file appears when it is complete.
        sha256: hash of the file in hexadecimal digits, which is compared if given, also for an existing file.
        timeout: seconds in which a server must send something.
        pauses: seconds before each further attempt after an error that may pass; an attempt that received data starts
            the sequence anew.

    Returns:
        ``path``.

    Raises:
        DataError: if the download fails, or the hash differs. The message says where to put the file by hand.
        WriteError: if the file cannot be written.
    """
    _check_digits(sha256)
    if path.exists():
        check_hash(path, sha256)
        return path
    with naming_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _only_process(path):
        if not path.exists():  # another process may have downloaded it in the meantime
            _Download(url, path, sha256, timeout, pauses).run()
            return path
    check_hash(path, sha256)
    return path


def check_hash(path: Path, sha256: str | None) -> None:
    """Compare the SHA-256 hash of a file with the expected one, if there is one.

    Raises:
        DataError: if they differ.
    """
    _check_digits(sha256)
    if sha256 is None:
        return
    if not path.is_file():
        raise DataError(f"{path} is not a file, so sha256={sha256} cannot be compared")
    actual = hash_file(path)
    if actual != sha256.lower():
        raise DataError(f"{path} has the SHA-256 hash {actual}, expected {sha256}")


class _TransientError(Exception):
    """An error that may pass.

    Args:
        reason: for the message.
        reached: False if there was no connection to the server.
        status: status of the answer, or 0.
        pause: seconds that the server demands before the next attempt.
    """

    def __init__(self, reason: str, *, reached: bool = True, status: int = 0, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.reached = reached
        self.status = status
        self.pause = pause


class _PermanentError(Exception):
    """An error that another attempt would meet again; the text is the reason."""


@dataclass(frozen=True)
class _Version:
    """The version of a file that a server has.

    Attributes:
        url: address of the file.
        validator: strong ETag or date of the last change; empty if the server sends none.
        size: size in bytes, or None if the server does not say it.
    """

    url: str
    validator: str
    size: int | None


class _Part:
    """The unfinished file, with the version that it belongs to beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".part")
        self._version_path = path.with_name(path.name + ".part.json")

    @property
    def num_bytes(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self, url: str) -> _Version | None:
        """Return the version that the file belongs to; None if the download cannot continue."""
        try:
            version = _Version(**json.loads(self._version_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return version if version.url == url and version.validator and self.num_bytes > 0 else None

    def start(self, version: _Version) -> None:
        """Start a new file."""
        self.remove()
        write_atomically(self._version_path, json.dumps(version.__dict__))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version_path.unlink(missing_ok=True)

    def finish(self, path: Path) -> None:
        """Rename the complete file to ``path``."""
        with naming_write_errors(path):
            flush_to_disk(self.path)
            self.path.replace(path)
            flush_to_disk(path.parent)
        self._version_path.unlink(missing_ok=True)


class _Response(Protocol):
    """The part of ``http.client.HTTPResponse`` that is used."""

    status: int
    headers: http.client.HTTPMessage

    def read1(self, amount: int, /) -> bytes: ...


class _Download:
    def __init__(
        self, url: str, path: Path, sha256: str | None, timeout: float, pauses: Sequence[float]
    ) -> None:
        self.url, self.path, self.sha256 = url, path, sha256
        self.timeout, self.pauses = timeout, pauses
        self.part = _Part(path)
        self.opener = urllib.request.build_opener(_HttpRedirects)

    def run(self) -> None:
        resumed = self.part.version(self.url) is not None
        try:
            with _progress(self.url, self.path) as report:
                self._fetch_repeatedly(report)
                if resumed and not self._has_hash():  # of a part that was damaged, or of another version
                    self.part.remove()
                    self._fetch_repeatedly(report)
            self._check()
        except (_TransientError, _PermanentError) as error:
            done = self.part.num_bytes if self.part.version(self.url) is not None else 0
            progress = f"; the next call continues after the first {done} bytes" if done else ""
            raise DataError(
                f"cannot download {self.url}: {error}; a copy from elsewhere can be saved as {self.path}{progress}"
            ) from error
        self.part.finish(self.path)

    def _fetch_repeatedly(self, report: Callable[[int, int | None], None]) -> None:
        failures, reached = 0, False
        while True:
            before = self.part.num_bytes
            try:
                return self._fetch(report)
            except _TransientError as error:
                if self.part.num_bytes >= before + _CHUNK:
                    failures = 0
                reached |= error.reached
                # A server that was never reached is most likely a missing network, for which waiting does not help.
                if failures >= (len(self.pauses) if reached else min(1, len(self.pauses))):
                    raise
                pause = max(self.pauses[failures], error.pause)
                failures += 1
            time.sleep(pause)

    def _fetch(self, report: Callable[[int, int | None], None]) -> None:
        """Receive the file, or the rest of it, through one connection."""
        version = self.part.version(self.url)
        offset = self.part.num_bytes if version is not None else 0
        if version is not None and version.size == offset:
            return
        headers = {"User-Agent": f"hydet/{__version__}", "Accept-Encoding": "identity"}
        if version is not None:
            headers |= {"Range": f"bytes={offset}-", "If-Range": version.validator}
        try:
            with _explained(reached=False):
                request = urllib.request.Request(_quoted(self.url), headers=headers)
                response = self.opener.open(request, timeout=self.timeout)
        except _TransientError as error:
            if error.status == _RANGE_NOT_SATISFIABLE:  # the file on the server is shorter than the part
                self.part.remove()
            raise
        with contextlib.closing(response):
            if version is None or not self._continues(response, version, offset):
                offset, version = 0, _version_of(response, self.url)
                self.part.start(version)
            self._receive(response, version, offset, report)

    def _continues(self, response: _Response, version: _Version, offset: int) -> bool:
        """Return True if the response is the rest of the same file; False if it is the whole file.

        Raises:
            _TransientError: if it is another part.
        """
        if response.status != 206:
            return False
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match["start"]) != offset or match["total"] not in ("*", str(version.size)):
            self.part.remove()
            raise _TransientError("the server sent another part of the file than requested")
        return True

    def _receive(
        self, response: _Response, version: _Version, offset: int, report: Callable[[int, int | None], None]
    ) -> None:
        with naming_write_errors(self.path):
            if version.size is not None:
                _check_space(self.path.parent, version.size - offset)
            file = self.part.path.open("ab")
        with file:
            for chunk in _chunks(response):
                _write(file, chunk, self.path)
                offset += len(chunk)
                report(offset, version.size)
        if version.size is not None and offset < version.size:
            raise _TransientError(f"the connection ended after {offset} of {version.size} bytes")
        if version.size is not None and offset > version.size:
            self.part.remove()
            raise _TransientError(f"the server sent {offset} bytes, but announced {version.size}")

    def _check(self) -> None:
        """Check the content of the complete file.

        Raises:
            _PermanentError: if it is not the file; it is then removed.
        """
        with self.part.path.open("rb") as file:
            text = decode_text(file.read(1024))
        if text is not None and is_web_page(text):
            self.part.remove()
            raise _PermanentError("the server sent a web page instead of the file")
        if not self._has_hash():
            actual = hash_file(self.part.path)
            self.part.remove()
            raise _PermanentError(f"it has the SHA-256 hash {actual}, expected {self.sha256}")

    def _has_hash(self) -> bool:
        return self.sha256 is None or hash_file(self.part.path) == self.sha256.lower()


class _HttpRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to ``http`` and ``https`` only; Python also allows ``ftp``."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Return the request for the new address."""
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(newurl, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _chunks(response: _Response) -> Iterator[bytes]:
    while True:
        with _explained(reached=True):
            chunk = response.read1(_CHUNK)  # what has arrived, so that a broken connection loses nothing
        if not chunk:
            return
        yield chunk


def _write(file: IO[bytes], chunk: bytes, path: Path) -> None:
    with naming_write_errors(path):
        file.write(chunk)


def _version_of(response: _Response, url: str) -> _Version:
    etag = response.headers.get("ETag", "")
    # A weak ETag does not promise equal bytes.
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    length = response.headers.get("Content-Length", "")
    return _Version(url, validator, int(length) if length.isdecimal() else None)


@contextlib.contextmanager
def _explained(*, reached: bool) -> Iterator[None]:
    """Turn the errors of a connection into ``_TransientError`` and ``_PermanentError``."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        if 300 <= error.code < 400:
            target = error.headers.get("Location", "")
            if urlsplit(target).scheme not in ("", "http", "https"):
                raise _PermanentError(f"it redirects to {target}, which is neither http nor https") from error
            raise _PermanentError("the server redirects in a circle or too often") from error
        reason = f"the server answered {error.code} ({error.reason})"
        if error.code not in _TRANSIENT_STATUS:
            raise _PermanentError(reason) from error
        raise _TransientError(reason, status=error.code, pause=_demanded_pause(error.headers)) from error
    except urllib.error.URLError as error:
        raise _explain_connection(error.reason, reached=reached) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _explain_connection(error, reached=reached) from error


def _explain_connection(error: object, *, reached: bool) -> _TransientError | _PermanentError:
    if isinstance(error, TimeoutError):
        return _TransientError("the server did not answer in time", reached=reached)
    if isinstance(error, socket.gaierror):
        return _TransientError(f"the name of the server is not known here ({error.strerror})", reached=False)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _PermanentError(f"the certificate of the server is not trusted ({error.verify_message})")
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected | ConnectionResetError):
        return _TransientError("the connection broke")
    if isinstance(error, http.client.InvalidURL) or (
        isinstance(error, ValueError) and not isinstance(error, OSError)
    ):
        return _PermanentError(f"the address is not valid ({error})")
    if isinstance(error, OSError) and error.errno in (
        errno.ECONNREFUSED,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
    ):
        return _TransientError(f"the server cannot be reached ({error.strerror})", reached=False)
    return _TransientError(f"{error}" or type(error).__name__, reached=reached)


def _demanded_pause(headers: Message) -> float:
    """Return the seconds in ``Retry-After``, at most a minute; 0 without it, or for a date."""
    value = headers.get("Retry-After", "")
    return min(float(value), _MAX_PAUSE) if value.isdecimal() else 0.0


def _quoted(url: str) -> str:
    """Return an address with spaces and letters beyond ASCII in its path as percent codes; existing codes stay."""
    return quote(url.partition("#")[0], safe="/:?&=%@!$'()*+,;~[]")


def _check_digits(sha256: str | None) -> None:
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise DataError(f"sha256 must have 64 hexadecimal digits, got {sha256!r}")


def _check_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise WriteError(
            errno.ENOSPC,
            f"the download needs {num_bytes / 1e6:.0f} MB, and {free / 1e6:.0f} MB are free",
            str(folder),
        )


@contextlib.contextmanager
def _only_process(path: Path) -> Iterator[None]:
    """Wait until no other process downloads ``path``. The system releases the lock of a process that dies."""
    with naming_write_errors(path):
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=1)
        except Timeout:
            Console(stderr=True).print(
                f"waiting for another process to download {escape(path.name)}",
                highlight=False,
                soft_wrap=True,
            )
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _progress(url: str, path: Path) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function that shows the received and the total bytes: a bar on a terminal, elsewhere one line at the start."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _announce_once(console, f"downloading {url} to {path}")
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(escape(path.name), total=None)
        yield lambda received, total: bar.update(task, completed=received, total=total)


def _announce_once(console: Console, line: str) -> Callable[[int, int | None], None]:
    """Return a function that prints the line when the first bytes arrive."""
    lines = [line]

    def report(received: int, total: int | None) -> None:
        if lines:
            size = "" if total is None else f" ({total / 1e6:.1f} MB)"
            console.print(escape(lines.pop() + size), highlight=False, soft_wrap=True)

    return report
