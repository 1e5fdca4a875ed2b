"""The document's format as JSON Schema; `report.schema.json`, which ships beside this file, is kept equal to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wanc.report.document import ReportDocument

SHIPPED = Path(__file__).parent / "report.schema.json"


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a report."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:wanc:report:1.0",
        **ReportDocument.model_json_schema(),
        "title": "wanc report",
    }


def schema_text() -> str:
    """What `report.schema.json` has to hold."""
    return json.dumps(json_schema(), ensure_ascii=False, indent=2) + "\n"


if __name__ == "__main__":
    SHIPPED.write_text(schema_text(), "utf-8")
