# Completion of skiff's commands for fish. Load it with:  skiff completion fish | source

function __skiff_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    set -l out ($words[1] __complete $words[2..-1] "$word" 2>/dev/null)
    or return
    set -l directive (string replace -r '.*:' '' -- $out[-1])
    set -l candidates $out[1..-2]
    if test (count $candidates) -gt 0
        printf '%s\n' $candidates
    else if test (math "bitand($directive, 4)") -eq 0
        __fish_complete_path "$word"
    end
end

complete -c skiff -f -a '(__skiff_complete)'
