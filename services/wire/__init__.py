"""Pure codecs: bytes in, messages out, and back. No I/O, no clock."""
