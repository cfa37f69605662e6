# SPDX-License-Identifier: GPL-2.0-or-later
# Completion of cloison(8) for bash: subcommands, options, names of contexts.

_cloison()
{
	local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W \
			'create run list show ps exec enter kill wait remove flags caps info attr unhide device mount tag disk-limit unify' -- "$word")
	elif [[ $word == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W \
			"$(cloison "$command" --help 2>/dev/null | grep -oE -- '--[a-z-]+')" -- "$word")
	elif ((COMP_CWORD == 2)) && [[ $command != create && $command != run && $command != unify ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$(ls /run/cloison/names 2>/dev/null)" -- "$word")
	else
		mapfile -t COMPREPLY < <(compgen -o default -- "$word")
	fi
}
complete -F _cloison cloison
