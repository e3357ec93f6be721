"""The server of ``examples/serve.py``, with real requests on localhost."""

import importlib.util
import io
import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image

import hydet
from hydet.data import InputMapper, Metadata
from hydet.structures import Boxes, Instances

PATH = Path(__file__).parents[2] / "examples" / "serve.py"


@pytest.fixture(scope="module")
def serve():
    spec = importlib.util.spec_from_file_location("serve_example", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["serve_example"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["serve_example"]


class MeanColors(torch.nn.Module):
    """Detects one object over each image, whose score is the mean of its first channel, and one of score 0.1."""

    tasks = ("box",)

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()

    def forward(self, batched_inputs):
        self.gate.wait(20)
        return [{"instances": self.detect(entry)} for entry in batched_inputs]

    def detect(self, entry):
        mean = float(entry["image"][0].float().mean()) / 255
        if mean > 0.99:
            raise RuntimeError("secret of the server")
        size = (entry["height"], entry["width"])
        return Instances(
            size,
            pred_boxes=Boxes([[0.0, 0, size[1], size[0]]] * 2),
            scores=torch.tensor([mean, 0.1]),
            pred_classes=torch.tensor([0, 1]),
        )


@pytest.fixture(scope="module")
def model():
    return MeanColors().eval()


@pytest.fixture(scope="module")
def app(serve, model):
    mapper = InputMapper(training=False, mask_format=None)
    detector = hydet.Detector(model, mapper, Metadata(thing_classes=("cat", "dog")))
    limits = serve.Limits(max_bytes=20_000, max_pixels=10_000, max_waiting=8, max_batch=4, max_wait=0.02)
    return serve.create_app(detector, limits)


@pytest.fixture(scope="module")
def client(app):
    """Return a client of the server, which runs in another thread."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", log_config=None))
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=address, timeout=30, trust_env=False) as http:
        yield http
    server.should_exit = True
    thread.join()
    listener.close()


def png(value, size=(30, 20)):
    file = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), value, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def post(client, content, name="photo.png", **params):
    return client.post("/predict", files={"image": (name, content, "image/png")}, params=params)


def test_health(client):
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json() | {"model": ""} == {
        "status": "ok",
        "model": "",
        "classes": ["cat", "dog"],
        "in_progress": 0,
    }


def test_a_form_and_a_plain_body_give_the_objects(client):
    for answer in (
        post(client, png(204)),
        client.post("/predict", content=png(204), headers={"content-type": "image/png"}),
    ):
        assert answer.status_code == 200
        values = answer.json()
        assert (values["height"], values["width"]) == (20, 30)
        (entry,) = values["objects"]
        assert entry["class_name"] == "cat" and entry["score"] == pytest.approx(0.8)
        assert entry["box"] == [0, 0, 30, 20]
    assert post(client, png(204)).json()["name"] == "photo.png"
    assert len(post(client, png(204), score_threshold=0.05).json()["objects"]) == 2


def test_concurrent_requests_share_batches_and_keep_their_results(client, app, model):
    app.state.batcher.batch_sizes.clear()
    values = [20 * i for i in range(8)]
    model.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(post, client, png(value), score_threshold=0.0) for value in values]
        while client.get("/health").json()["in_progress"] < 8:
            time.sleep(0.01)
        busy = post(client, png(0))  # one more than the server takes
        model.gate.set()
        answers = [future.result() for future in futures]
    assert busy.status_code == 503 and busy.headers["retry-after"] == "1"
    scores = [answer.json()["objects"][0]["score"] for answer in answers]
    assert scores == pytest.approx([value / 255 for value in values], abs=1e-6)
    assert sum(app.state.batcher.batch_sizes) == 8 and max(app.state.batcher.batch_sizes) > 1
    assert client.get("/health").json()["in_progress"] == 0


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 422, "photo.png"),
        (b"no image", 422, "photo.png"),
        (png(9)[:40], 422, "photo.png"),
        (png(9, (101, 100)), 413, "max_pixels"),
        (bytes(30_000), 413, "the upload has more than 20000 bytes"),
    ],
)
def test_bad_uploads_give_one_clear_line(content, status, message, client):
    answer = post(client, content)
    assert answer.status_code == status
    detail = answer.json()["detail"]
    assert message in detail and "\n" not in detail


def test_an_upload_of_unknown_length_is_cut_off(client):
    def parts():
        for _ in range(30):
            yield bytes(1000)

    answer = client.post("/predict", content=parts(), headers={"content-type": "image/png"})
    assert answer.status_code == 413 and "20000 bytes" in answer.json()["detail"]


def test_wrong_requests_are_refused(client):
    assert client.post("/predict", json={"image": 1}).status_code == 415
    assert client.post("/predict", files={"picture": png(1)}).status_code == 422
    assert client.post("/predict", data={"image": "text"}).status_code == 415
    broken = client.post(
        "/predict", content=b"--x", headers={"content-type": "multipart/form-data; boundary=y"}
    )
    assert broken.status_code in (400, 422)
    no_boundary = client.post("/predict", content=b"x", headers={"content-type": "multipart/form-data"})
    assert no_boundary.status_code == 400
    assert post(client, png(1), score_threshold=2).status_code == 422
    assert client.get("/predict").status_code == 405


def test_a_failure_of_the_model_stays_inside(client, caplog):
    answer = post(client, png(255))
    assert answer.status_code == 500 and "secret" not in json.dumps(answer.json())
    assert "secret of the server" in caplog.text
    assert post(client, png(51)).status_code == 200  # the server goes on
