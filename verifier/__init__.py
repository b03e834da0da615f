"""The party that judges: it accepts, decides, issues, records and shows (architecture.md, section 6)."""
