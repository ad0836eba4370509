#compdef skiff
# Completion of skiff's commands for zsh. Load it with:  source <(skiff completion zsh)

_skiff() {
    local out directive line name text
    local -a candidates bare
    out="$(${words[1]} __complete "${(@)words[2,CURRENT]}" 2>/dev/null)" || return
    directive="${out##*:}"
    out="${out%:*}"
    for line in "${(@f)out}"; do
        [[ -z "$line" ]] && continue
        name="${line%%$'\t'*}"
        text="${line#*$'\t'}"
        if [[ "$line" == *$'\t'* ]]; then
            candidates+=("${name//:/\\:}:$text")
        else
            candidates+=("${name//:/\\:}")
        fi
    done
    local -a opts
    ((directive & 2)) && opts=(-S '')
    if ((${#candidates[@]})); then
        _describe -V 'skiff' candidates "${opts[@]}"
    elif ((!(directive & 4))); then
        _files
    fi
}

if [[ "$funcstack[1]" == "_skiff" ]]; then
    _skiff "$@"
else
    compdef _skiff skiff
fi
