import torch

from hydet.modeling.test_time_augmentation.semantic import ProbabilityAverage


def test_probabilities_are_averaged_after_flipping_back():
    first, second = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    average = ProbabilityAverage()
    average.add(first, flipped=False)
    average.add(second.flip(2), flipped=True)
    expected = (first.softmax(dim=0) + second.softmax(dim=0)) / 2
    torch.testing.assert_close(average.log_mean().exp(), expected)


def test_logarithm_of_a_vanishing_probability_is_finite():
    average = ProbabilityAverage()
    average.add(torch.tensor([0.0, 1000.0]).view(2, 1, 1), flipped=False)
    assert average.log_mean().isfinite().all()
