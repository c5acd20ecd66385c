#!/usr/bin/env bash
# A slab churn: dentries of names that do not exist, sockets and pipes.
. "$(dirname "$0")/common.sh"
record slab-churn -- python3 load.py slab-churn 4.5
