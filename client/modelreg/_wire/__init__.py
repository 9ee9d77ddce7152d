"""The API on the wire: methods, messages, errors, and when calls are repeated."""
