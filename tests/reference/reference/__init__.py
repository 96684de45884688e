"""A reference of Offshoot's strategies, written from strategies/SEMANTICS.md and the papers."""
