"""Conversion between the messages of the API and the domain, one module per noun."""
