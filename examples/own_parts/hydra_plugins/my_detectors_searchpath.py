"""A Hydra plugin, installed beside ``my_detectors``: every command finds its configs without a flag."""

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class MyDetectorsSearchPath(SearchPathPlugin):
    """Adds ``my_conf`` to the search path; Hydra loads it from the namespace package ``hydra_plugins``."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append ``my_conf`` to the search path."""
        search_path.append(provider="my_detectors", path="pkg://my_conf")
