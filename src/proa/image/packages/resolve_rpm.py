"""Run by the host's own Python as nobody: dnf resolves and downloads, JSON in, JSON out.

Given as a text to `python3 -c`, so that it needs no right to read this directory.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from typing import Any


def main() -> None:
    """The request is the first argument."""
    request = json.loads(sys.argv[1])
    try:
        dnf: Any = importlib.import_module("dnf")
    except ImportError as error:
        sys.stderr.write("error: the python library 'dnf' is not there: install 'python3-dnf'\n")
        raise SystemExit(1) from error
    base = dnf.Base()
    try:
        json.dump(resolve(dnf, base, request), sys.stdout)
    except dnf.exceptions.Error as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        raise SystemExit(1) from error


def resolve(dnf: Any, base: Any, request: Any) -> list[dict[str, Any]]:
    """Every package that is needed, downloaded."""
    configure(base.conf, request)
    for number, url in enumerate(request["urls"]):
        repository = base.repos.add_new_repo(f"r{number}", base.conf, baseurl=[url])
        repository.skip_if_unavailable = False
        repository.metadata_expire = -1 if request["offline"] else 0
        if request["offline"]:
            repository._repo.setSyncStrategy(dnf.repo.SYNC_ONLY_CACHE)
    base.fill_sack(load_system_repo=False)
    for name in request["packages"]:
        base.install(name)
    base.resolve()
    packages = sorted(base.transaction.install_set)
    if not request["offline"]:
        base.download_packages(packages)
    return [
        {
            "name": package.name, "version": package.evr, "architecture": package.arch,
            "file": kept(package.localPkg(), request["home"]), "built": package.buildtime,
            "repository": int(package.reponame.removeprefix("r")),
        }
        for package in packages
    ]  # fmt: skip


def kept(path: str, home: str) -> str:
    """The name below the home of a package; those of local repositories are copied there."""
    if os.path.commonpath((path, home)) != home:
        copy = f"{home}/local/{os.path.basename(path)}"
        if os.path.exists(path):
            shutil.copyfile(path, copy)
        path = copy
    return os.path.relpath(path, home)


def configure(conf: Any, request: Any) -> None:
    """Nothing of this host's configuration; everything below the working directory."""
    here = request["home"]
    for name in ("root", "cache", "log", "state", "local"):
        os.makedirs(f"{here}/{name}", exist_ok=True)
    conf.installroot = f"{here}/root"
    conf.cachedir, conf.logdir, conf.persistdir = f"{here}/cache", f"{here}/log", f"{here}/state"
    conf.reposdir, conf.varsdir, conf.pluginpath = [], [], []
    conf.install_weak_deps = request["recommends"]
    conf.excludepkgs = request["exclude"]
    conf.gpgcheck = False  # rpmkeys checks what was downloaded
    conf.substitutions["releasever"] = request["release"]
    conf.substitutions["arch"] = conf.substitutions["basearch"] = request["architecture"]


if __name__ == "__main__":
    main()
