# Short names for what CONTRIBUTING.md lists. `just` alone shows them; https://just.systems runs them.

target := env("CARGO_TARGET_DIR", "target")

_list:
    @just --list --unsorted

# build, and serve on a private Postgres
run *arguments:
    scripts/run {{arguments}}

# all tests, or those of the arguments of cargo test: just test --test process
test *arguments:
    scripts/test {{arguments}}

# everything that is checked before a merge
ci:
    .ci/run

# format, lints, the order and length of modules, links: what takes seconds once it is built
check:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets -- -D warnings
    .ci/layers
    .ci/links
    .ci/threat-model

# write the settings into docs/configuration.md
settings:
    UPDATE_DOCS=1 cargo test --locked --lib documented

# update .sqlx, after a change of a query or a new migration
sqlx:
    .ci/sqlx --write

# the commands of docs/tour.md and README.md, and clients in other languages
tour: _build
    .ci/tour {{target}}/debug/tokend

# alerts, dashboard and guide against the metrics of a running tokend
metrics: _build
    .ci/metrics {{target}}/debug/tokend

# the Dockerfile, manifests, unit and licences
deploy: _build
    .ci/deploy {{target}}/debug/tokend

# packages and generated code of examples/, for the tests that run them
examples:
    .ci/examples

# every fuzz target for so many seconds
fuzz seconds="5":
    .ci/fuzz {{seconds}}

# the load bench: docs/benchmarks.md
bench name="verify":
    cargo bench --bench {{name}}

# the Debian package and the bill of materials
packages:
    .ci/packages

_build:
    cargo build --workspace --locked
