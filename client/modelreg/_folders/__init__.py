"""The packed form of folders."""
