"""``python -m mailprefs`` is the ``mailprefs`` command."""

from __future__ import annotations

from mailprefs.cli import main

if __name__ == "__main__":
    main(prog_name="mailprefs")
