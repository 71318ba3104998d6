# Sourced by ./quickstart and ./check: installs what is missing and makes .venv. Debian 12, root.
# What is there is not touched, and nothing is asked of the network for it.
set -euo pipefail

said=$(mktemp)
trap 'rm -rf "$said" "$said".*' EXIT

say() { echo "$*" >&2; }

fail() {
    echo "$0: $*" >&2
    exit 1
}

# Run what may fail for reasons of the machine's; a failure is one sentence with the cause.
attempt() { # WHAT-FAILED COMMAND...
    local what=$1 last
    shift
    "$@" > "$said" 2>&1 && return
    # The first error of apt's and pip's is the cause, the last line of others.
    last=$({ grep -E '^(E: |ERROR: )' "$said" || grep -vE '^(W:|\s*$)' "$said" | tac; } | head -n 1 | cut -c 1-300)
    grep -q 'No space left on device' "$said" && last="no space left on device ($(room))"
    fail "$what: ${last:-it said nothing}"
}

room() { df -h --output=avail,target "$here" /var /tmp | tail -n +2 | sort -u | awk '{printf "%s%s free on %s", s, $1, $2; s=", "}'; }

need_room() { # MIB: what a first run takes, with some to spare
    local folder free
    for folder in "$here" /var /tmp; do
        free=$(($(stat -f -c '%a * %S' "$folder") / 1048576))
        [ "$free" -ge "$1" ] || fail "$1 MiB of free space are needed and $folder has $free"
    done
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@" < /dev/null
}

# The lists of packages, once per run.
update() {
    [ -e "$said.updated" ] && return
    attempt "apt-get update failed; check the machine's package sources and its network" \
        apt -o APT::Update::Error-Mode=any update
    touch "$said.updated"
}

# A dpkg that was killed refuses all work until it has been let finish; what it had started may still
# hold its lock.
install_now() {
    local turn
    for turn in 1 2 3 4 5 6; do
        apt install -y --no-install-recommends "$@" > "$said.apt" 2>&1 && return
        grep -qE 'dpkg was interrupted|Could not get lock|is locked by another|held by process' "$said.apt" || break
        sleep $((turn * 2))
        dpkg --configure -a > /dev/null 2>&1 < /dev/null || true
    done
    cat "$said.apt"
    return 1
}

# What is asked for by package name and not there yet; quiet when there is nothing to do.
install_packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$name" 2> /dev/null | grep -qx installed || missing+=("$name")
    done
    [ ${#missing[@]} = 0 ] && return
    say "Installing ${missing[*]} ..."
    need_room 1500
    update
    attempt "apt-get could not install ${missing[*]}" install_now "${missing[@]}"
}

# Programs of packages that the machine need not have, unpacked beside each other and not installed:
# no service of theirs is started. What starts the program is put into .cache/bin.
fetch_program() { # PATH-IN-PACKAGE PACKAGE...
    local path=$1 name=${1##*/} tree work deb
    shift
    command -v "$name" > /dev/null && return
    say "Fetching $* ..."
    update
    tree="$here/.cache/packages/$name"
    mkdir -p "$here/.cache/packages" "$here/.cache/bin"
    work=$(mktemp -d "$here/.cache/packages/.XXXXXX")
    attempt "$* can't be fetched" env -C "$work" apt-get -qq -o APT::Sandbox::User=root -o Acquire::Retries=3 download "$@"
    for deb in "$work"/*.deb; do
        attempt "${deb##*/} can't be unpacked" dpkg-deb -x "$deb" "$work/tree"
    done
    rm -rf "$tree" "$work/tree/usr/share"
    mv "$work/tree" "$tree"
    rm -rf "$work"
    # Last, and by rename: an interrupted run begins anew.
    printf '#!/bin/sh\nPATH="$PATH:%s"\nexport PATH\nexec "%s" "$@"\n' \
        "$tree/usr/bin:$tree/usr/sbin" "$tree/$path" > "$tree/.start"
    chmod 755 "$tree/.start"
    mv "$tree/.start" "$here/.cache/bin/$name"
}

find_python() {
    local candidate found=""
    for candidate in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        candidate=$(command -v "$candidate") || continue
        found="$candidate is $("$candidate" -V 2>&1)"
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2> /dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 to 3.14 is needed; ${found:-there is none}"
}

# .venv with the project in it, and what its tests need if asked. The stamp is written last, so an
# interrupted run begins anew; one with the tests' packages does for ./quickstart, too.
make_venv() { # EXTRA (test or nothing)
    local python stamp has
    stamp=$(cat "$here/pyproject.toml" "$here"/native/*.py | sha256sum | cut -c 1-64)
    has=$(cat "$here/.venv/hyper-stamp" 2> /dev/null || true)
    case $has in "$stamp" | "$stamp test") ;; *) has="" ;; esac
    if "$here/.venv/bin/python" -c 'import hyperstack' 2> /dev/null; then
        [ "$has" = "$stamp${1:+ $1}" ] || [ "$has" = "$stamp test" ] && return
    fi
    python=$(find_python)
    say "Making .venv with $("$python" -V) ..."
    need_room 500
    # Not what another Python, or an interrupted run, has left.
    "$here/.venv/bin/python" -m pip -V > /dev/null 2>&1 || rm -rf "$here/.venv"
    [ -d "$here/.venv" ] || attempt "no virtual environment could be made" "$python" -m venv "$here/.venv"
    attempt "pip could not install the project; check that the package index is reachable" \
        "$here/.venv/bin/pip" --disable-pip-version-check --no-input -q install -e "$here${1:+[$1]}"
    echo "$stamp${1:+ $1}" > "$here/.venv/hyper-stamp"
}

command -v apt-get > /dev/null || fail "this needs Debian's apt-get (Debian 12 is what it is tried on)"
[ "$(uname -m)" = x86_64 ] || fail "this needs an x86-64 machine, this one is $(uname -m)"
install_packages ca-certificates debian-archive-keyring python3 python3-venv gcc libc6-dev make \
    musl-tools libseccomp2 libnftables1 e2fsprogs busybox-static mmdebstrap iproute2 util-linux kmod xz-utils
export PATH="$PATH:$here/.cache/bin"
