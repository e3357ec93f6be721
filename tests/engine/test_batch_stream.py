import pytest
import torch

from hydet.engine.batch_stream import BatchStream

CPU = torch.device("cpu")


def test_a_loader_that_ends_is_started_again():
    stream = BatchStream([["a"], ["b"]], device=CPU)
    assert [next(stream)[0] for _ in range(5)] == ["a", "b", "a", "b", "a"]


def test_an_empty_loader_is_an_error():
    with pytest.raises(ValueError, match="no batches"):
        next(BatchStream([], device=CPU))


def test_starting_the_loader_of_a_resumed_run_draws_no_random_numbers():
    class RandomStart:
        def __iter__(self):
            torch.rand(3)
            for _ in range(2):
                yield [torch.rand(())]

    def draw(**options):
        torch.manual_seed(0)
        stream = BatchStream(RandomStart(), device=CPU, **options)
        next(stream)
        return torch.rand(())

    torch.manual_seed(0)
    undisturbed = torch.rand(())
    assert draw(keep_random_state=True) == undisturbed
    assert draw() != undisturbed


def test_closing_ends_the_iterator_of_the_loader():
    closed = []

    def loader():
        try:
            yield ["a"]
        finally:
            closed.append(True)

    stream = BatchStream(loader(), device=CPU)
    next(stream)
    stream.close()
    assert closed == [True]
    stream.close()
