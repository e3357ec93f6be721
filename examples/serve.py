"""Serve a detector over HTTP, with the images of concurrent requests in one batch.

    pip install 'hydet[serve]'
    python examples/serve.py runs/a --port 8000
    curl -F image=@photo.jpg 'http://localhost:8000/predict?score_threshold=0.5'

The first argument is anything that ``hydet.load`` opens: a checkpoint, the output folder of a run, the name of a
published model, or an exported model. The server has no authentication and no encryption: put it behind a proxy.

    POST /predict    multipart form with the file `image`, or the file as the body: the objects as JSON
    GET  /health     {"status": "ok", ...} once the model is loaded
    GET  /docs       the same as a page to try out
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from torch import Tensor

import hydet
from hydet.data import DataError
from hydet.data.images.decoding import TooManyPixelsError

LOG = logging.getLogger("hydet.serve")


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of requests and batches, which together bound the memory of the server.

    Args:
        max_bytes: largest upload in bytes.
        max_pixels: largest image in pixels, checked before it is decoded.
        max_waiting: requests in progress; further ones get status 503.
        max_batch: images per forward pass.
        max_wait: seconds that the first image of a batch waits for others.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 25_000_000
    max_waiting: int = 16
    max_batch: int = 8
    max_wait: float = 0.01


class Batcher:
    """Predicts images in batches of those that wait at the same time.

    Args:
        detector: the model.
        limits: the size of a batch, and how long it waits.
    """

    def __init__(self, detector: hydet.Detector, limits: Limits) -> None:
        self.detector = detector
        self.limits = limits
        self.batch_sizes: list[int] = []  # of the last batches
        self._waiting: asyncio.Queue[tuple[Tensor, asyncio.Future[hydet.Result]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def predict(self, image: Tensor) -> hydet.Result:
        """Return the result of a ``(3, H, W)`` uint8 RGB image."""
        future: asyncio.Future[hydet.Result] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((image, future))
        return await future

    async def run(self) -> None:
        """Predict batches until this task is canceled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            if self._waiting.qsize() < self.limits.max_batch - 1:
                await asyncio.sleep(self.limits.max_wait)
            while len(batch) < self.limits.max_batch and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [(image, future) for image, future in batch if not future.done()]  # clients may be gone
            if not batch:
                continue
            self.batch_sizes = [*self.batch_sizes[-99:], len(batch)]
            try:
                results = await loop.run_in_executor(
                    self._thread, self._predict, [image for image, _ in batch]
                )
            except Exception as error:
                LOG.exception("a batch of %d images failed", len(batch))
                for _, future in batch:
                    if not future.done():
                        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def _predict(self, images: Sequence[Tensor]) -> list[hydet.Result]:
        return list(self.detector.predict(list(images), batch_size=len(images), on_failure="raise"))


class UploadTooLarge(Exception):
    """The body of a request has more bytes than the server accepts."""


def create_app(detector: hydet.Detector, limits: Limits | None = None) -> FastAPI:
    """Return the application: an ASGI app for uvicorn or any other server.

    Args:
        detector: as ``hydet.load`` returns it.
        limits: see ``Limits``.
    """
    bounds = limits or Limits()
    batcher = Batcher(detector, bounds)
    read = dataclasses.replace(detector.read, max_pixels=bounds.max_pixels)
    in_progress = 0

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(batcher.run())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    app = FastAPI(title="hydet", version=hydet.__version__, lifespan=lifespan)
    app.state.batcher = batcher

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "model": detector.origin,
            "classes": list(detector.class_names),
            "in_progress": in_progress,
        }

    @app.post("/predict")
    async def predict(
        request: Request,
        score_threshold: Annotated[float, Query(ge=0, le=1)] = 0.5,
    ) -> dict[str, Any]:
        nonlocal in_progress
        if in_progress >= bounds.max_waiting:
            raise HTTPException(503, "the server is busy, try again later", headers={"Retry-After": "1"})
        in_progress += 1
        try:
            content, name = await read_upload(request, bounds.max_bytes)
            image = await asyncio.to_thread(decode, content, name)
            result = await batcher.predict(image)
        except UploadTooLarge as error:
            # The rest of the body is not read, so the connection cannot serve another request.
            raise HTTPException(413, str(error), headers={"Connection": "close"}) from error
        except DataError as error:
            too_large = isinstance(error.__cause__, TooManyPixelsError)
            raise HTTPException(413 if too_large else 422, str(error)) from error
        except RuntimeError as error:
            raise HTTPException(500, "the model failed; the log of the server has the reason") from error
        finally:
            in_progress -= 1
        values = await asyncio.to_thread(result.to_dict)
        values["name"] = name
        values["objects"] = [entry for entry in values["objects"] if entry["score"] >= score_threshold]
        return values

    def decode(content: bytes, name: str) -> Tensor:
        return read.decode(content, name=name)

    return app


async def read_upload(request: Request, max_bytes: int) -> tuple[bytes, str]:
    """Return the content and name of the uploaded file: the field ``image`` of a form, or the body.

    Raises:
        UploadTooLarge: if there are more than ``max_bytes``; found before the rest is read.
        HTTPException: with status 415, 400 or 422 if there is no file.
    """
    message = f"the upload has more than {max_bytes} bytes"
    stated = request.headers.get("content-length", "0")
    if not stated.isdigit():
        raise HTTPException(400, "Content-Length must be a number")
    if int(stated) > max_bytes:
        raise UploadTooLarge(message)
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "multipart/form-data" and not kind.startswith("image/") and kind != "application/octet-stream":
        raise HTTPException(
            415, f"send a multipart form with the file 'image', or the file itself as image/*, not {kind!r}"
        )
    limited = Request(request.scope, limit_body(request, max_bytes, message))
    if kind != "multipart/form-data":
        return await limited.body(), "image"
    try:
        form = await limited.form(max_files=1, max_fields=8)
    except (MultiPartException, HTTPException) as error:
        reason = error.message if isinstance(error, MultiPartException) else error.detail
        raise HTTPException(400, f"the form cannot be read: {reason}") from error
    try:
        upload = form.get("image")
        if not isinstance(upload, UploadFile):
            raise HTTPException(422, "the form has no file with the name 'image'")
        return await upload.read(), upload.filename or "image"
    finally:
        await form.close()


def limit_body(request: Request, max_bytes: int, message: str) -> Any:
    """Return the function that receives the body, which raises ``UploadTooLarge`` once it is too long."""
    num_bytes = 0

    async def receive() -> Any:
        nonlocal num_bytes
        part = await request.receive()
        num_bytes += len(part.get("body", b""))
        if num_bytes > max_bytes:
            raise UploadTooLarge(message)
        return part

    return receive


def main() -> None:
    """Load the model and serve it."""
    parser = argparse.ArgumentParser(description="Serve a detector over HTTP.")
    parser.add_argument("model", help="a checkpoint, run, published model or exported model")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 accepts requests from other machines")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", default="auto")
    for field in dataclasses.fields(Limits):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(field.default), default=field.default)
    arguments = parser.parse_args()
    limits = Limits(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Limits)})
    detector = hydet.load(arguments.model, device=arguments.device)
    uvicorn.run(create_app(detector, limits), host=arguments.host, port=arguments.port)


if __name__ == "__main__":
    main()
