#!/usr/bin/env bash
# Looks for known vulnerabilities in what the program calls.
#
# usage: scripts/vulncheck.sh GOVULNCHECK
#
# The database is https://vuln.go.dev, or what VULNDB names: a mirror, or file:///FOLDER. Exit codes: 0 nothing found, 3 something
# found, 4 the database cannot be reached, so that nothing is known; others: it could not run.
set -euo pipefail

said=$(mktemp)
trap 'rm -f "$said"' EXIT
code=0
"$1" ${VULNDB:+-db "$VULNDB"} ./cmd/pgamqp 2> >(tee "$said" >&2) || code=$?
if [[ $code != 0 ]] && grep -q 'fetching vulnerabilities' "$said"; then
	echo 'vulncheck: NOT CHECKED: the database of vulnerabilities cannot be reached; set VULNDB to a mirror of it' >&2
	exit 4
fi
exit "$code"
