"""The providers' wire formats over real HTTP, on loopback, with faults on request: for trying a configuration, and for tests."""
