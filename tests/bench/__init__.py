"""`make bench`: land, normalize and publish, measured beside other ways on the same Postgres.

Every way reads the same pages from the same file, one by one, and starts from an empty database of
the server that `make up` starts, durable as there.  Rounds are interleaved and each measurement is
a process of its own, so medians and ratios can be compared and memory is its own; absolute figures
are this machine's.  The wire is left out for all: pages are there as soon as they are asked for.
"""
