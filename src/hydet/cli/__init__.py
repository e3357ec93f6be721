"""The commands, such as ``train``, ``evaluate``, ``predict`` and ``export``."""
