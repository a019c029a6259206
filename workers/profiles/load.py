"""Reading profiles: those beside this module, and the operator's own files, which may extend one of them."""

import functools
import os
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from workers.catalog.facts import parse, read_document, read_yaml
from workers.errors import ConfigError
from workers.profile import Profile

NOT_INHERITED = frozenset({"rather"})
"""What is said of one profile alone."""

PROFILE_PATH = "FLEETGATE_WORKER_PROFILES"


def load_profiles(folders: Iterable[Path] = ()) -> dict[str, Profile]:
    """All profiles by name: the built-in ones, then those in `folders` and in $FLEETGATE_WORKER_PROFILES.

    A file of the operator replaces a built-in profile of the same name. Raises ConfigError for a file that
    is wrong, and for a folder that is not there.
    """
    documents = _built_in()
    profiles = {p.name: p for p in (_build(doc, documents, name) for name, doc in documents.items())}
    configured = [Path(f) for f in os.environ.get(PROFILE_PATH, "").split(os.pathsep) if f]
    for folder in [*configured, *folders]:
        if not folder.is_dir():
            raise ConfigError(f"the folder of profiles {folder} is not there (--profiles, ${PROFILE_PATH})")
        for file in sorted(folder.glob("*.yaml")):
            profile = load_profile_file(file)
            profiles[profile.name] = profile
    return profiles


def load_profile_file(file: Path) -> Profile:
    """The profile in one file. It may say `extends: NAME` and then only what differs from that built-in
    profile.
    """
    document = read_document(file)
    if not isinstance(document, dict):
        raise ConfigError(f"{file} is not a YAML mapping")
    return build_profile(document, str(file))


def build_profile(document: Mapping[str, Any], where: str) -> Profile:
    """The profile of a document, which may extend a built-in one. Raises ConfigError that names `where`."""
    return _build(document, _built_in(), where)


def find_profile(name: str, folders: Iterable[Path] = ()) -> Profile:
    """The profile of that name, or in the file of that path. Raises ConfigError with the known names."""
    if name.endswith((".yaml", ".yml")):
        return load_profile_file(Path(name))
    profiles = load_profiles(folders)
    if name not in profiles:
        raise ConfigError(f"unknown profile {name!r}; known:\n  " + "\n  ".join(profiles))
    return profiles[name]


def is_built_in(profile: Profile) -> bool:
    """Whether every installation has this profile, and not another one of its name."""
    documents = _built_in()
    return profile.name in documents and _build(documents[profile.name], documents, profile.name) == profile


@functools.cache
def _built_in() -> dict[str, dict[str, Any]]:
    folder = files("workers.profiles")
    sources = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {f.name.removesuffix(".yaml"): read_yaml(f.read_text()) for f in sources}


def _build(document: Mapping[str, Any], bases: Mapping[str, Mapping[str, Any]], where: str) -> Profile:
    profile: Profile = parse(Profile, _resolve(document, bases, where), where)
    return profile


def _resolve(document: Mapping[str, Any], bases: Mapping[str, Mapping[str, Any]], where: str) -> dict[str, Any]:
    """Lay a document over the one it extends. Mappings merge, everything else replaces."""
    own = {key: value for key, value in document.items() if key != "extends"}
    base_name = document.get("extends")
    if base_name is None:
        return own
    if not isinstance(base_name, str) or base_name not in bases:
        raise ConfigError(f"{where} extends {base_name!r}, which is not a built-in profile")
    base = _resolve(bases[base_name], bases, base_name)
    return _merge({key: value for key, value in base.items() if key not in NOT_INHERITED}, own)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
