import pytest
import torch


@pytest.mark.parametrize("architecture", ["rpn_fpn"], indirect=True)
def test_results_are_proposals_at_the_output_resolution(architecture):
    model, batch = architecture.model().eval(), architecture.batch()
    assert model.tasks == ("proposals",) and not model.needs_proposals
    batch[0].update(height=32, width=48)
    with torch.no_grad():
        results = model.inference(batch)
    assert [set(result) for result in results] == [{"proposals"}] * 2
    assert results[0]["proposals"].image_size == (32, 48)
    assert (results[0]["proposals"].objectness_logits.diff() <= 0).all()
