"""Installed beside ``my_detectors``, this makes its configs known to every command without a flag."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class MyDetectorsSearchPath(SearchPathPlugin):
    """Hydra finds it by itself, because it lies in the namespace package ``hydra_plugins``."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="my_detectors", path="pkg://my_conf")
