import pytest
import torch

from hydet.modeling import sample_balanced, subsample_labels

LABELS = torch.tensor([1] * 30 + [0] * 50 + [-1] * 20)


@pytest.mark.parametrize("size", [0, 1, 16, 60, 200])
@pytest.mark.parametrize("fraction", [0.0, 0.33, 1.0])
def test_both_functions_sample_equal_numbers(size, fraction):
    positive, negative = subsample_labels(LABELS, size, fraction, bg_label=0)
    drawn = sample_balanced(LABELS, size, fraction, bg_label=0)
    assert (LABELS[positive] == 1).all()
    assert (LABELS[negative] == 0).all()
    assert (drawn & (LABELS == 1)).sum() == positive.shape[0] == min(30, int(size * fraction))
    assert (drawn & (LABELS == 0)).sum() == negative.shape[0] == min(50, size - positive.shape[0])
    assert not drawn[LABELS == -1].any()
    assert torch.cat([positive, negative]).unique().shape[0] == drawn.sum()


def test_all_candidates_are_sampled_if_there_are_few():
    labels = LABELS[torch.randperm(100)]
    positive, negative = subsample_labels(labels, 200, 0.5, bg_label=0)
    assert torch.equal(positive.sort().values, (labels == 1).nonzero().flatten())
    assert torch.equal(negative.sort().values, (labels == 0).nonzero().flatten())
    assert torch.equal(sample_balanced(labels, 200, 0.5, bg_label=0), labels >= 0)


def test_rows_are_sampled_independently():
    labels = torch.stack([LABELS, torch.full_like(LABELS, -1), torch.zeros_like(LABELS)])
    drawn = sample_balanced(labels, 20, 0.5, bg_label=0)
    assert drawn.sum(dim=1).tolist() == [20, 0, 20]
    assert (drawn & (labels == 1)).sum(dim=1).tolist() == [10, 0, 0]


def test_classes_other_than_background_are_positive():
    labels = torch.tensor([0, 3, 5, 5, -1])
    positive, negative = subsample_labels(labels, 10, 1.0, bg_label=5)
    assert sorted(positive.tolist()) == [0, 1]
    assert sorted(negative.tolist()) == [2, 3]


def test_candidates_are_sampled_uniformly():
    torch.manual_seed(0)
    labels = torch.zeros(500, 10, dtype=torch.int64)
    share = sample_balanced(labels, 3, 0.5, bg_label=0).float().mean(dim=0)
    assert (share - 0.3).abs().max() < 0.1


def test_no_candidates_give_no_samples():
    empty = torch.zeros(0, dtype=torch.int64)
    assert [x.shape[0] for x in subsample_labels(empty, 8, 0.5, 0)] == [0, 0]
    assert sample_balanced(torch.zeros(2, 0), 8, 0.5, 0).shape == (2, 0)
