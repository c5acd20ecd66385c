#!/usr/bin/env bash
# A fork and file-open storm: processes come and go, files are written, renamed and removed.
. "$(dirname "$0")/common.sh"
record fork-open -- python3 load.py fork-open 4.5
