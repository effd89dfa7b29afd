# What a test puts before the commands of a document. CHECKOUT, SERVICE and SMALL come from outside;
# an error of HTTP is one of curl, by ~/.curlrc.

# In the background, until it is well: a reader has a terminal of its own for it.
_start() {
  command loraworks "$@" &
  until _is_well "$1"; do
    kill -0 $! || return
    sleep 0.5
  done
}

_is_well() {
  case "$1" in
    worker) command loraworks worker --check ;;
    *) curl --silent --output /dev/null "$SERVICE/readyz" ;;
  esac
}

STEPWISE=' sweep start | --method (lora|full|baseline) | --r | --target '
NOT_AUTO=' --(method|time-budget|spec|r|alpha|target) '

loraworks() {
  case "${1-} ${2-}" in
    "up "*) _is_well up || _start "$@" ;;
    "api " | "worker ") _start "$1" ;;
    "train "* | "sweep start")
      [[ -z $SMALL || " $* " = *" --watch "* || " $* " = *" --local "* ]] || set -- "$@" --dry-run
      # Two epochs for methods that have epochs: neither `auto` nor linear models do.
      [[ -z $SMALL || " $* " = *" --epochs "* || ! " $* " =~ $STEPWISE ]] || set -- "$@" --epochs 2
      # `auto` then tries no LoRA, which it would train six times.
      [[ -z $SMALL || $1 = sweep || " $* " =~ $NOT_AUTO ]] || set -- "$@" --time-budget 20
      command loraworks "$@" $SMALL
      ;;
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
