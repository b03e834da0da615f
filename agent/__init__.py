"""The machine being attested: it collects, obeys and reports, and never judges (architecture.md, section 6)."""
