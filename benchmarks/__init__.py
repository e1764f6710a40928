"""How fast each path is, beside the limit that stands above it. ``make bench`` runs them; what they came to: ``docs/performance.md``."""
