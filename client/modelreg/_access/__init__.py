"""Which registry is called, and with which credentials."""
