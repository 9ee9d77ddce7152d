"""What a push reads, and what it keeps of its upload."""
