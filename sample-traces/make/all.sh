#!/usr/bin/env bash
# Records every sample trace anew; run it as root with kmemlab in PATH or in KMEMLAB.
set -euo pipefail
here=$(dirname "$0")
for recipe in fork-open slab-churn pressure; do
    bash "$here/$recipe.sh"
done
for release in 6.1 6.12; do
    bash "$here/guest.sh" $release
done
