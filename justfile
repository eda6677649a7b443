# Run these through ./just, which makes .venv first.

export PATH := justfile_directory() / ".venv/bin" + ":" + env("PATH")
export PYTHONPATH := justfile_directory()

# the list of what there is
[private]
default:
    @just --justfile '{{ justfile() }}' --list --unsorted

# the main job, live: hub, cloud, two edge nodes, a device, a cut link (--keep leaves it running)
demo *args:
    #!/usr/bin/env bash
    set -euo pipefail
    DOCKER_HOST=$(python -m ops.engine up --images)
    export DOCKER_HOST
    exec python -m ops.demo {{ args }}

# end what demo --keep left running, and the Docker engine if it is ours
down:
    #!/usr/bin/env bash
    set -euo pipefail
    python -m ops.demo down
    python -m ops.engine down

# lint and every test: unit, contract, simulation, end to end
test *args: lint
    #!/usr/bin/env bash
    set -euo pipefail
    DOCKER_HOST=$(python -m ops.engine up --images)
    export DOCKER_HOST
    exec python -m pytest {{ args }}

# unit tests only
test-fast *args:
    python -m pytest tests/unit {{ args }}

# ruff, mypy strict, and the import rules of the rooms
lint:
    ruff check .
    ruff format --check .
    mypy
    lint-imports --no-logo

# seeded simulation of hub, cloud and edges with faults (--seed N repeats one)
sim *args:
    python -m ops.sim {{ args }}

# faults on real processes in network namespaces, and a scorecard of what each cost (--rows cut,kill-leaf; --list)
chaos *args:
    #!/usr/bin/env bash
    set -euo pipefail
    DOCKER_HOST=$(python -m ops.engine up --images)
    export DOCKER_HOST
    exec python -m ops.chaos {{ args }}

# agreement of the standalone API with answers recorded from a real Kubernetes API server
golden *args:
    python -m ops.golden {{ args }}

# hostile and careless requests against the API, from a seed that is printed (--seed N --runs N --requests N)
fuzz *args:
    python -m ops.fuzz {{ args }}

# latency, replay speed, memory and reconnect figures from real runs
bench *args:
    #!/usr/bin/env bash
    set -euo pipefail
    DOCKER_HOST=$(python -m ops.engine up --images)
    export DOCKER_HOST
    exec python -m ops.bench {{ args }}

# hollow nodes by the thousand: connect, idle traffic, latency, storms, catch-up, each as a JSON line (--nodes N)
fleet *args:
    python -m ops.fleet {{ args }}

# write the event schemas and the AsyncAPI document to build/schemas
docs:
    python -m ops.cli schema export build/schemas

# make the lock files anew from pyproject.toml (needs uv)
lock:
    #!/usr/bin/env bash
    set -euo pipefail
    compile() { uv pip compile -q --universal --python-version 3.11 --generate-hashes --custom-compile-command './just lock' "$@"; }
    compile -o requirements.lock pyproject.toml
    compile --extra dev -o requirements-dev.lock pyproject.toml
    printf 'pip\nsetuptools>=80\n' | compile -o requirements-build.lock -
