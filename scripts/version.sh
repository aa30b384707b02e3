#!/usr/bin/env bash
# Prints the version of packages and images for a tag: 1.2.3 for v1.2.3, else one that is older than every release.
#
# usage: scripts/version.sh TAG
set -euo pipefail
if [[ $1 =~ ^v([0-9]+\.[0-9]+\.[0-9]+)$ ]]; then
	echo "${BASH_REMATCH[1]}"
else
	echo "0.0.0-dev+${1//[^A-Za-z0-9]/.}"
fi
