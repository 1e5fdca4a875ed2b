"""Action records: which files a stage made for a key, as `actions/<key>.json` in the store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from wanc.artifacts.canonical import canonical, digest_of
from wanc.runtime.manifest import check_paths
from wanc.runtime.strict_json import JsonObject, JsonValue, parse_object

SCHEMA = "wanc.action/1"
_KEY = re.compile(r"[0-9a-f]{64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Blob:
    """Content by digest, "sha256:<64 hex>", and size in bytes."""

    digest: str
    size: int

    @property
    def hex(self) -> str:
        return self.digest.removeprefix("sha256:")


@dataclass(frozen=True)
class ActionRecord:
    """What one run of a stage made. `document` is the key document, of which `key` is the SHA-256 (64 hex digits).

    `files` maps "/"-separated paths to their content; `meta` is for people (seconds, peak memory) and keys nothing.
    """

    key: str
    stage: str
    document: Mapping[str, JsonValue]
    files: Mapping[str, Blob]
    meta: Mapping[str, JsonValue]

    @property
    def bundle_id(self) -> str | None:
        """The id of the bundle that a seal has made; None of every other record."""
        bundle_id = self.meta.get("id")
        return bundle_id if isinstance(bundle_id, str) else None

    def to_bytes(self) -> bytes:
        """The canonical JSON that is stored, with a checksum over itself: a flipped bit must not yield other files."""
        content = self._content()
        return canonical({**content, "checksum": digest_of(content)})

    @classmethod
    def parse(cls, data: bytes, *, where: str) -> ActionRecord:
        """The record with these bytes. Raises BundleError when they are not exactly what `to_bytes` wrote."""
        fields = parse_object(data, where=where)
        if fields.text("schema") != SCHEMA:
            fields.refuse("schema", f"is not {SCHEMA}")
        files = {item.text("path"): Blob(item.text("digest"), item.integer("size")) for item in fields.objects("files")}
        check_paths(files, where=where)
        for blob in files.values():
            if not _DIGEST.fullmatch(blob.digest):
                fields.refuse("files", "holds something that is not a digest")
        if not is_key(fields.text("key")):
            fields.refuse("key", "is not 64 hex digits")
        record = cls(
            key=fields.text("key"),
            stage=fields.text("stage"),
            document=fields.object("document").values,
            files=files,
            meta=fields.object("meta").values,
        )
        try:
            genuine = record.to_bytes() == data
        except ValueError:  # a number that was never written here
            genuine = False
        if not genuine:
            fields.refuse("checksum", "does not fit the record")
        return record

    def _content(self) -> JsonObject:
        files: list[JsonValue] = [
            {"path": path, "digest": blob.digest, "size": blob.size} for path, blob in sorted(self.files.items())
        ]
        return {
            "schema": SCHEMA,
            "key": self.key,
            "stage": self.stage,
            "document": dict(self.document),
            "files": files,
            "meta": dict(self.meta),
        }


def is_key(text: str) -> bool:
    """Whether this is 64 lower-case hex digits; keys name files."""
    return _KEY.fullmatch(text) is not None
