#!/usr/bin/env bash
# Makes a release in dist/: static programs, packages for Debian and RPM, a bill of materials, checksums. Equal sources
# give equal files.
#
# usage: scripts/package.sh VERSION COMMIT
set -euo pipefail
cd "$(dirname "$0")/.."

tag=$1 commit=$2
version=$(scripts/version.sh "$tag")
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH

stage=dist/stage
rm -rf dist
mkdir -p "$stage/man" "$stage/completion"

for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do
	name=pgamqp-${platform/\//-}
	CGO_ENABLED=0 GOOS=${platform%/*} GOARCH=${platform#*/} go build -trimpath \
		-ldflags "-s -w -X main.version=$tag -X main.commit=$commit" -o "$stage/$name" ./cmd/pgamqp
	cp "$stage/$name" "dist/pgamqp-$version-${platform/\//-}"
done

self=$stage/pgamqp-$(go env GOOS)-$(go env GOARCH)
"$self" man --dir "$stage/man"
go run ./internal/licenses texts >"$stage/licenses.txt"
"$self" completion bash >"$stage/completion/pgamqp.bash"
"$self" completion zsh >"$stage/completion/_pgamqp"
"$self" completion fish >"$stage/completion/pgamqp.fish"

export VERSION=$version STAGE=$stage MAINTAINER=${MAINTAINER:-'The pgamqp developers <pgamqp@localhost>'}
for ARCH in amd64 arm64; do
	export ARCH
	for packager in deb rpm; do
		bin/nfpm package --config packaging/nfpm.yaml --packager "$packager" --target dist/
	done
done

bin/cyclonedx-gomod app -json -output "dist/pgamqp-$version.cdx.json" -licenses -main cmd/pgamqp .
# The extension needs no Go where it is installed.
tar --sort=name --owner=0 --group=0 --mtime="@$SOURCE_DATE_EPOCH" --transform "s,^,pgamqp-extension-$version/," \
	-czf "dist/pgamqp-extension-$version.tar.gz" sql/*.sql sql/extension LICENSE
rm -r "$stage"
scripts/checksums.sh
