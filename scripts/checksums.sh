#!/usr/bin/env bash
# Writes dist/SHA256SUMS anew, of all files that are there, whatever made them.
set -euo pipefail
cd "$(dirname "$0")/../dist"
rm -f SHA256SUMS
find . -maxdepth 1 -type f -printf '%P\n' | sort | xargs -d '\n' sha256sum -- >SHA256SUMS.new
mv SHA256SUMS.new SHA256SUMS
ls -l
