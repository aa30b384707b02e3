#!/bin/sh
# A new unit is read; a daemon that runs goes on with the new program. It is not enabled: it needs a database first.
set -e
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload
	systemctl try-restart pgamqp.service
fi
