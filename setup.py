"""Lists the packages of the mapped layout, so that a new folder needs no entry anywhere."""

from setuptools import find_packages, setup

setup(
    packages=find_packages("src", include=["hydet", "hydet.*"])
    + ["hydet.kernels", "hydet.conf"]
    + [f"hydet.kernels.{name}" for name in find_packages("kernels")]
)
