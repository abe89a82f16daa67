"""The JSON that commands print: rows with a schema version."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

SCHEMA = 1


def as_json(rows: Iterable[Mapping[str, Any]]) -> str:
    """The machine-readable report: ``{"schema": 1, "rows": [...]}``."""
    return json.dumps({'schema': SCHEMA, 'rows': list(rows)}, indent=1, allow_nan=False)
