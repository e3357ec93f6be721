"""Every run has a folder of its own."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from omegaconf import OmegaConf

from hydet.cli.run_folder import claim_folder, with_run_folder
from hydet.config import ConfigError, compose_choices


def test_runs_that_start_at_the_same_time_claim_different_folders(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: claim_folder(tmp_path / "runs" / "2026-01-01_00-00-00"), range(16)))
    assert len(set(folders)) == 16 and all(folder.is_dir() for folder in folders)
    assert (tmp_path / "runs" / "2026-01-01_00-00-00-16").is_dir()


@pytest.mark.parametrize("value", ["", "null", "''", " "])
def test_an_empty_folder_is_refused(value):
    with pytest.raises(ConfigError, match="must name a folder"):
        with_run_folder([f"output_dir={value}"], None)


def test_the_default_folder_is_claimed_and_a_typed_one_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = compose_choices([], config_name="train")
    (override,) = with_run_folder([], config)
    name = override.removeprefix("output_dir='").removesuffix("'")
    assert name.startswith("runs/") and (tmp_path / name).is_dir()
    assert with_run_folder(["output_dir=a"], config) == ["output_dir=a"]
    assert with_run_folder(["--cfg", "job"], config) == ["--cfg", "job"]
    assert with_run_folder([], OmegaConf.create({"output_dir": "fixed"})) == []


def test_other_ranks_create_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    arguments = with_run_folder([], compose_choices([], config_name="train"))
    assert "hydra.output_subdir=null" in arguments and not any(a.startswith("output_dir") for a in arguments)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_sweep():
    assert with_run_folder(["-m", "output_dir=a"], None) == ["-m", "output_dir=a", "hydra.sweep.dir=a"]
    assert with_run_folder(["-m", "output_dir=a,b"], None)[2:] == [
        "hydra.sweep.dir=.",
        "hydra.sweep.subdir=${output_dir}",
    ]
    for arguments in (["-m", "seed=1,2"], ["-m", "output_dir=a", "hydra.sweep.dir=b"]):
        assert with_run_folder(arguments, None) == arguments
