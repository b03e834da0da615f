"""What every party agrees on: bytes in, values out, no I/O, no clock, no randomness (architecture.md, section 6)."""
