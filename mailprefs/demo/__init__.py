"""The story, end to end, on real parts: an own PostgreSQL, real HTTP, a provider's sandbox in another process."""

from __future__ import annotations

from mailprefs.demo.stage import Detour, staged
from mailprefs.demo.story import tell

__all__ = ["Detour", "staged", "tell"]
