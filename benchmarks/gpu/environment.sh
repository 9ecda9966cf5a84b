# Sourced by run.sh and zoo.sh, which need no internet.
environment() { # FOLDER WHEELS ...: over the machine's own packages
    python3 -m venv --without-pip "$1"
    python3 -c "import site; print(site.getsitepackages()[0])" \
        > "$("$1/bin/python" -c "import site; print(site.getsitepackages()[0])")/base.pth"
    python3 -m pip --python "$1/bin/python" install -q --no-index --no-deps --no-compile "${@:2}" \
        2>&1 | tail -3
}
