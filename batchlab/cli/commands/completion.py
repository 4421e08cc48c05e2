"""`batchlab completion`: the script with which a shell completes command lines, values of config groups included."""

import argparse

from batchlab.cli.output import say
from batchlab.cli.parser import Parser
from batchlab.errors import BadRequest

EXAMPLES = """\
examples:
  batchlab completion bash >> ~/.bashrc                                    bash
  batchlab completion zsh >> ~/.zshrc                                      zsh, after its compinit
  batchlab completion fish > ~/.config/fish/completions/batchlab.fish      fish

Then `batchlab sweep data=<TAB>` lists the data sets, those of --config-dir and of the folder's own configs included."""

BASH = """\
_batchlab() {
    local line="${COMP_LINE:0:COMP_POINT}" word cut= found
    word="${line##*[[:space:]]}"
    # bash splits arguments at = and : unless COMP_WORDBREAKS says otherwise, and replaces only the last part.
    if [[ $COMP_WORDBREAKS == *=* && $word == *=* ]]; then cut="${word%"${word##*[=:]}"}"; fi
    COMPREPLY=()
    while IFS= read -r found; do
        COMPREPLY+=("${found#"$cut"}")
    done < <("$1" completion --line "$line" 2>/dev/null)
}
complete -o nospace -o bashdefault -o default -F _batchlab batchlab"""

ZSH = """\
_batchlab() {
    local -a found
    found=("${(@f)$("${words[1]}" completion --line "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    found=("${(@)found% }")
    if [[ -n "$found" ]]; then compadd -Q -S '' -- "${(@)found}"; else _files; fi
}
compdef _batchlab batchlab"""

FISH = """\
function __batchlab_complete
    set -l program (commandline -opc)[1]
    $program completion --line (commandline -cp | string collect) 2>/dev/null | string trim --right
end
complete -c batchlab -f -a '(__batchlab_complete)'
complete -c batchlab -l config-dir -r -F"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def parser() -> Parser:
    """Its arguments."""
    made = Parser("completion", "Prints the script with which a shell completes batchlab's command lines.", EXAMPLES)
    made.add_argument("shell", nargs="?", choices=tuple(SCRIPTS), help="the shell")
    made.add_argument("--line", help=argparse.SUPPRESS)  # up to the cursor, with the name of the program
    return made


def main(arguments: list[str]) -> int:
    """Prints the shell's script; or, when called by that script, the completions of a line, one per line."""
    given = parser().parse_args(arguments)
    if given.line is not None:
        from batchlab.cli.candidates import candidates

        for found in candidates(given.line):
            say(found)
        return 0
    if given.shell is None:
        raise BadRequest(f"the name of a shell is missing: `batchlab completion` takes one of {', '.join(SCRIPTS)}")
    say(SCRIPTS[given.shell])
    return 0
