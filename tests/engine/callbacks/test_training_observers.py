import torch

from hydet.engine.callbacks.training_observers import (
    DetectionObserver,
    LabelObserver,
    MaskObserver,
    ProposalObserver,
    make_observers,
)
from hydet.visualization import draw_boxes_beside_ground_truth, draw_masks_beside_ground_truth


def test_each_kind_of_model_has_its_observers(detectors):
    types = {
        kind: [type(observer) for observer in make_observers(detectors.make(kind, vis_period=0))]
        for kind in ("mask_rcnn", "rpn", "retinanet", "semantic")
    }
    assert types == {
        "mask_rcnn": [ProposalObserver, MaskObserver],
        "rpn": [ProposalObserver],
        "retinanet": [DetectionObserver],
        "semantic": [LabelObserver],
    }
    assert make_observers(torch.nn.Linear(1, 1)) == []


def test_the_proposals_with_the_highest_objectness_are_drawn(detectors):
    model, batch = detectors.make("fast_rcnn", vis_period=1), detectors.batch()
    proposals = batch[0]["proposals"]
    boxes, gt_boxes = proposals.proposal_boxes.tensor, batch[0]["instances"].gt_boxes.tensor
    proposals.proposal_boxes.tensor = boxes.repeat(10, 1)
    proposals = type(proposals)(proposals.image_size, proposal_boxes=proposals.proposal_boxes)
    proposals.objectness_logits = torch.arange(40.0)
    batch[0]["proposals"] = proposals
    (observer,) = [o for o in make_observers(model) if isinstance(o, ProposalObserver)]
    image = observer.draw(batch).image
    best = proposals.proposal_boxes.tensor.flip(0)[:20]
    expected = draw_boxes_beside_ground_truth(batch[0]["image"], gt_boxes, best, bgr=True)
    assert torch.equal(image, expected)


def test_the_masks_are_those_of_the_training_step(detectors):
    model, batch = detectors.make("mask_rcnn", vis_period=1).train(), detectors.batch()
    (observer,) = [o for o in make_observers(model) if isinstance(o, MaskObserver)]
    recorded = {}
    head = model.roi_heads.mask_head
    head.predictor.register_forward_hook(lambda module, args, result: recorded.update(logits=result))
    head.register_forward_pre_hook(lambda module, args: recorded.update(instances=args[1]))
    observer.attach()
    model(batch)
    observer.detach()
    logits, instances = recorded["logits"].detach(), recorded["instances"]
    image = observer.draw(batch).image
    classes = torch.cat([i.gt_classes for i in instances])
    targets = torch.cat([i.gt_masks.crop_and_resize(i.proposal_boxes.tensor, 8) for i in instances])
    expected = draw_masks_beside_ground_truth(logits[torch.arange(len(classes)), classes], targets)
    assert torch.equal(image, expected)


def test_without_a_call_there_is_no_image(detectors):
    (observer,) = make_observers(detectors.make("retinanet", vis_period=1))
    observer.attach()
    observer.detach()
    assert observer.draw(detectors.batch()) is None
