#!/bin/sh
# The account of the daemon, before there are files that belong to its group.
set -e
if ! getent group pgamqp >/dev/null; then
	groupadd --system pgamqp
fi
if ! getent passwd pgamqp >/dev/null; then
	useradd --system --gid pgamqp --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin \
		--comment 'pgamqp daemon' pgamqp
fi
