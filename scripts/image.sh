#!/usr/bin/env bash
# Makes container images for both architectures in dist/, as OCI archives that docker, podman and skopeo read.
#
# usage: scripts/image.sh files|build TAG COMMIT
#
#   files   only dist/image, the folder that an image is built from; needs no container tool
#   build   that, and the images by buildah, which needs neither a daemon nor a network; nothing is emulated, as
#           nothing is run
set -euo pipefail
cd "$(dirname "$0")/.."

what=$1 tag=$2 commit=$3
version=$(scripts/version.sh "$tag")
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
readonly context=dist/image architectures='amd64 arm64'

# Where systems keep the certificates that they trust.
certificates() {
	local file
	for file in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
		[[ ! -r $file ]] || { echo "$file"; return; }
	done
	echo 'image: no certificates found: install ca-certificates' >&2
	return 1
}

rm -rf "$context"
mkdir -p "$context"
for arch in $architectures; do
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch go build -trimpath \
		-ldflags "-s -w -X main.version=$tag -X main.commit=$commit" -o "$context/pgamqp-linux-$arch" ./cmd/pgamqp
done
cp "$(certificates)" "$context/ca-certificates.crt"
cp LICENSE packaging/Containerfile "$context/"
go run ./internal/licenses texts >"$context/licenses.txt"
[[ $what == build ]] || exit 0

command -v buildah >/dev/null || { echo 'image: buildah missing: install it, or build dist/image with docker or podman' >&2; exit 1; }
rm -f dist/pgamqp-*.oci.tar
store=$(mktemp -d)
trap 'rm -rf "$store"' EXIT
export STORAGE_DRIVER=vfs # works on every file system, and without a kernel module
image_tool() { buildah --root "$store/root" --runroot "$store/run" "$@"; }

for arch in $architectures; do
	name=localhost/pgamqp:${version//+/-} # a tag may not have a plus
	image_tool bud --quiet --format oci --isolation chroot --platform "linux/$arch" --timestamp "$SOURCE_DATE_EPOCH" \
		--build-arg "VERSION=$version" --build-arg "COMMIT=$commit" --tag "$name" --file "$context/Containerfile" "$context" >/dev/null
	image_tool push --quiet "$name" "oci:$store/$arch:$name"
	archive=dist/pgamqp-$version-linux-$arch.oci.tar
	# By tar, as an archive of buildah's has the time of its making in it: equal sources give equal files.
	tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
		-cf "$archive" -C "$store/$arch" blobs index.json oci-layout
done
scripts/checksums.sh
