"""Suspension of Pillow's own limit."""

import multiprocessing
import os
import threading

import pytest
from PIL import Image

from hydet.data.images.pillow_limit import without_pillow_limit


def test_the_limit_returns_when_the_last_thread_is_done():
    limit, barrier = Image.MAX_IMAGE_PIXELS, threading.Barrier(2)

    def read():
        with without_pillow_limit():
            barrier.wait(10)
            assert Image.MAX_IMAGE_PIXELS is None
            barrier.wait(10)

    thread = threading.Thread(target=read)
    thread.start()
    read()
    thread.join(10)
    assert limit == Image.MAX_IMAGE_PIXELS
    with pytest.raises(KeyError), without_pillow_limit():
        raise KeyError
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_has_the_limit():
    limit = Image.MAX_IMAGE_PIXELS
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    with without_pillow_limit():
        process = context.Process(target=lambda: sender.send(Image.MAX_IMAGE_PIXELS))
        process.start()
    assert receiver.recv() == limit
    process.join(10)
