# Shared by the scripts: where things are, root, and packages. Sourced, not run.
cd "$(dirname "$0")/.."
CTL_TEST_CACHE=${CTL_TEST_CACHE:-$PWD/target/ctl/cache}
export CTL_TEST_CACHE

say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }

# Runs the script again as root where it is not.
become_root() {
    [ "$(id -u)" = 0 ] || exec sudo --preserve-env=PATH,CARGO_HOME,RUSTUP_HOME,HOME "$0" "$@"
}

# Installs the named Debian packages that are missing.
need() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    # Services of packages that tests start by themselves must not be started by the installation.
    policy=/usr/sbin/policy-rc.d
    [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; made_policy=1; }
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    [ -z "${made_policy:-}" ] || rm -f $policy
}

# The docker client: the one on the machine, or Debian's.
need_docker_client() {
    command -v docker >/dev/null || need docker.io
}
