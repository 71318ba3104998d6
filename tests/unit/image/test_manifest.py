from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperstack.errors import HyperError, InternalError, InvalidParameter, NotFound
from hyperstack.image import manifest as m
from hyperstack.image.manifest import Index, Manifest, MediaType, Platform

D = "sha256:" + "ab" * 32
AMD64 = Platform(os="linux", architecture="amd64")


def descriptor(kind: str = MediaType.OCI_LAYER_GZIP, **more: object) -> dict[str, object]:
    return {"mediaType": kind, "digest": D, "size": 5, **more}


def image(**more: object) -> dict[str, object]:
    return {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST,
        "config": descriptor(MediaType.OCI_CONFIG),
        "layers": [descriptor()],
        **more,
    }


def index(*platforms: dict[str, Any] | None, **more: object) -> dict[str, object]:
    entries = [
        descriptor(MediaType.OCI_MANIFEST, digest=f"sha256:{number:064x}", platform=platform)
        for number, platform in enumerate(platforms)
    ]
    return {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_INDEX,
        "manifests": entries,
        **more,
    }


def parse(document: object, kind: str = MediaType.OCI_MANIFEST) -> Manifest | Index:
    return m.parse_manifest(json.dumps(document).encode(), kind, "docker.io/library/x:1")


def parse_index(document: object) -> Index:
    found = parse(document, MediaType.OCI_INDEX)
    assert isinstance(found, Index)
    return found


def test_an_image_manifest_gives_config_and_layers() -> None:
    found = parse(image())
    assert isinstance(found, Manifest)
    assert (found.config.id, found.layers[0].size) == (D, 5)
    m.check_image(found)


def test_null_is_the_zero_value_and_unknown_keys_are_ignored() -> None:
    found = parse(image(annotations=None, subject=None, other={"a": 1}, mediaType=None))
    assert isinstance(found, Manifest)
    layer = descriptor(platform=None, urls=None, annotations={"a": None, "b": "c"})
    found = parse(image(layers=[layer]))
    assert isinstance(found, Manifest)
    assert found.layers[0].annotations == {"b": "c"}


@pytest.mark.parametrize(
    "document",
    [
        image(layers=[descriptor(digest="sha256:abc")]),
        image(layers=[descriptor(digest=D + "\n")]),
        image(layers=[descriptor(digest="sha512:" + "ab" * 64)]),
        image(layers=[descriptor(digest="../../etc/passwd")]),
        image(layers=[descriptor(size=-1)]),
        image(layers=[descriptor(size=m.MAX_BLOB + 1)]),
        image(layers=[descriptor(size=1.5)]),
        image(layers=[descriptor()] * (m.MAX_LAYERS + 1)),
        image(layers="x"),
        image(config={}),
        image(schemaVersion=3),
        image(manifests=[]),
        index(mediaType=MediaType.OCI_MANIFEST),
        index(*[None] * (m.MAX_INDEX_ENTRIES + 1)),
        index(schemaVersion="2"),
        [],
        "x",
        json.loads("[" * 40 + "]" * 40),
        {**image(), "annotations": json.loads('{"a":' * 40 + "1" + "}" * 40)},
    ],
)
def test_a_manifest_that_breaks_the_rules_is_refused(document: object) -> None:
    with pytest.raises(InternalError):
        parse(document)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b"{}" * 2, b"NaN"])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(InternalError):
        m.parse_manifest(data, MediaType.OCI_MANIFEST)


def test_a_manifest_over_its_bound_is_not_even_read() -> None:
    with pytest.raises(InternalError, match="larger than 4194304 bytes"):
        m.parse_manifest(b" " * (m.MAX_MANIFEST + 1), MediaType.OCI_MANIFEST)
    with pytest.raises(InternalError, match="larger than 8388608 bytes"):
        m.parse_config(b" " * (m.MAX_CONFIG + 1))


def test_a_document_that_contradicts_the_registrys_media_type_is_refused() -> None:
    with pytest.raises(InternalError, match="if present, mediaType in manifest should be"):
        parse(image(), MediaType.OCI_INDEX)
    with pytest.raises(InternalError, match="does not fit its media type"):
        parse({**image(), "mediaType": None}, MediaType.DOCKER_LIST)


def test_a_manifest_without_any_type_is_known_by_what_it_has() -> None:
    assert isinstance(parse({**image(), "mediaType": ""}, "application/json"), Manifest)
    assert isinstance(parse({**index(), "mediaType": ""}, ""), Index)
    with pytest.raises(InvalidParameter, match="unsupported manifest media type"):
        parse({"schemaVersion": 2}, "application/x")


