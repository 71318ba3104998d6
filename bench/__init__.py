"""The benchmark: every line of SPECIFICATION.md, on the real stack (docs/performance.md)."""
