#!/bin/sh
# The account stays: files elsewhere may belong to it.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
fi
if [ "$1" = purge ]; then
	rm -rf /etc/pgamqp
fi
