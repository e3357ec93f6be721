import torch

import hydet
from hydet.modeling.meta_arch.limits import detection_limits


class Other(torch.nn.Module):
    def __init__(self, *tasks):
        super().__init__()
        self.tasks = tasks


def build(name):
    with torch.device("meta"):
        return hydet.instantiate(hydet.compose(f"model={name}", "size=slim").model)


def test_limits_of_each_kind_of_model():
    rcnn = build("cascade_rcnn_fpn")
    rcnn.roi_heads.box_predictor[-1].test_topk_per_image = 7
    assert detection_limits(rcnn) == (0.5, 7)
    assert detection_limits(build("fcos")) == (0.6, 100)
    network = build("rpn_fpn")
    network.proposal_generator.nms_thresh = 0.65
    network.proposal_generator.post_nms_topk = {True: 20, False: 30}
    assert detection_limits(network) == (0.65, 30)


def test_limits_of_other_models():
    assert detection_limits(Other("box")) == (0.5, 100)
    assert detection_limits(Other("rotated_proposals")) == (0.7, 1000)
