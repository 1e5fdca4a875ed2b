"""What a store holds, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanc.artifacts.records import ActionRecord
from wanc.artifacts.store import Store


@dataclass(frozen=True)
class Listing:
    """The records of a store, by stage."""

    records: tuple[ActionRecord, ...]

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {
                "stage": record.stage,
                "key": record.key,
                "bytes": _size(record),
                "files": len(record.files),
                **record.meta,
            }
            for record in self.records
        ]

    def as_text(self) -> str:
        lines = [f"{'stage':<10} {'files':>6} {'MiB':>10} {'seconds':>9}  key"]
        for record in self.records:
            seconds = record.meta.get("seconds", 0)
            mib = _size(record) / 2**20
            lines.append(f"{record.stage:<10} {len(record.files):>6} {mib:>10.1f} {seconds:>9}  {record.key[:16]}")
        return "\n".join(lines)


def list_store(root: Path) -> Listing:
    """Every finished action. Raises UserError where there is no store."""
    return Listing(tuple(sorted(Store.existing(root).records(), key=lambda record: (record.stage, record.key))))


def _size(record: ActionRecord) -> int:
    return sum(blob.size for blob in record.files.values())
