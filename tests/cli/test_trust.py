"""A checkpoint's config names code; only hydet's and torch's is run, and what the user allowed."""

import shutil

import pytest
import yaml

from hydet.engine import load_checkpoint


@pytest.mark.parametrize("place", ["augment.test", "data.val", "evaluators", "model.backbone"])
@pytest.mark.parametrize("target", ["tempfile.mkdtemp", "hydet.engine.checkpoint_folder.pickle.loads"])
def test_no_part_of_a_stored_config_calls_foreign_code(place, target, trained, failure, tmp_path):
    checkpoint = shutil.copytree(load_checkpoint(trained).path, tmp_path / "checkpoint")
    config = yaml.safe_load((checkpoint / "config.yaml").read_text())
    node = config
    for key in place.split("."):
        node = node[key]
    node["trap"] = {"_target_": target}
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(config))
    line = failure("evaluate", f"checkpoint={checkpoint}", f"output_dir={tmp_path}/out")
    assert f"{place}.trap: _target_ {target} is outside" in line
