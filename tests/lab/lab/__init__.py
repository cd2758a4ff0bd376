"""Network namespaces, NAT boxes and real programs for tests: see ../README.md."""
