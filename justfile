# What CI and the README run lies in scripts/; these are shorter names.

# Formatting and lints.
check:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets -- -D warnings

# Every test, with what they need installed.
test:
    scripts/test

# Unit and root tests of the libraries alone.
root:
    cargo nextest run --locked -p proto-api -p storage -p executor -p daemon -p cli

# End-to-end tests alone (scripts/test has prepared what they need before).
e2e *ARGS:
    cargo nextest run --locked -p tests {{ARGS}}

# Crash tests with many random schedules.
crash:
    for n in 1 2 3 4 5; do cargo nextest run --locked -p tests --test crash; done

# The property suites with many cases.
fuzz:
    PROPTEST_CASES=20000 cargo nextest run --locked --workspace -E 'test(/prop|fuzz|any_/)'

# Side by side with Docker, Podman and bare crun.
bench *ARGS:
    scripts/bench {{ARGS}}

# The main job, shown.
demo:
    scripts/demo
