from ..meta_arch.conftest import ARCHITECTURES, architecture

__all__ = ["ARCHITECTURES", "architecture"]
