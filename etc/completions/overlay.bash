# bash completion for the commands overlay-* and the tools ob-*.
# Options come from --help, names from ob-list. compgen -W would expand a name, and run what is in $(...).
# shellcheck shell=bash

# The command is looked for on PATH: the word in the line may be the path of another program.
_overlay_options() {
    "$1" --help 2>/dev/null | grep -oE '(^|[^[:alnum:]-])--[a-z][a-z-]*' | grep -oE -- '--.*' | sort -u
}

_overlay() {
    local command=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} last=${COMP_WORDS[COMP_CWORD - 1]}
    local words='' files='' operands=0 index
    for ((index = 1; index < COMP_CWORD; index++)); do
        [[ ${COMP_WORDS[index]} == -* ]] || ((operands += 1))
    done
    COMPREPLY=()

    case ${command##*/}:$operands in
    # The words after the name are a command inside.
    overlay-go:0 | ob-enter:0) words=$(ob-list --names 2>/dev/null) ;;
    overlay-go:* | ob-enter:*) return ;;
    overlay-stop:* | overlay-list:* | overlay-log:* | overlay-diff:* | ob-list:*)
        words=$(ob-list --names 2>/dev/null) files=confs ;;
    overlay-boot:0 | ob-conf:0) files=confs ;;
    overlay-share:0) files=all ;;
    overlay-share:1) words=$(ob-list --names 2>/dev/null) ;;
    overlay-new:0) files=directories ;;
    overlay-subhosts:0) words='start stop status list run end' ;;
    esac
    case $last in
    --state | -s) words='starting running stopping' files='' ;;
    --lower | -l) [[ $command != *overlay-new ]] || { words='' files=directories; } ;;
    esac
    [[ $word != -* ]] || { words=$(_overlay_options "${command##*/}") files=''; }

    case $files in
    confs) mapfile -t COMPREPLY < <(compgen -f -X '!*.conf' -- "$word"; compgen -d -- "$word") ;;
    all) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    directories) mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
    esac
    # With this option bash itself quotes what is put into the line.
    [[ -z $files ]] || compopt -o filenames 2>/dev/null
    local -a list
    local name quoted
    IFS=$' \t\n' read -rd '' -a list <<<"$words"
    for name in "${list[@]}"; do
        printf -v quoted %q "$name"
        [[ $name == "$word"* || $quoted == "$word"* ]] || continue
        [[ -n $files ]] || name=$quoted
        COMPREPLY+=("$name")
    done
}

# -o default completes a command inside with the files of the host.
complete -o bashdefault -o default -F _overlay overlay-boot overlay-stop overlay-go overlay-list overlay-log overlay-diff \
    overlay-share overlay-new overlay-subhosts overlay-diskfile ob-conf ob-room ob-mount ob-cable ob-unshare ob-enter \
    ob-list ob-diff ob-reaper
