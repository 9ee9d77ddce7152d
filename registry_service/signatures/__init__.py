"""Readers of model files. `dispatch` selects the reader; `builder` collects its results within `limits`."""
