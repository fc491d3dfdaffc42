from typing import Any

PATIENTS: dict[str, dict[str, Any]] = {}