@pytest.mark.parametrize("kind", [MediaType.SCHEMA1, MediaType.SCHEMA1_SIGNED, "application/json"])
def test_schema_1_is_refused_and_its_author_asked_to_upgrade(kind: str) -> None:
    with pytest.raises(
        InvalidParameter,
        match=r"schema 1 support has been removed\. Suggest the "
        "author of docker.io/library/x:1 to upgrade",
    ):
        parse({"schemaVersion": 1, "fsLayers": []}, kind)


@pytest.mark.parametrize(
    "entry",
    [
        descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=["http://a"]),
        descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        descriptor("application/x-other"),
        descriptor(""),
    ],
)
def test_layers_that_are_not_fetched_from_the_registry_are_refused(
    entry: dict[str, object],
) -> None:
    found = parse(image(layers=[entry]))
    assert isinstance(found, Manifest)
    with pytest.raises(InvalidParameter):
        m.check_image(found)


def test_an_artifact_is_no_image() -> None:
    found = parse(image(config=descriptor("application/vnd.cncf.helm.config.v1+json")))
    assert isinstance(found, Manifest)
    with pytest.raises(InvalidParameter, match=r"unsupported media type application/vnd\.cncf"):
        m.check_image(found)


def test_an_index_gives_the_entry_of_the_wanted_platform() -> None:
    found = parse_index(
        index(
            {"os": "windows", "architecture": "amd64", "os.version": "10.0"},
            {"os": "linux", "architecture": "arm64", "variant": "v8"},
            {"os": "linux", "architecture": "amd64"},
            {"os": "linux", "architecture": "arm", "variant": "v7"},
            {"os": "linux", "architecture": "arm", "variant": "v6"},
            {"os": "unknown", "architecture": "unknown"},
        )
    )
    for text, number in [
        ("linux/amd64", 2),
        ("linux/arm64", 1),
        ("linux/arm64/v8", 1),
        ("linux/arm", 3),
        ("linux/arm/v6", 4),
        ("x86_64", 2),
        ("aarch64", 1),
        ("linux/armhf", 3),
    ]:
        assert found.select(Platform.parse(text)).digest == f"sha256:{number:064x}", text


def test_an_index_without_the_platform_says_so_in_dockers_words() -> None:
    found = parse_index(index({"os": "linux", "architecture": "arm64"}, None, None))
    with pytest.raises(NotFound) as caught:
        found.select(AMD64)
    assert caught.value.message == (
        "no matching manifest for linux/amd64 in the manifest list entries"
    )


def test_an_index_with_one_entry_of_no_platform_gives_that_one() -> None:
    assert parse_index(index(None)).select(AMD64).digest == f"sha256:{0:064x}"


@pytest.mark.parametrize(
    "text", ["a/b/c/d", "", "linux/", "/", "linux/amd64 ", "li nux", "nonsense"]
)
def test_a_bad_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid argument"):
        Platform.parse(text)


def test_a_platform_of_one_word_is_a_system_or_a_machine() -> None:
    assert Platform.parse("arm64") == Platform(os="linux", architecture="arm64")
    assert Platform.parse("windows").os == "windows"
    assert str(Platform.parse("linux/arm/v6")) == "linux/arm/v6"


def test_a_config_has_as_many_diff_ids_as_the_manifest_has_layers() -> None:
    config = m.parse_config(json.dumps({
        "architecture": "amd64", "os": "linux", "created": None, "config": None,
        "rootfs": {"type": "layers", "diff_ids": [D]}, "history": [{"created_by": "x"}],
    }).encode())  # fmt: skip
    assert config.platform == AMD64
    layer = m.Descriptor(digest=D, size=1)
    assert m.check_rootfs(config, [layer]) == (D,)
    for layers in ([], [layer, layer]):
        with pytest.raises(InternalError, match="layers from manifest don't match image config"):
            m.check_rootfs(config, layers)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "schemaVersion",
                    "mediaType",
                    "config",
                    "layers",
                    "manifests",
                    "digest",
                    "size",
                    "platform",
                    "os",
                    "architecture",
                    "rootfs",
                    "diff_ids",
                    "history",
                    "annotations",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)


@given(json_values, st.sampled_from([*MediaType, "", "application/json"]))
def test_any_json_is_read_or_refused_with_a_sentence(value: object, kind: str) -> None:
    data = json.dumps(value).encode()
    for read in (lambda: m.parse_manifest(data, kind), lambda: m.parse_config(data)):
        try:
            read()
        except HyperError:
            pass
