import torch

from hydet.modeling import DatasetMapperTTA, ProposalNetworkWithTTA
from hydet.structures import Boxes, Instances


class FixedProposals(torch.nn.Module):
    """Proposes the left half of each image twice, with logits of both signs."""

    tasks = ("proposals",)

    def inference(self, batched_inputs):
        results = []
        for entry in batched_inputs:
            height, width = entry["height"], entry["width"]
            boxes = Boxes([[0.0, 0, width / 2, height]] * 2)
            logits = torch.tensor([-0.5, -1.0])
            results.append(
                {"proposals": Instances((height, width), proposal_boxes=boxes, objectness_logits=logits)}
            )
        return results


def propose(mapper, **settings):
    wrapped = ProposalNetworkWithTTA(model=FixedProposals(), tta_mapper=mapper, batch_size=3, **settings)
    (result,) = wrapped([{"image": torch.rand(3, 10, 20), "height": 100, "width": 200}])
    return result["proposals"]


def test_proposals_are_mapped_back_and_suppressed_together():
    mapper = DatasetMapperTTA(min_sizes=[20, 30], max_size=1000, flip=True)
    proposals = propose(mapper)
    assert sorted(proposals.proposal_boxes.tensor.tolist()) == [[0, 0, 100, 100], [100, 0, 200, 100]]
    assert proposals.objectness_logits.tolist() == [-0.5, -0.5] and proposals.image_size == (100, 200)
    assert len(propose(mapper, topk_per_image=1)) == 1
    assert len(propose(mapper, nms_thresh=1.0)) == 8


def test_proposals_of_a_single_image_are_those_of_the_network():
    """A network suppresses level by level, so equal proposals of two levels may remain."""
    proposals = propose(DatasetMapperTTA(min_sizes=[20], max_size=1000, flip=False))
    assert proposals.proposal_boxes.tensor.tolist() == [[0, 0, 100, 100]] * 2
