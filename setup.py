"""Map `kernels/` and `conf/` into the package where git checked out their links as text files.

`src/hydet/kernels` and `src/hydet/conf` are relative links, so that installers, type checkers and editors find them as
ordinary packages. Git on Windows writes a link as a file that holds the target unless `core.symlinks` is set; there,
setuptools is given the top-level folders instead.
"""

from pathlib import Path

from setuptools import find_packages, setup

package_dir = {"": "src"}
packages = find_packages("src", include=["hydet", "hydet.*"])
for name in ("kernels", "conf"):
    if not (Path(__file__).parent / "src" / "hydet" / name).is_dir():
        package_dir[f"hydet.{name}"] = name
        packages += [f"hydet.{name}", *(f"hydet.{name}.{child}" for child in find_packages(name))]

setup(package_dir=package_dir, packages=packages)
