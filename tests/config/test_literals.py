import random

from omegaconf import OmegaConf

from hydet.config import literal_config


def test_strings_come_back_as_they_were():
    draw = random.Random(0)
    for _ in range(3000):
        text = "".join(draw.choice("\\${}ab'\" :.") for _ in range(draw.randint(0, 12)))
        config = literal_config({"a": text, "b": [text, {"c": text}]})
        assert config.a == text
        assert OmegaConf.to_container(config, resolve=True)["b"] == [text, {"c": text}]


def test_an_interpolation_is_text():
    config = literal_config({"price": "${price}", "home": "\\${oc.env:HOME}", "number": 3})
    assert (config.price, config.home, config.number) == ("${price}", "\\${oc.env:HOME}", 3)
