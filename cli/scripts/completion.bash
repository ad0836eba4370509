# Completion of skiff's commands for bash. Load it with:  source <(skiff completion bash)

__skiff_complete() {
    local word out directive line
    # The part of the line up to the cursor, with words such as "busybox:latest" in one piece.
    local -a words=()
    local before="${COMP_LINE:0:COMP_POINT}"
    read -r -a words <<<"$before"
    [[ "$before" == *[[:space:]] ]] && words+=("")
    word="${words[${#words[@]}-1]}"

    out="$("${words[0]}" __completeNoDesc "${words[@]:1}" 2>/dev/null)" || return
    directive="${out##*:}"
    out="${out%:*}"

    # Bash replaces only what follows the last of its word breaks.
    local cut=""
    if [[ "$word" == *:* && "$COMP_WORDBREAKS" == *:* ]]; then
        cut="${word%"${word##*:}"}"
    fi
    if [[ "$word" == *=* && "$COMP_WORDBREAKS" == *=* ]]; then
        cut="${word%"${word##*=}"}"
    fi
    COMPREPLY=()
    while IFS= read -r line; do
        [[ -n "$line" ]] && COMPREPLY+=("${line#"$cut"}")
    done <<<"$out"

    if ((directive & 2)); then
        compopt -o nospace
    fi
    if ((!(directive & 4))) && ((${#COMPREPLY[@]} == 0)); then
        compopt -o default
    fi
}

complete -F __skiff_complete skiff
