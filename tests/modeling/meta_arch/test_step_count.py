"""Normalizers of dense detectors count the positives of a step: over all its batches and all processes."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from hydet.distributed import mean_over_processes, rank, world_size
from hydet.modeling.meta_arch.step_count import StepCount, next_normalizer

COUNTS, SIZES = (9, 1, 0, 4), [(64, 64)] * 4  # very different numbers of positives


def run_step(model, batches):
    """Return losses, gradients and the normalizer of one step, as the trainer computes them."""
    module = getattr(model, "module", model)
    module.start_step(len(batches))
    sums = {}
    for batch in batches:
        losses = model(batch)
        (sum(losses.values()) / len(batches)).backward()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(batches)
    factor = module.finish_step()
    factor = 1.0 if factor is None else float(factor)
    # Lists, since tensors in a queue need the process that sent them.
    gradients = {n: (p.grad * factor).flatten().tolist() for n, p in module.named_parameters()}
    losses = mean_over_processes({name: value * factor for name, value in sums.items()})
    return losses, gradients, float(module.loss_normalizer)


def assert_same_step(first, second):
    assert first[0] == pytest.approx(second[0], rel=1e-5)
    for name, gradient in first[1].items():
        assert gradient == pytest.approx(second[1][name], rel=1e-4, abs=1e-6), name
    assert first[2] == pytest.approx(second[2], rel=1e-6)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_batches_equal_one_batch(make_dense, dense_batch, parts):
    images, whole, split = dense_batch(COUNTS, SIZES), make_dense(), make_dense()
    for _ in range(2):  # the second step starts from the running mean of the first one
        whole.zero_grad()
        split.zero_grad()
        expected = run_step(whole, [images])
        batches = [images[i::parts] for i in range(parts)]
        assert_same_step(run_step(split, batches), expected)


def test_a_step_of_one_batch_equals_a_forward_pass_without_a_step(make_dense, dense_batch):
    model, other = make_dense(), make_dense()
    model.start_step(1)
    first, second = model(dense_batch()), other(dense_batch())
    assert model.finish_step() is None
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(model.loss_normalizer, other.loss_normalizer)


def run_on_share(make_models, images):
    share = images[rank() :: world_size()]
    return [run_step(DistributedDataParallel(make()), [share]) for make in make_models]


def test_two_processes_equal_one_process_with_all_images(on_two_processes, retinanet, fcos, dense_batch):
    images, models = dense_batch(COUNTS, SIZES), (retinanet, fcos)
    expected = [run_step(make(), [images]) for make in models]
    for results in on_two_processes(lambda: run_on_share(models, images)):
        for result, one_process in zip(results, expected, strict=True):
            assert_same_step(result, one_process)


def test_a_step_without_batches_changes_nothing(retinanet):
    model = retinanet()
    model.start_step(2)
    assert model.finish_step() is None and float(model.loss_normalizer) == 100
    with pytest.raises(ValueError, match="num_batches must be at least 1, got 0"):
        model.start_step(0)


def test_an_interrupted_step_is_forgotten(retinanet, dense_batch):
    model, other = retinanet(), retinanet()
    model.start_step(2)
    model(dense_batch())
    assert_same_step(run_step(model, [dense_batch()]), run_step(other, [dense_batch()]))


def test_the_estimate_is_that_of_equal_batches():
    mean = torch.tensor(100.0)
    step = StepCount(3)
    assert float(step.add(torch.tensor(20), mean)) == pytest.approx(0.9 * 100 + 0.1 * 60)
    step.add(torch.tensor(0), mean)
    step.add(torch.tensor(10), mean)
    assert float(step.finish(mean)) == pytest.approx(96 / 93)
    assert float(mean) == pytest.approx(0.9 * 100 + 0.1 * 30)


def test_a_step_without_positives_counts_one():
    assert float(next_normalizer(torch.tensor(10.0), torch.tensor(0))) == pytest.approx(9.1)
