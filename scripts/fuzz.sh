#!/usr/bin/env bash
# Runs every fuzz target of the module, each for a number of seconds.
set -euo pipefail

seconds=${1:?usage: fuzz.sh SECONDS}
found=
while IFS=: read -r file target; do
	found=1
	printf 'fuzz: %s in %s for %s s\n' "$target" "$(dirname "$file")" "$seconds"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "${seconds}s" "./$(dirname "$file")" </dev/null
done < <(git ls-files --cached --others --exclude-standard '*_test.go' | while read -r file; do
	sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|$file:\1|p" "$file"
done)
[[ $found ]] || { echo 'fuzz: no targets' >&2; exit 1; }
