# Sourced by scripts/batchlab, scripts/python and scripts/test, which set `here` to the folder of this file.
# `set_up plain` or `set_up test` creates or updates $root/.venv; if it is up to date, only its stamp is read.
#
# .venv/batchlab-ready       the stamp: a checksum of the set-up's inputs; written last, by a rename
# .venv/batchlab-unfinished  a set-up was interrupted: the next call creates .venv again
# .venv/batchlab-setup.log   the installer's output

# shellcheck shell=sh disable=SC2154
root=${here%/*}
venv=$root/.venv
constraints=$here/constraints.txt
log=$venv/batchlab-setup.log

say() { printf 'batchlab: %s\n' "$*" >&2; }

# The path is part of it: an editable install and its console scripts contain it.
fingerprint() { { cat "$root/pyproject.toml" "$constraints" "$venv/pyvenv.cfg" && echo "$root"; } 2>/dev/null | cksum; }

is_ready() {
    [ -f "$venv/batchlab-ready" ] && [ -x "$venv/bin/python" ] && [ -x "$venv/bin/batchlab" ] || return 1
    read -r stamp <"$venv/batchlab-ready" || return 1
    now=$(fingerprint)
    [ "$stamp" = "$now $1" ] || [ "$stamp" = "$now test" ] # the test extra includes all of the plain one
}

set_up() {
    if is_ready "$1"; then return; fi
    (
        # Kept: settings of the user's network, such as PIP_INDEX_URL. PYTHONPATH is set again for the run itself.
        unset VIRTUAL_ENV PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_PYTHON PIP_CONSTRAINT \
            PIP_NO_DEPS PIP_REQUIRE_VIRTUALENV UV_CONSTRAINT UV_TARGET UV_PREFIX UV_SYSTEM_PYTHON
        # The lock is on a file that always exists and is never written; it ends with its last holder, even if killed.
        if command -v flock >/dev/null && ! flock -n 9; then
            say "waiting for another set-up of $venv"
            flock 9
        fi
        if ! is_ready "$1"; then make_ready "$1"; fi
    ) 9>>"$constraints"
}

make_ready() {
    if command -v uv >/dev/null; then tool=uv minutes="about 1 minute"; else tool=pip minutes="2 to 5 minutes"; fi
    if [ -e "$venv/batchlab-unfinished" ] || ! new_enough "$venv/bin/python" >/dev/null; then
        python=$(find_python) || {
            say "needs Python 3.11 or newer, but there is none on the PATH: install one and run the command again"
            exit 1
        }
        say "setting up $venv with $tool, once: $minutes, 6 GB (PyTorch with CUDA)"
        rm -rf "$venv"
        mkdir "$venv"
        : >"$venv/batchlab-unfinished"
        make_venv "$python" >"$log" 2>&1 || give_up
    else
        say "updating $venv with $tool: seconds, or $minutes if PyTorch changed"
        if [ -e "$venv/batchlab-ready" ]; then mv "$venv/batchlab-ready" "$venv/batchlab-unfinished"; fi
        : >"$venv/batchlab-unfinished"
        : >"$log"
    fi
    fill_venv "$1" >>"$log" 2>&1 || give_up
    echo "$(fingerprint) $1" >"$venv/batchlab-unfinished"
    mv "$venv/batchlab-unfinished" "$venv/batchlab-ready"
}

# Run it, do not only look for it: a version manager's shim may be on the PATH without a Python behind it.
new_enough() { "$1" -c 'import sys; print(sys.executable); sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# python3 first: it is the user's choice, from an activated environment or a version manager.
find_python() {
    for python in python3 python3.13 python3.12 python3.11 python; do
        if found=$(new_enough "$python"); then
            echo "$found"
            return
        fi
    done
    return 1
}

make_venv() {
    if [ "$tool" = uv ]; then uv venv --allow-existing --python "$1" "$venv"; else "$1" -m venv "$venv"; fi
}

# The build backends are installed first, in their pinned versions, to build without isolation from pinned ones only.
fill_venv() {
    cd "$root" || return
    if [ "$1" = plain ]; then project=.; else project=".[$1]"; fi
    if [ "$tool" = pip ] && ! "$venv/bin/python" -m pip --version; then
        "$venv/bin/python" -m ensurepip || return # uv creates a .venv without pip
    fi
    install hatchling setuptools pip && install --no-build-isolation --editable "$project"
}

install() {
    if [ "$tool" = uv ]; then
        uv pip install --python "$venv/bin/python" --constraint "$constraints" "$@"
    else
        "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --constraint "$constraints" "$@"
    fi
}

give_up() {
    say "the set-up failed; the end of $log:"
    tail -n 15 "$log" >&2
    say "fix the error (usually the network, a proxy or disk space) and run the command again: it starts over"
    exit 1
}
