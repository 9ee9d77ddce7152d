"""The product's performance as ratios to the bare cost of the same bytes or rows, in one run on one machine.

`make bench` runs everything, `make bench-quick` a part; see README.md here.
"""
