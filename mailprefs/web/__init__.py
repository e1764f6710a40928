"""The service's doors over HTTP, one per actor."""
