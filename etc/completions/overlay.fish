# fish completion for the commands overlay-* and the tools ob-*.
# Options come from --help, names from ob-list.

function __overlay_options
    # The command on PATH: the word in the line may be the path of another program.
    set -l command (commandline -opc | head -n 1 | string replace -r '.*/' '')
    $command --help 2>/dev/null | string match -r -a -- '(?<![\w-])--[a-z][a-z-]*' | sort -u
end

function __overlay_names
    ob-list --names 2>/dev/null
end

# Prints configurations, and directories that may contain some.
function __overlay_confs
    set -l word (commandline -ct)
    for path in $word*
        if test -d $path
            echo $path/
        else if string match -q -- '*.conf' $path
            echo $path
        end
    end
end

# Succeeds if there are $argv[1] operands between the command and the cursor.
function __overlay_after
    set -l words (commandline -opc)
    set -l operands (string match -v -- '-*' $words[2..-1])
    test (count $operands) -eq $argv[1]
end

function __overlay_typing_option
    string match -q -- '-*' (commandline -ct)
end

for command in overlay-{boot,stop,go,list,log,diff,share,new,subhosts,diskfile} ob-{conf,room,mount,cable,unshare,enter,list,diff,reaper}
    complete -c $command -n __overlay_typing_option -f -a '(__overlay_options)'
end
for command in overlay-{stop,list,log,diff} ob-list
    complete -c $command -f -a '(__overlay_names)' -d subhost
    complete -c $command -f -a '(__overlay_confs)'
end
for command in overlay-boot ob-conf
    complete -c $command -f -n '__overlay_after 0' -a '(__overlay_confs)'
end
for command in overlay-go ob-enter
    complete -c $command -f -n '__overlay_after 0' -a '(__overlay_names)' -d subhost
end
complete -c overlay-share -f -n '__overlay_after 1' -a '(__overlay_names)' -d subhost
complete -c overlay-new -x -n '__overlay_after 0' -a '(__fish_complete_directories)'
complete -c overlay-new -x -l lower -a '(__fish_complete_directories)'
complete -c overlay-subhosts -f -n '__overlay_after 0' -a 'start stop status list run end'
for command in overlay-list ob-list
    complete -c $command -x -s s -l state -a 'starting running stopping'
end
