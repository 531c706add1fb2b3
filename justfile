# ./justw RECIPE installs what a recipe needs and runs it, from any directory. Recipes are thin over `usercore --help`.

set positional-arguments
set quiet

export PATH := justfile_directory() / ".venv/bin" + ":" + env("PATH")

# List the recipes
_default:
    {{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} --list --unsorted

# Run the embedded stack, the API and the workers in this terminal
[group('run')]
dev *args:
    usercore dev "$@"

# The same in the background, returning when it is ready; writes .dev/env
[group('run')]
up *args:
    usercore up "$@"

# Stop what `up` or `dev` started; data stays
[group('run')]
down *args:
    usercore down "$@"

# One user's whole way through the stack, each step checked and printed
[group('run')]
demo *args:
    usercore demo "$@"

# Run the tests in two processes, each with servers of its own; arguments go to pytest (-n 0: in one)
[group('build')]
test *args:
    pytest -n 2 --dist worksteal "$@"

# Format, lint, types, imports and house rules: what CI runs besides the tests
[group('build')]
check:
    ruff format --check . && ruff check .
    basedpyright
    lint-imports --no-cache && pytest -q tests/test_house.py

# Format the code and mend what ruff can mend
[group('build')]
format:
    ruff check --fix . ; ruff format .

# The benchmarks, each as a ratio: bench [NAME]
[group('build')]
bench *args:
    python -m bench "$@"

# Resolve the hash-pinned requirement files anew; with --upgrade, to the newest versions
[group('build')]
lock *args:
    cd requirements && {{ compile }} bootstrap.in --python-version 3.11 --output-file bootstrap.txt "$@"
    cd requirements && {{ compile }} ../pyproject.toml --output-file runtime.txt "$@"
    cd requirements && {{ compile }} ../pyproject.toml build.in --extra dev --extra aws --group ../pyproject.toml:test --constraint runtime.txt --output-file dev.txt "$@"

# A dev JWT: token SUB [--scope "internal admin"] [--client-id C] [--email E] [--ttl S]
[group('try')]
token *args:
    usercore token "$@"

# Put one event on Kafka: emit TOPIC JSON
[group('try')]
emit *args:
    usercore emit "$@"

# Print the events of a topic: tail TOPIC
[group('try')]
tail *args:
    usercore tail "$@"

# Apply the migrations that are pending
[group('database')]
migrate *args:
    usercore migrate "$@"

# Show what `migrate` would run and which locks it would take
[group('database')]
migrate-plan *args:
    usercore migrate-plan "$@"

# Take back the newest migrations: prints a plan, needs --execute
[group('database')]
rollback *args:
    usercore rollback "$@"

# Start a migration with its rollback: migration-new NAME
[group('database')]
migration-new *args:
    usercore migration-new "$@"

# The KYC vendors that are installed and enabled, with their settings
[group('plugins')]
vendors *args:
    usercore vendors "$@"

# Prove that a vendor's plugin keeps its promises: vendor-check NAME
[group('plugins')]
vendor-check *args:
    usercore vendor-check "$@"

# Write a plugin for a vendor, to be changed: new-vendor NAME
[group('plugins')]
new-vendor *args:
    usercore new-vendor "$@"

# How many events wait in the outbox, and for how long
[group('operate')]
outbox-status *args:
    usercore outbox-status "$@"

# Show the dead letters
[group('operate')]
dlq-list *args:
    usercore dlq-list "$@"

# Put dead letters back on their topics: prints a plan, needs --execute
[group('operate')]
dlq-replay *args:
    usercore dlq-replay "$@"

# Apply webhooks that were not applied: prints a plan, needs --execute
[group('operate')]
webhook-replay *args:
    usercore webhook-replay "$@"

# Ask the vendors now about open KYC cases: prints a plan, needs --execute
[group('operate')]
kyc-reconcile *args:
    usercore kyc-reconcile "$@"

# Freeze an account: user-freeze ID --reason REASON; prints a plan, needs --execute
[group('operate')]
user-freeze *args:
    usercore user-freeze "$@"

# Lift one party's holds: user-unfreeze ID --reason REASON --source PARTY; prints a plan, needs --execute
[group('operate')]
user-unfreeze *args:
    usercore user-unfreeze "$@"

# Close an account for good: user-close ID --reason REASON; prints a plan, needs --execute
[group('operate')]
user-close *args:
    usercore user-close "$@"

# Verify the audit trail: audit-verify [--jobs N] [--from N] [--to N] [--against FILE] [--keep FILE]
[group('audit')]
audit-verify *args:
    usercore audit-verify "$@"

# Write the sealed trail into a folder, to be verified elsewhere: audit-export FOLDER; audit-verify --offline FOLDER
[group('audit')]
audit-export *args:
    usercore audit-export "$@"

# Compare the trail in Postgres and in ClickHouse: audit-reconcile; --execute sends again what is missing
[group('audit')]
audit-reconcile *args:
    usercore audit-reconcile "$@"

# Print the proof that a row is in the trail: audit-prove EVENT_ID
[group('audit')]
audit-prove *args:
    usercore audit-prove "$@"

# Write all that there is of a person: user-export ID --output FILE.html --purpose PURPOSE
[group('keys')]
user-export *args:
    usercore user-export "$@"

# Erase a person: user-erase ID --reason REASON; prints a plan, needs --execute
[group('keys')]
user-erase *args:
    usercore user-erase "$@"

# Verify a certificate of erasure: erasure-verify FILE --keys KEYS [--trail FOLDER]
[group('keys')]
erasure-verify *args:
    usercore erasure verify "$@"

# Show every key, its state and age, and what depends on it
[group('keys')]
keys-list *args:
    usercore keys-list "$@"

# New versions of the keys for what is written from now on: prints a plan, needs --execute
[group('keys')]
keys-rotate *args:
    usercore keys-rotate "$@"

# Bring what was written before under the newest keys: keys-rewrap [--rate N] [--from URI]
[group('keys')]
keys-rewrap *args:
    usercore keys-rewrap "$@"

# Destroy a key that nothing depends on: keys-retire EPOCH; prints a plan, needs --execute
[group('keys')]
keys-retire *args:
    usercore keys-retire "$@"

# New data keys for one person after a leak: keys-reseal ID; prints a plan, needs --execute
[group('keys')]
keys-reseal *args:
    usercore keys-reseal "$@"

# Print the public keys that verify receipts and certificates
[group('keys')]
public-keys:
    usercore public-keys

# Verify a consent receipt: receipt-verify FILE --keys KEYS
[group('keys')]
receipt-verify *args:
    usercore receipt-verify "$@"

# Look at the machine and the stack, and say what to do about what is wrong
[group('operate')]
doctor *args:
    usercore doctor "$@"

# The effective settings, secrets masked
[group('operate')]
config *args:
    usercore config "$@"

compile := "uv pip compile --quiet --no-config --universal --generate-hashes --no-header --no-annotate"
