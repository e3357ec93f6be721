import contextlib
import copy
import dataclasses
import hashlib
import multiprocessing as mp
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from _pytest.runner import runtestprotocol

# One thread: tests fork, and a child of a process whose OpenMP pool is awake waits for threads that it does not have.
os.environ["OMP_NUM_THREADS"] = "1"

with contextlib.suppress(ImportError):
    # Inductor imports setuptools. That import fails if another library has imported distutils before it.
    import setuptools  # noqa: F401

import torch

torch.set_num_threads(1)

# Triton reads this when a kernel is decorated, so it must stand before anything imports hydet.kernels.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


# Long files, which start first, so that no worker is left with one of them at the end (``--no-loadscope-reorder``).
LONG_FILES = (
    "parity/test_parity.py", "config/test_experiment_data.py", "config/test_experiments.py", "config/test_backbone_pixels.py",
    "config/test_tree.py", "cli/test_bad_input.py", "modeling/meta_arch/test_hard_inputs.py",
    "cli/test_sweep.py", "cli/test_wheel.py", "config/test_user_tree.py", "cli/test_portability.py", "cli/test_help_page.py",
    "corpus/test_mutate_images.py", "config/test_composition.py", "runs/test_hostile_checkpoints.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    def start(item):
        path = item.nodeid.split("::")[0].removeprefix("tests/")
        return LONG_FILES.index(path) if path in LONG_FILES else len(LONG_FILES)

    items.sort(key=start)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


class CleanProcess:
    """A copy of this process from before its first test, whose children run the tests that fork.

    Autograd refuses to work in the child of a process in which it started threads, so the result of these tests would
    depend on the tests that the same xdist worker ran before. A child of the copy starts before all of them.

    Args:
        items: the tests that fork; children run them by their position.
    """

    def __init__(self, items):
        self.items = items
        self.here, self.there = mp.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self.here.close()
                self.serve()
            finally:
                os._exit(1)
        self.there.close()

    def serve(self):
        while True:
            try:
                position = self.there.recv()
            except EOFError:
                os._exit(0)
            child = os.fork()
            if child == 0:
                item = self.items[position]
                reports = runtestprotocol(item, nextitem=None, log=False)
                convert = item.config.hook.pytest_report_to_serializable
                self.there.send([convert(config=item.config, report=report) for report in reports])
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if status:
                self.there.send(status)

    def run(self, item):
        """Return the reports of a test, which another process runs."""
        self.here.send(self.items.index(item))
        data = self.here.recv()
        if isinstance(data, int):
            message = f"the process of the test ended with status {os.waitstatus_to_exitcode(data)}"
            return [pytest.TestReport(item.nodeid, item.location, {}, "failed", message, "call")]
        restore = item.config.hook.pytest_report_from_serializable
        return [restore(config=item.config, data=report) for report in data]


_clean = pytest.StashKey()


def pytest_collection_finish(session):
    forking = [
        i for i in session.items if "on_two_processes" in i.fixturenames or i.get_closest_marker("forks")
    ]
    # Coverage and the debugger need the tests in this process.
    here = session.config.pluginmanager.hasplugin("_cov") or session.config.getoption("usepdb")
    if forking and hasattr(os, "fork") and not here and not session.config.getoption("collectonly"):
        session.config._tmp_path_factory.getbasetemp()  # else each process would make the folder anew
        session.config.stash[_clean] = CleanProcess(forking)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    clean = item.config.stash.get(_clean, None)
    if clean is None or item not in clean.items:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in clean.run(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    item.session._setupstate.teardown_exact(nextitem)  # fixtures that earlier tests kept for this one
    return True


def pytest_unconfigure(config):
    clean = config.stash.get(_clean, None)
    if clean is not None:
        clean.here.close()
        os.waitpid(clean.pid, 0)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _parse_each_config_once():
    """Keep what Hydra parsed of the YAML files of hydet and Hydra, a third of the time of a composition."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.config_source import ConfigSource

    (source,) = (c for c in Plugins.instance().discover(ConfigSource) if c.scheme() == "pkg")
    load, parsed = source.load_config, {}

    def load_once(self, config_path):
        key = self.path, config_path
        if self.path not in ("hydet.conf", "hydra.conf"):
            return load(self, config_path)
        if key not in parsed:
            parsed[key] = load(self, config_path)
        result = parsed[key]
        return dataclasses.replace(result, config=copy.deepcopy(result.config), header=dict(result.header))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "load_config", load_once)
        yield


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _work(index, port, task, queue):
    os.environ.update(
        RANK=str(index), LOCAL_RANK=str(index), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    from hydet.distributed import distributed_session

    with distributed_session("cpu"):
        queue.put((index, task()))
        queue.close()
        queue.join_thread()


@pytest.fixture
def on_two_processes():
    """Return a function that runs a task on two processes and returns both results in order of rank."""

    def run(task):
        context = mp.get_context("fork")
        queue, port = context.Queue(), _free_port()
        processes = [context.Process(target=_work, args=(i, port, task, queue)) for i in range(2)]
        for process in processes:
            process.start()
        results = dict(queue.get(timeout=60) for _ in processes)
        for process in processes:
            process.join(30)
            assert process.exitcode == 0
        return [results[0], results[1]]

    return run


@pytest.fixture
def limit_file_size():
    """Return a context in which no file may have more bytes than a number; see setrlimit(2)."""
    import resource

    @contextlib.contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


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


# Fixtures of the commands, for tests of hydet.cli and hydet.runs. Imports stay inside, because most tests need none of it.

SHAPES = [
    "backbone=r18_slim",
    "trainer.max_steps=2",
    "batch_size=2",
    "num_workers=0",
    "logger=console",
    "evaluation.pictures=1",
    "data.train.num_images=8",
    "data.val.num_images=4",
    "data.train.image_size=[64,64]",
    "data.val.image_size=[64,64]",
]


@pytest.fixture(scope="session")
def shapes_overrides():
    """Return overrides for two training steps on eight generated images."""
    return list(SHAPES)


@pytest.fixture(scope="session")
def coco_folder(tmp_path_factory):
    """Return a folder with generated images as COCO files, for training and validation."""
    from hydet.data import ShapesDataset, write_coco

    folder = tmp_path_factory.mktemp("coco")
    for split, count, seed in (("train", 6, 0), ("val", 3, 1)):
        classes = ("ellipse", "rectangle", "triangle")
        data = ShapesDataset(num_images=count, seed=seed, image_size=(64, 64), class_names=classes)
        write_coco(data, folder, split=split)
    return folder


@pytest.fixture
def coco_overrides():
    """Return a function from a folder like ``coco_folder`` to overrides for one training step on it."""
    common = [
        "data=coco_instance",
        "preset=quick",
        *SHAPES[:6],
        "augment=none",
        "schedule=constant",
        "trainer.max_steps=1",
    ]

    def overrides(folder):
        files = [
            f"data.{split}.{key}={folder}/{path}"
            for split in ("train", "val")
            for key, path in (("json", f"annotations/instances_{split}.json"), ("images", split))
        ]
        return [*common, *files]

    return overrides


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return the output folder of a tiny training run of Mask R-CNN."""
    from hydet.cli import train

    folder = tmp_path_factory.mktemp("trained") / "run"
    assert train.main([*SHAPES, f"output_dir={folder}"]) == 0
    return folder


def _run_command(name, arguments):
    from hydet.cli import benchmark, evaluate, predict, train

    main = {m.__name__.rpartition(".")[2]: m.main for m in (benchmark, evaluate, predict, train)}[name]
    return main([str(argument) for argument in arguments])


@pytest.fixture
def command(capsys):
    """Return a function that runs a command, which must succeed, and returns what it printed."""

    def run(name, *arguments):
        capsys.readouterr()
        status = _run_command(name, arguments)
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    return run


@pytest.fixture
def failure(capsys):
    """Return a function that runs a command, which must fail with one line, and returns the line."""

    def run(name, *arguments):
        capsys.readouterr()
        status = _run_command(name, arguments)
        printed = capsys.readouterr()
        assert status != 0
        assert "Traceback" not in printed.err + printed.out
        lines = printed.err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), printed.err
        return lines[0]

    return run
