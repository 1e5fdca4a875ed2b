"""What this machine can build and run, and what it lacks. Everything here works in a broken installation too."""

from __future__ import annotations

from wanc.doctor.report import Report, examine

__all__ = ["Report", "examine"]
