#!/usr/bin/env bash
# Writes what is generated from src/common/config_options.def: conf/nexus.conf, docs/configuration.md.
# Run it after a change of the table; .ci/run compares.
set -euo pipefail
cd "$(dirname "$0")/.."

work_dir=$(mktemp -d "${TMPDIR:-/tmp}/nexus-generate.XXXXXX")
trap 'rm -rf "$work_dir"' EXIT

"${CC:-cc}" -std=c11 -Wall -Wextra -Werror -I src -o "$work_dir/generate_config" scripts/generate_config.c
mkdir -p conf docs
"$work_dir/generate_config" conf >"$work_dir/nexus.conf"
"$work_dir/generate_config" docs >"$work_dir/configuration.md"
cp "$work_dir/nexus.conf" conf/nexus.conf
cp "$work_dir/configuration.md" docs/configuration.md
