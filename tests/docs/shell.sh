# What a test puts before the commands of a document. CHECKOUT, SERVICE and SMALL come from outside;
# an error of HTTP is one of curl, by ~/.curlrc.

# In the background, and once: a reader has a terminal of its own for it.
_up() {
  curl --silent --output /dev/null "$SERVICE/readyz" && return
  command loraworks up "$@" &
  until curl --silent --output /dev/null "$SERVICE/readyz"; do
    kill -0 $! || return
    sleep 0.2
  done
}

# In the background, until it is well.
_start() {
  command loraworks "$@" &
  until command loraworks "$1" --check; do
    kill -0 $! || return
  done
}

loraworks() {
  case "${1-} ${2-}" in
    "up "*) _up "${@:2}" ;;
    "api " | "worker ") _start "$1" ;;
    "train "* | "sweep start") command loraworks "$@" $SMALL ;;
    *) command loraworks "$@" ;;
  esac
}

# The working tree as it is, not what was committed somewhere.
git() {
  case "$1" in
    clone) cp -a "$CHECKOUT" "$3" ;;
    pull) ;;
    *) return 1 ;;
  esac
}

# A target is looked up. What it does is not done again within a test.
make() {
  command make --dry-run --directory "$CHECKOUT" "$@"
}
