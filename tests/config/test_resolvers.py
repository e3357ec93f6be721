from omegaconf import OmegaConf

from hydet.config import register_resolvers


def test_length_counts_items_and_null_is_empty():
    register_resolvers()
    register_resolvers()
    config = OmegaConf.create(
        {"names": ["a", "b"], "none": None, "n": "${hydet.length:${names}}", "m": "${hydet.length:${none}}"}
    )
    assert (config.n, config.m) == (2, 0)
