# Sourced by ./quickstart and ./check: installs what is missing and makes .venv. Debian 12, root.
set -euo pipefail

fail() {
    echo "$0: $*" >&2
    exit 1
}

[ "$(id -u)" = 0 ] || fail "run this as root: it starts virtual machines and makes network interfaces"
command -v apt-get > /dev/null || fail "this needs Debian's apt-get (Debian 12 is what it is tried on)"

# What is asked for by package name and not there yet; quiet when there is nothing to do.
install_packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$name" 2> /dev/null | grep -qx installed || missing+=("$name")
    done
    [ ${#missing[@]} = 0 ] && return
    echo "Installing ${missing[*]} ..."
    apt-get -qq update || fail "apt-get update failed: check the machine's package sources"
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" \
        > /dev/null 2> /tmp/hyper-apt.err || fail "apt-get could not install ${missing[*]}: $(tail -n 1 /tmp/hyper-apt.err)"
}

# A program from a package, without installing it: no service of it is started on this machine.
fetch_program() { # PACKAGE PATH-IN-PACKAGE
    local target="$here/.cache/bin/${2##*/}" work
    [ -x "$target" ] && return
    mkdir -p "$here/.cache/bin"
    work=$(mktemp -d)
    (cd "$work" && apt-get -qq update && apt-get -qq download "$1" && dpkg-deb -x ./*.deb x) > /dev/null \
        || fail "package $1 can't be fetched: check the machine's package sources"
    install -m 755 "$work/x/$2" "$target"
    rm -rf "$work"
}

make_venv() { # EXTRA (test or nothing)
    local python stamp
    python=$(command -v python3) || fail "python3 is missing"
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
        || fail "Python 3.11 to 3.14 is needed, $python is $("$python" -V)"
    stamp=$(cat "$here/pyproject.toml" "$here"/native/*.py | sha256sum)$1
    [ -x "$here/.venv/bin/hyperd" ] && [ "$(cat "$here/.venv/hyper-stamp" 2> /dev/null)" = "$stamp" ] && return
    echo "Making .venv ..."
    "$python" -m venv "$here/.venv" || fail "no virtual environment could be made"
    "$here/.venv/bin/pip" --disable-pip-version-check -q install -e "$here${1:+[$1]}" \
        || fail "pip could not install the project: check that the package index is reachable"
    echo "$stamp" > "$here/.venv/hyper-stamp"
}

install_packages ca-certificates debian-archive-keyring python3 python3-venv gcc libc6-dev make \
    musl-tools libseccomp2 libnftables1 e2fsprogs busybox-static mmdebstrap iproute2 util-linux kmod xz-utils
