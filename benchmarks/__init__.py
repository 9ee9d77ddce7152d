"""How fast the product is, as ratios: beside what the same bytes or rows cost without it, in one run on one machine.

`make bench` runs everything, `make bench-quick` less of it; see README.md here.
"""
