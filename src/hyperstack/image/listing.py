"""``images``: which images a list shows, by Docker's filters.

As in Docker an image without a name is *dangling*; it is shown unless another image was made from
it, which makes it an intermediate one, for ``--all`` alone.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from hyperstack.errors import InternalError, InvalidParameter
from hyperstack.globs import Glob
from hyperstack.image.catalog import chain_ids
from hyperstack.image.reference import Reference
from hyperstack.image.store import ImageStore
from hyperstack.image.values import Image
from hyperstack.until import parse_time

Filters = dict[str, list[str]]
Test = Callable[[Image], bool]
KEYS = frozenset({"before", "dangling", "label", "reference", "since", "until"})
_TRUE = frozenset({"1", "true"})
_FALSE = frozenset({"0", "false"})


def list_images(store: ImageStore, *, all_: bool, filters: Filters) -> list[Image]:
    """Return images, newest first. Raises InvalidParameter for filters that Docker refuses."""
    check_keys(filters, KEYS)
    dangling = boolean(filters, "dangling", default=None)
    tests = _tests(store, filters)
    patterns = [_readable(text) for text in filters.get("reference", [])]
    parents = {image.parent for image in store.catalog if image.parent}
    found = []
    for image in store.catalog:
        shown = _matching(image, patterns) if patterns else image
        named = bool(shown.names or shown.repo_digests)
        if dangling is True and (image.id in parents or image.names):
            continue
        if not named and (patterns or dangling is False or (image.id in parents and not all_)):
            continue
        if all(test(image) for test in tests):
            found.append(shown)
    return sorted(found, key=lambda image: image.created_ns, reverse=True)


def _tests(store: ImageStore, filters: Filters) -> list[Test]:
    tests: list[Test] = []
    for name in filters.get("before", []):
        limit = store.catalog.get(name).created_ns
        tests.append(lambda image, limit=limit: _dated(image) < limit)  # type: ignore[misc]
    for name in filters.get("since", []):
        limit = store.catalog.get(name).created_ns
        tests.append(lambda image, limit=limit: image.created_ns > limit)  # type: ignore[misc]
    now = time.time_ns()
    for text in filters.get("until", []):
        limit = moment(text, now)
        tests.append(lambda image, limit=limit: _dated(image) <= limit)  # type: ignore[misc]
    if "label" in filters:
        tests.append(label_test(filters["label"]))
    return tests


def _dated(image: Image) -> float:
    """Return when an image was made, ns; one that does not tell is older than nothing."""
    return image.created_ns if image.created else math.inf


def moment(text: str, now_ns: int) -> int:
    """Return the time of an ``until`` filter, ns. dockerd calls a bad one its own failure."""
    try:
        return parse_time(text, now_ns)
    except InvalidParameter as error:
        raise InternalError(error.message) from error


def label_test(values: Sequence[str]) -> Test:
    """Return the test of ``label=key`` and ``label=key=value`` filters (all must hold)."""
    wanted = [value.partition("=") for value in values]

    def test(image: Image) -> bool:
        labels = image.config.labels
        return all(k in labels and (not eq or labels[k] == v) for k, eq, v in wanted)

    return test


def check_keys(filters: Filters, known: Iterable[str]) -> None:
    """Raise InvalidParameter for a filter that is not *known*."""
    for key in filters:
        if key not in known:
            raise InvalidParameter(f"invalid filter '{key}'")


def boolean(filters: Filters, key: str, default: bool | None) -> bool | None:
    """Return a filter's truth value, *default* without one. Raises InvalidParameter."""
    if key not in filters:
        return default
    given = filters[key]
    if not given:
        raise InvalidParameter(f"invalid filter '{key}'")
    values = set(given)
    if values <= _TRUE:
        return True
    if values <= _FALSE:
        return False
    raise InvalidParameter(f"invalid filter '{key}=[{' '.join(given)}]'")


def _matching(image: Image, patterns: Sequence[Glob]) -> Image:
    """Return the image with those of its names that a pattern fits, as Docker shows it."""

    def fits(name: str) -> bool:
        short = Reference.parse(name).familiar_name
        return any(p.matches(name) or p.matches(short) for p in patterns)

    return replace(
        image,
        names=tuple(filter(fits, image.names)),
        repo_digests=tuple(filter(fits, image.repo_digests)),
    )


def _readable(text: str) -> Glob:
    try:
        return Glob(text)
    except InvalidParameter as error:
        raise InternalError(error.message) from error  # as dockerd has it


def shared_sizes(store: ImageStore) -> dict[str, int]:
    """Return by image id the bytes of its layers that some other image has too.

    As with Docker, layers are the same if all below them are.
    """
    chains = {image.id: chain_ids(image.diff_ids) for image in store.catalog}
    counts = Counter(chain for found in chains.values() for chain in found)
    layers = store.catalog.layers
    return {
        image.id: sum(
            layers[d].content_size
            for chain, d in zip(chains[image.id], image.diff_ids, strict=True)
            if counts[chain] > 1 and d in layers
        )
        for image in store.catalog
    }


def layers_size(store: ImageStore) -> int:
    """Return the bytes of all images' layers, counted as ``shared_sizes`` counts them."""
    sizes = {
        chain: layer.content_size
        for image in store.catalog
        for chain, d in zip(chain_ids(image.diff_ids), image.diff_ids, strict=True)
        if (layer := store.catalog.layers.get(d)) is not None
    }
    return sum(sizes.values())
