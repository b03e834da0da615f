"""What a TPM 2.0 says, read and believed without a TPM library.

Structures are parsed as the TCG "Trusted Platform Module Library, Part 2: Structures" (rev 1.59) writes them on
the wire: big-endian, no padding. `structures` and `public` are format only; `quote`, `clock`, `identity` and
`credential` decide what is believed. Nothing here talks to a device.
"""
